//! What users stumble over when a model is loaded: output layers, number formats, weight files.

use crate::common::{Tensors, copy_of_llama, edit_config, edit_weights, sparq};
use predicates::{
    prelude::{PredicateBooleanExt, predicate},
    str::contains,
};

#[test]
fn an_output_layer_may_be_tied_repeated_other_or_missing() {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    const HEAD: &str = "lm_head.weight";
    let verify = |folder: &tempfile::TempDir, tolerance: &str| {
        let mut command = sparq();
        command.args(["verify", "--tolerance", tolerance, "-m"]).arg(folder.path());
        command.assert()
    };
    // The figures, of weights that are not those of the reference.
    let figures = |edit: &dyn Fn(&mut Tensors)| {
        let folder = copy_of_llama();
        edit_config(folder.path(), "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
        edit_weights(folder.path(), edit);
        let assert = verify(&folder, "1000").success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    };
    // Tied, and the file holds another one: as in transformers, the file is right.
    let folder = copy_of_llama();
    edit_config(folder.path(), "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    verify(&folder, "1e-4").success();
    // Tied, and the file repeats the weight under the other name, or leaves one of the two out.
    let tied = figures(&|tensors| drop(tensors.remove(HEAD).unwrap()));
    let repeated = figures(&|tensors| drop(tensors.insert(HEAD.to_owned(), tensors[EMBEDDING].clone())));
    assert_eq!(repeated, tied);
    let head_alone = figures(&|tensors| drop(tensors.remove(EMBEDDING).unwrap()));
    assert_ne!(head_alone, tied);
    let head_twice = figures(&|tensors| drop(tensors.insert(EMBEDDING.to_owned(), tensors[HEAD].clone())));
    assert_eq!(head_alone, head_twice);
    // Not tied, and not there: named, never made up.
    let folder = copy_of_llama();
    edit_weights(folder.path(), |tensors| drop(tensors.remove(HEAD).unwrap()));
    verify(&folder, "1000").code(1).stderr(contains("tensor `lm_head.weight` is missing"));
}

#[test]
fn sizes_of_the_configuration_are_compared_before_memory_is_taken() {
    for (from, to, expected) in [
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 18446744073709551615",
            "num_hidden_layers = 18446744073709551615, and the last layer of the weights is `model.layers.2`",
        ),
        ("\"hidden_size\": 64", "\"hidden_size\": 65536", "has shape [128, 64], expected [128, 65536]"),
        (
            "\"hidden_size\": 64",
            "\"hidden_size\": 64, \"head_dim\": 4611686018427387904",
            "head_dim = 4611686018427387904 are more than any memory holds",
        ),
        (
            "\"hidden_size\": 64",
            "\"hidden_size\": 64, \"head_dim\": 1099511627776",
            "self_attn.q_proj.weight` has shape",
        ),
    ] {
        let folder = copy_of_llama();
        edit_config(folder.path(), from, to);
        sparq()
            .args(["verify", "-m"])
            .arg(folder.path())
            .assert()
            .code(1)
            .stderr(contains(expected).and(contains("panicked").not()));
    }
}

#[test]
fn auto_says_which_dtype_it_took_and_why() {
    let generate = |flags: &[&str]| {
        let mut command = sparq();
        command.args(["generate", "Once", "-n", "2"]).args(flags);
        command.assert()
    };
    let kept = "dtype      bf16, as the checkpoint stores it\n";
    generate(&[]).success().stderr(contains(kept));
    generate(&["-q"]).success().stderr("");
    generate(&["--dtype", "f32"]).success().stderr(contains(kept).not());
    if cfg!(feature = "ndarray") {
        let why = "dtype      f32: the checkpoint stores bf16, which ndarray does not support\n";
        generate(&["--device", "ndarray"]).success().stderr(contains(why));
        generate(&["--device", "ndarray", "--dtype", "bf16"])
            .code(1)
            .stderr(contains("`ndarray` does not support BF16").and(contains("hint: ")));
    } else {
        println!("not run: the fall-back to f32, which needs the feature `ndarray`");
    }
}

#[test]
fn pytorch_weights_that_are_no_state_dict() {
    let folder = copy_of_llama();
    let weights = folder.path().join("model.safetensors");
    std::fs::rename(&weights, folder.path().join("pytorch_model.bin")).unwrap();
    sparq()
        .args(["verify", "-m"])
        .arg(folder.path())
        .assert()
        .code(1)
        .stderr(
            contains("pytorch_model.bin` is a safetensors file, not a PyTorch state dict")
                .and(contains("hint: rename")),
        )
        .stdout(predicate::str::is_empty());
}

#[test]
fn the_length_from_which_sparq_is_faster_is_measured_once_and_can_be_stated() {
    let (cache, folder) = (tempfile::TempDir::new().unwrap(), copy_of_llama());
    let tokenizer = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/tokenizer.json");
    let text = std::fs::read_to_string(tokenizer).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    // The vocabulary of the tokenizer is larger than the model's: what is measured comes before the text.
    let known = cache.path().join("sparq-rs/crossover.json");
    let generate = |flags: &[&str]| {
        let mut command = sparq();
        command
            .env("XDG_CACHE_HOME", cache.path())
            .args(["generate", "x", "-n", "2", "-m"])
            .arg(folder.path());
        command.args(flags).output().unwrap()
    };
    generate(&["--dense-below", "0"]);
    assert!(!known.exists());
    generate(&["--attention", "dense"]);
    assert!(!known.exists());
    // What a busy machine measures of a single length is not kept: it is tried again.
    let is_kept = (0..10).any(|_| {
        generate(&[]);
        known.exists()
    });
    assert!(is_kept, "ten runs and no verdict");
    let first = std::fs::read_to_string(&known).unwrap();
    assert!(first.contains("flex") && first.contains("tokens"), "{first}");
    generate(&[]);
    let second = std::fs::read_to_string(&known).unwrap();
    // An estimate is measured anew where more memory is free.
    assert!(second == first || first.contains(r#""estimated": true"#), "{first} and {second}");
}
