use sparq_core::{AttentionShape, transfer};

use super::*;

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 64 };

fn message(text: &str) -> String {
    MethodSpec::parse(text).unwrap_err().to_string()
}

#[test]
fn every_key_is_read_and_written_back() {
    for text in [
        "dense",
        "sparq",
        "sparq@8",
        "sparq@2.5:l=3",
        "sparq:r=16:l=0:mean=on:group=softmax:min-k=32:dense-below=100:index=int8:choice=buckets",
        "sparq-mass:r=8:k=64:l=4:mean=off:group=logits:index=int4:p=0.95",
        "exact-topk:k=4",
        "oracle-topk@16",
        "local:k=24:i=4",
        "h2o:k=24:l=6",
        "quest:k=64:page=8",
        "double-sparsity:r=8:k=32:l=2",
    ] {
        assert_eq!(MethodSpec::parse(text).unwrap().to_string(), text);
    }
    let spec = MethodSpec::parse("sparq_mass:p=0.5").unwrap();
    assert_eq!((spec.name, spec.mass), (MethodName::SparqMass, Some(0.5)), "underscores will do");
    assert_eq!(MethodSpec::parse_list("dense,h2o:k=4, quest").unwrap().len(), 3);
}

#[test]
fn mistakes_are_named() {
    assert!(message("spraq").contains("did you mean `sparq`?"), "{}", message("spraq"));
    assert!(message("nothing").contains("methods are dense, sparq"), "{}", message("nothing"));
    assert!(message("h2o:r=4").contains("h2o takes no `r`; it takes k, l"), "{}", message("h2o:r=4"));
    assert!(message("dense:k=4").contains("dense takes no `k`; it takes nothing"));
    assert!(message("sparq:k").contains("`k` is not of the form key=value"));
    assert!(message("sparq:k=1:k=2").contains("`k` is given twice"));
    assert!(message("sparq@8:r=4:k=8").contains("`@8` has no effect beside the sizes"));
    assert!(message("sparq:k=8:min-k=4").contains("`min-k` has no effect beside `k`"));
    assert!(message("sparq:k=0").contains("a whole number of at least 1"));
    assert!(message("sparq-mass:p=1.5").contains("`1.5` is no value of `p`"));
    assert!(message("sparq:mean=yes").contains("`on` and `off`"));
    for ratio in ["sparq@0.5", "sparq@", "sparq@nan", "sparq@inf"] {
        assert!(message(ratio).contains("a number of at least 1"), "{ratio}");
    }
    assert!(MethodSpec::parse_list("dense,,h2o").is_err());
}

/// Elements per KV head and step, without the terms that do not grow with the length.
fn moved(method: &Method, len: usize) -> usize {
    let d = SHAPE.head_dim;
    let written = 2 * d;
    match method {
        Method::Dense => transfer::paper_dense(len, d) - written,
        Method::Sparq(c) => transfer::paper_sparq(len, d, c.rank, c.top_k) - 2 * written,
        Method::SparqMass(c) => transfer::paper_sparq(len, d, c.sparq.rank, c.sparq.top_k) - 2 * written,
        Method::ExactTopk(c) => transfer::paper_exact_topk(len, d, c.top_k) - written,
        Method::OracleTopk(c) => 2 * c.top_k * d,
        Method::Local(c) => transfer::paper_local(d, c.top_k) - written,
        Method::H2o(c) => 2 * c.top_k * (d + 1),
        Method::Quest(c) => transfer::paper_quest(len, d, c.top_k, c.page) - written,
        Method::DoubleSparsity(c) => {
            transfer::paper_double_sparsity(len, d, c.rank, c.top_k) - written - c.rank
        }
    }
}

#[test]
fn every_method_moves_what_the_ratio_asks() {
    let layer = AttentionLayer::from(SHAPE);
    for len in [500, 1000, 4096] {
        for ratio in [1.5, 2.0, 4.0, 8.0] {
            for name in MethodName::ALL {
                let spec = MethodSpec::from(name);
                let method = match spec.resolve(&layer, len, ratio) {
                    Ok(method) => method,
                    Err(Error::Compression { .. }) if name == MethodName::ExactTopk && ratio >= 2.0 => {
                        continue;
                    }
                    Err(error) => panic!("{name} at {ratio}: {error}"),
                };
                let part = moved(&method, len) as f64 / (2 * len * SHAPE.head_dim) as f64;
                let target = if name == MethodName::Dense { 1.0 } else { 1.0 / ratio };
                // A page is 16 positions; a rank of 64 and a k are rounded.
                let slack = 8.5 / len as f64 + 0.6 / (2.0 * SHAPE.head_dim as f64);
                assert!((part - target).abs() < slack, "{name} at {ratio}, {len}: {part} for {target}");
            }
        }
    }
}

#[test]
fn every_method_runs_without_a_size() {
    let layer = AttentionLayer::from(SHAPE);
    for name in MethodName::ALL {
        crate::attention::Attention::Method(name.into()).resolve(&layer, 4096).unwrap();
    }
    let exact = MethodSpec::from(MethodName::ExactTopk);
    let method = exact.resolve(&layer, 4096, exact.name.default_compression()).unwrap();
    assert!(matches!(method, Method::ExactTopk(c) if c.top_k == 512), "an eighth of the values: {method:?}");
}

#[test]
fn what_is_stated_stays_and_the_rest_is_fitted() {
    let layer = AttentionLayer::from(SHAPE);
    let resolve = |text: &str| MethodSpec::parse(text).unwrap().resolve(&layer, 1024, 4.0);
    for text in ["sparq:r=8", "sparq:k=64", "double-sparsity:r=8"] {
        let method = resolve(text).unwrap();
        let part = moved(&method, 1024) as f64 / (2 * 1024 * 64) as f64;
        assert!((part - 0.25).abs() < 0.01, "{text}: {part}, {method:?}");
    }
    let Method::Sparq(config) = resolve("sparq@8:l=5:mean=on").unwrap() else { panic!("sparq") };
    assert_eq!((config.rank, config.top_k, config.local_window, config.mean_value), (8, 64, 5, true));
    assert!(matches!(resolve("sparq:r=64"), Err(Error::Compression { .. })));
    assert!(matches!(resolve("sparq:k=256"), Err(Error::Compression { .. })));
    assert!(matches!(resolve("quest@16"), Err(Error::Compression { .. })));
    assert!(matches!(resolve("quest:k=64"), Ok(Method::Quest(_))));
    assert!(matches!(resolve("sparq:r=65:k=4"), Err(Error::Core(_))));
    assert!(matches!(resolve("local:k=4:i=4"), Err(Error::Core(_))));
    // A window counts as the length.
    let windowed = AttentionLayer { window: Some(512), ..layer };
    let method = MethodSpec::parse("local").unwrap().resolve(&windowed, 1024, 4.0).unwrap();
    assert!(matches!(method, Method::Local(config) if config.top_k == 128));
}

#[test]
fn first_layers_are_dense_and_profiles_count_layers() {
    let layers = [AttentionLayer::from(SHAPE); 3];
    let rest = Box::new(Attention::Method(MethodSpec::parse("h2o:k=8").unwrap()));
    let methods = Attention::DenseFirst { layers: 2, rest }.methods(&layers, 100).unwrap();
    let names: Vec<&str> = methods.iter().map(Method::name).collect();
    assert_eq!(names, ["dense", "dense", "h2o"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(
        r#"{ "about": { "kl": 0.01 }, "layers": ["dense", "sparq:r=8:k=16", { "quest": { "top_k": 32, "page": 16 } }] }"#,
    );
    let profile = Profile::read(&path).unwrap();
    let methods = Attention::Profile(profile.clone()).methods(&layers, 100).unwrap();
    let names: Vec<&str> = methods.iter().map(Method::name).collect();
    assert_eq!(names, ["dense", "sparq", "quest"]);
    std::fs::write(&path, profile.to_json()).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile, "a round trip");
    let error = profile.methods(&layers[..2], 100).unwrap_err();
    assert!(error.to_string().ends_with("profile.json`, `layers`"), "{error}");
    assert!(error.hint().is_some());
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the profile has 3 layers, the model 2");
    write(r#"{ "layers": ["dense", { "quest": { "top_k": 0, "page": 16 } }, "dense"] }"#);
    let error = Profile::read(&path).unwrap().methods(&layers, 100).unwrap_err();
    assert!(error.to_string().ends_with("profile.json`, layer 1"), "{error}");

    for (text, part) in [
        ("[]", "not an object"),
        ("{}", "no list `layers`"),
        (r#"{ "layers": [], "layer": 1 }"#, "unknown field `layer`"),
        (r#"{ "layers": ["dense", "h3o"] }"#, "layer 1: `h3o`"),
        (r#"{ "layers": [{ "quest": {} }] }"#, "layer 0: missing field"),
    ] {
        write(text);
        let error = Profile::read(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
