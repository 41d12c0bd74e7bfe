use sparq_core::{AttentionShape, KtFormat, SparqConfig, TopkRule, transfer};

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
        "sparq:r=16:l=0:mean=on:group=softmax:min-k=32:dense-below=100:kt=int8:topk=buckets",
        "sparq:dense-below=auto",
        "sparq-mass:r=8:k=64:l=4:mean=off:group=logits:kt=int4:p=0.95",
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
    assert_eq!((spec.kind, spec.keys.mass), (MethodKind::SparqMass, Some(0.5)), "underscores will do");
    assert_eq!(MethodSpec::parse(" quest").unwrap().kind, MethodKind::Quest);
}

/// Keys and fields go by their names of before as well.
#[test]
fn former_names_are_read() {
    let written = "sparq:r=16:k=40:kt=int8:topk=buckets";
    let former = MethodSpec::parse("sparq:r=16:k=40:index=int8:choice=buckets").unwrap();
    assert_eq!((former, former.to_string()), (MethodSpec::parse(written).unwrap(), written.to_owned()));
    let resolved = former.resolve(&AttentionLayer::from(SHAPE), 1024).unwrap();
    let Method::Sparq(config) = resolved else { panic!("sparq") };
    let json = serde_json::to_string(&config).unwrap();
    let of_before = json.replace("kt_format", "index").replace("topk_rule", "choice");
    assert!(json != of_before && serde_json::from_str::<SparqConfig>(&of_before).unwrap() == config);
}

#[test]
fn mistakes_are_named() {
    assert!(message("spraq").contains("did you mean `sparq`?"), "{}", message("spraq"));
    assert!(message("nothing").contains("methods are dense, sparq"), "{}", message("nothing"));
    assert!(message("h2o:r=4").contains("h2o takes no `r`; it takes k, l"), "{}", message("h2o:r=4"));
    assert!(message("dense:k=4").contains("dense takes no `k`; it takes nothing"));
    assert!(message("sparq:k").contains("`k` is not of the form key=value"));
    assert!(message("sparq:k=1:k=2").contains("`k` is given twice"));
    assert!(message("sparq@8:r=4:k=8").contains("`@8` has no effect beside all sizes"));
    assert!(message("h2o@8:k=8").contains("`@8` has no effect beside all sizes"));
    assert!(message("dense@8").contains("dense takes no `@`; it takes nothing"));
    assert!(message("sparq:k=8:min-k=4").contains("`min-k` has no effect beside k"));
    assert!(message("sparq:k=0").contains("a whole number of at least 1"));
    assert!(message("sparq-mass:p=1.5").contains("`1.5` is no value of `p`"));
    assert!(message("sparq:mean=yes").contains("`on` or `off`"));
    for ratio in ["sparq@0.5", "sparq@", "sparq@nan", "sparq@inf"] {
        assert!(message(ratio).contains("a number of at least 1"), "{ratio}");
    }
    assert!(MethodSpec::parse("").is_err());
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

/// A method at a ratio, with every size left open.
fn at(kind: MethodKind, ratio: f64) -> MethodSpec {
    MethodSpec { compression: Some(ratio), ..kind.into() }
}

#[test]
fn every_method_moves_what_the_ratio_asks() {
    let layer = AttentionLayer::from(SHAPE);
    for len in [500, 1000, 4096] {
        for ratio in [1.5, 2.0, 4.0, 8.0] {
            for kind in MethodKind::ALL {
                let method = match at(kind, ratio).resolve(&layer, len) {
                    Ok(method) => method,
                    Err(Error::Compression { .. }) if kind == MethodKind::ExactTopk && ratio >= 2.0 => {
                        continue;
                    }
                    Err(error) => panic!("{kind} at {ratio}: {error}"),
                };
                let part = moved(&method, len) as f64 / (2 * len * SHAPE.head_dim) as f64;
                let target = if kind == MethodKind::Dense { 1.0 } else { 1.0 / ratio };
                // A page is 16 positions; a rank of 64 and a k are rounded.
                let slack = 8.5 / len as f64 + 0.6 / (2.0 * SHAPE.head_dim as f64);
                assert!((part - target).abs() < slack, "{kind} at {ratio}, {len}: {part} for {target}");
            }
        }
    }
}

#[test]
fn every_method_runs_without_a_size() {
    let layer = AttentionLayer::from(SHAPE);
    for kind in MethodKind::ALL {
        MethodSpec::from(kind).resolve(&layer, 4096).unwrap();
    }
    let method = MethodSpec::from(MethodKind::ExactTopk).resolve(&layer, 4096).unwrap();
    assert!(matches!(method, Method::ExactTopk(c) if c.top_k == 512), "an eighth of the values: {method:?}");
}

#[test]
fn what_is_stated_stays_and_the_rest_is_fitted() {
    let layer = AttentionLayer::from(SHAPE);
    let resolve = |text: &str| MethodSpec::parse(text).unwrap().resolve(&layer, 1024);
    for text in ["sparq@4:r=8", "sparq@4:k=64", "double-sparsity@4:r=8"] {
        let method = resolve(text).unwrap();
        let part = moved(&method, 1024) as f64 / (2 * 1024 * 64) as f64;
        assert!((part - 0.25).abs() < 0.01, "{text}: {part}, {method:?}");
    }
    let Method::Sparq(config) = resolve("sparq@8:l=5:mean=on").unwrap() else { panic!("sparq") };
    assert_eq!((config.rank, config.top_k, config.local_window, config.mean_value), (8, 64, 5, true));
    let stated = "sparq:r=16:k=40:dense-below=512:kt=int8:topk=buckets";
    let Method::Sparq(config) = resolve(stated).unwrap() else { panic!("sparq") };
    assert_eq!((config.rank, config.top_k, config.local_window, config.dense_below), (16, 40, 10, 512));
    assert_eq!(
        (config.mean_value, config.kt_format, config.topk_rule),
        (false, KtFormat::Int8, TopkRule::Buckets)
    );
    assert!(matches!(resolve("sparq@4:r=64"), Err(Error::Compression { .. })));
    assert!(matches!(resolve("sparq@4:k=256"), Err(Error::Compression { .. })));
    assert!(matches!(resolve("quest@16"), Err(Error::Compression { .. })));
    assert!(matches!(resolve("quest:k=64"), Ok(Method::Quest(_))));
    assert!(resolve("sparq:r=65:k=4").unwrap_err().to_string().contains("rank = 65"));
    assert!(matches!(resolve("local:k=4:i=4"), Err(Error::Core(_))));
    // A window counts as the length.
    for (window, top_k) in [(None, 256), (Some(512), 128), (Some(9999), 256)] {
        let windowed = AttentionLayer { window, ..layer };
        let method = MethodSpec::parse("local@4").unwrap().resolve(&windowed, 1024).unwrap();
        assert!(matches!(method, Method::Local(config) if config.top_k == top_k), "{window:?}: {method:?}");
    }
    // Only a run of text can measure it.
    let error = resolve("sparq:dense-below=auto").unwrap_err().to_string();
    assert!(error.contains("measured for `sparq` where a text is written"), "{error}");
}

/// Every set of up to three options that a method takes, with values that are none of the defaults.
fn option_sets(kind: MethodKind) -> Vec<Vec<(&'static str, &'static str)>> {
    const VALUES: [(&str, &str); 13] = [
        (RATIO, "10"),
        ("r", "3"),
        ("k", "9"),
        ("l", "5"),
        ("mean", "on"),
        ("group", "softmax"),
        ("min-k", "45"),
        ("dense-below", "7"),
        ("kt", "int8"),
        ("topk", "buckets"),
        ("p", "0.5"),
        ("i", "3"),
        ("page", "3"),
    ];
    let named = |key: &&dyn SpecKey| VALUES.iter().any(|(name, _)| *name == key.name());
    assert!(KEYS.iter().all(named), "a value for every key");
    let taken: Vec<_> = VALUES.into_iter().filter(|(name, _)| MethodSpec::from(kind).takes(name)).collect();
    let bits = |set: u32| taken.iter().enumerate().filter(move |(bit, _)| set & (1 << bit) != 0);
    let sets = (0..1u32 << taken.len()).filter(|set| set.count_ones() <= 3);
    sets.map(|set| bits(set).map(|(_, option)| *option).collect()).collect()
}

#[test]
fn what_may_be_combined_has_an_effect_and_what_may_not_has_none() {
    let layer = AttentionLayer::from(SHAPE);
    let resolved = |kind: MethodKind, options: &[(&str, &str)]| {
        let with = |spec: MethodSpec, (option, value): &(&str, &str)| spec.with(option, value).unwrap();
        let spec = options.iter().fold(MethodSpec::from(kind), with);
        // At a length or the other.
        (spec, [100, 500].map(|len| spec.resolve(&layer, len).map_err(|error| error.to_string())))
    };
    for kind in MethodKind::ALL {
        for set in option_sets(kind) {
            let (spec, methods) = resolved(kind, &set);
            let clash = spec.clash().map(|clash| clash.option);
            assert_eq!(MethodSpec::parse(&spec.to_string()).is_err(), clash.is_some(), "{spec}");
            for option in &set {
                let rest: Vec<_> = set.iter().filter(|other| *other != option).copied().collect();
                let has_effect = resolved(kind, &rest).1 != methods;
                // A second clash in the same notation is told once the first is mended.
                let is_refused = clash == Some(option.0);
                assert!(has_effect != is_refused || clash.is_some() && !is_refused, "{spec}: {}", option.0);
            }
        }
    }
}

#[test]
fn first_layers_are_dense_and_profiles_count_layers() {
    let layers = [AttentionLayer::from(SHAPE); 3];
    let spec = MethodSpec::parse("h2o:k=8").unwrap();
    let methods = AttentionPlan::Method { spec, dense_layers: 2 }.methods(&layers, 100).unwrap();
    let names: Vec<&str> = methods.iter().map(Method::name).collect();
    assert_eq!(names, ["dense", "dense", "h2o"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(
        r#"{ "about": { "kl": 0.01 }, "layers": ["dense", "sparq:r=8:k=16", { "quest": { "top_k": 32, "page": 16 } }] }"#,
    );
    let profile = Profile::read(&path).unwrap();
    let methods = AttentionPlan::Profile(profile.clone()).methods(&layers, 100).unwrap();
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

#[test]
fn the_widest_layer_is_the_last_that_sees_the_most() {
    let layer = |window| AttentionLayer { window, ..SHAPE.into() };
    assert_eq!(widest(&[]), None);
    assert_eq!(widest(&[layer(Some(4)), layer(Some(8)), layer(Some(4))]), Some(1));
    assert_eq!(widest(&[layer(None), layer(Some(8)), layer(None), layer(Some(9))]), Some(2));
}
