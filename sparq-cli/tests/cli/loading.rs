//! What users stumble over when a model is loaded: output layers, number formats, weight files.

use crate::common::{copy_of_llama, edit_config, edit_weights, sparq};
use predicates::{
    prelude::{PredicateBooleanExt, predicate},
    str::contains,
};

#[test]
fn an_output_layer_may_be_tied_repeated_or_missing() {
    let verify = |folder: &tempfile::TempDir| {
        let mut command = sparq();
        // Other weights than those of the reference: what counts is that they load.
        command.args(["verify", "--tolerance", "1000", "-m"]).arg(folder.path());
        command.assert()
    };
    // Tied, and the file repeats the weight under the other name.
    let folder = copy_of_llama();
    edit_config(folder.path(), "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    verify(&folder).success();
    // Tied, and the file leaves it out.
    edit_weights(folder.path(), |tensors| {
        tensors.remove("lm_head.weight").unwrap();
    });
    verify(&folder).success();
    // Not tied, and not there: named, never made up.
    edit_config(folder.path(), "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    verify(&folder).code(1).stderr(contains("tensor `lm_head.weight` is missing"));
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
    generate(&[]);
    let first = std::fs::read_to_string(&known).unwrap();
    assert!(first.contains("flex") && first.contains("tokens"), "{first}");
    generate(&[]);
    assert_eq!(std::fs::read_to_string(&known).unwrap(), first);
}
