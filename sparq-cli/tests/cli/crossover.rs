//! `--dense-below auto`: from which length on SparQ runs, and what is said about it.

use std::fs;

use crate::common::{demo_folder, edit_config, sparq};
use tempfile::TempDir;

/// The figures of a run with a cache of crossovers of its own, and that cache.
fn run(context: &str, args: &[&str]) -> (String, TempDir) {
    let (folder, cache) = (demo_folder(), TempDir::new().unwrap());
    edit_config(folder.path(), "\"max_position_embeddings\": 2048", "\"max_position_embeddings\": 1048576");
    let assert = sparq()
        .env("XDG_CACHE_HOME", cache.path())
        .args(["generate", "Once upon a time", "--no-progress", "--temperature", "0", "-m"])
        .arg(folder.path())
        .args(["--max-seq-len", context])
        .args(args)
        .assert()
        .success();
    (String::from_utf8(assert.get_output().stderr.clone()).unwrap(), cache)
}

/// The length of `dense below N`.
fn dense_below(figures: &str) -> usize {
    let rest = figures.split("dense below ").nth(1).unwrap_or_else(|| panic!("dense below in {figures}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_run_of_any_length_has_a_crossover() {
    let (figures, cache) =
        run("262144", &["-n", "262000", "--stop", ",", "--stop", ".", "--min-top-k", "64"]);
    // A sixteenth of the longest context is read at least: below that nothing is left out.
    let tokens = dense_below(&figures);
    assert!((16_384..=262_144).contains(&tokens), "{figures}");
    assert!(figures.contains("tokens (estimated)"), "{figures}");
    // The text is short: that is why, and not the length that was asked for.
    assert!(figures.contains("all steps ran dense: the method's top-k of "), "{figures}");
    let file = cache.path().join("sparq-rs/crossover.json");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let entry = kept.as_object().unwrap().values().next().unwrap();
    assert_eq!((entry["tokens"].as_u64(), entry["estimated"].as_bool()), (Some(tokens as u64), Some(true)));
    assert!(entry["measured_tokens"].as_u64().unwrap() >= 256, "{entry}");
}

#[test]
fn the_reason_for_dense_steps_is_the_true_one() {
    let sizes = ["-n", "8", "--ignore-eos", "--sparq-rank", "8", "--sparq-top-k", "4"];
    let (figures, _) = run("400", &[&sizes[..], &["--dense-below", "300"]].concat());
    assert!(figures.contains("dense below 300 tokens\n"), "{figures}");
    assert!(figures.contains("is shorter than the 300 of dense-below"), "{figures}");
    let (figures, _) = run("400", &[&sizes[..], &["--dense-below", "0"]].concat());
    assert!(figures.contains("dense below 0 tokens\n") && !figures.contains("ran dense"), "{figures}");
    let (figures, _) = run("400", &["-n", "8", "--ignore-eos", "--attention", "local:k=300"]);
    assert!(
        figures.contains("all steps ran dense: the method's top-k of 300 covers the whole context of"),
        "{figures}"
    );
}
