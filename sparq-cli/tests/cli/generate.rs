//! `sparq generate` with the model inside the program.

use std::fs;

use crate::common::sparq;
use tempfile::TempDir;

/// Standard output and standard error of a successful run.
fn run(args: &[&str]) -> (String, String) {
    let assert = sparq().arg("generate").args(args).assert().success();
    let output = assert.get_output();
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// Removes line breaks, so that a needle is found wherever lines end.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// English prose with a pass key near its beginning, and the question for it at the end.
fn pass_key_prompt() -> String {
    // The reference manual of no one: plain sentences, different enough not to be a loop.
    let things = ["river", "castle", "window", "garden", "letter", "harbour", "forest", "mountain"];
    let verbs = ["was seen from", "lay beyond", "was older than", "stood near", "was hidden behind"];
    let mut text = String::from("The pass key for the red lantern is 48213. ");
    for i in 0..60 {
        let (a, b) = (things[i % things.len()], things[(i * 3 + 1) % things.len()]);
        text += &format!("The {a} {} the {b}, and the old man spoke of it. ", verbs[i % verbs.len()]);
    }
    text + "\n\nWhat is the pass key for the red lantern? The pass key for the red lantern is"
}

#[test]
fn a_newcomer_sees_text_and_figures() {
    let (text, figures) = run(&["Once upon a time", "-n", "200"]);
    assert!(text.split_whitespace().count() >= 60, "{text}");
    for word in [
        "load",
        "prefill",
        "tokens/s",
        "first token after",
        "decode",
        "KV cache",
        "per token moved",
        "had it been dense",
    ] {
        assert!(figures.contains(word), "`{word}` in: {figures}");
    }
    assert!(figures.contains("attention  sparq, rank r = 8, top-k = 64"), "{figures}");
    assert!(!figures.contains("all steps ran dense"), "{figures}");
}

#[test]
fn weights_of_eight_bits_write_text_too() {
    let (text, figures) = run(&["Once upon a time", "-n", "100", "--weights", "int8"]);
    assert!(text.split_whitespace().count() >= 30, "{text}");
    assert!(figures.contains("linear layers in int8"), "{figures}");
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let args = ["It was a dark", "-n", "40", "--temperature", "1", "--seed"];
    let with = |seed| run(&[&args[..], &[seed]].concat()).0;
    assert_eq!(with("1"), with("1"));
    assert_ne!(with("1"), with("2"));
}

#[test]
fn sparq_recalls_a_pass_key_from_several_hundred_tokens_before() {
    let prompt = pass_key_prompt();
    let (text, figures) = run(&[&prompt, "-n", "8", "--temperature", "0"]);
    assert!(flat(&text).starts_with("48213"), "{text}");
    let tokens = figures.split("prefill").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(tokens.parse::<usize>().unwrap() > 600, "{figures}");
    let share = figures.split("dense (").nth(1).unwrap().split(' ').next().unwrap();
    assert!(share.parse::<f64>().unwrap() < 30.0, "SparQ read {share} % of the cache");
    let (dense, figures) = run(&[&prompt, "-n", "8", "--temperature", "0", "--attention", "dense"]);
    assert_eq!(flat(&dense)[..5], flat(&text)[..5]);
    assert!(figures.contains("(100.0 %)"), "{figures}");
}

#[test]
fn a_prompt_from_a_file_or_from_standard_input() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("prompt.txt");
    fs::write(&file, "Once upon a time").unwrap();
    let (direct, _) = run(&["Once upon a time", "-n", "12"]);
    assert_eq!(run(&["-n", "12", "-f", file.to_str().unwrap()]).0, direct);
    let assert =
        sparq().args(["generate", "-", "-n", "12"]).write_stdin("Once upon a time").assert().success();
    assert_eq!(String::from_utf8_lossy(&assert.get_output().stdout), direct);
}

#[test]
fn output_to_a_file_and_silence() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let (direct, _) = run(&["Once upon a time", "-n", "12"]);
    let (text, figures) = run(&["Once upon a time", "-n", "12", "-q", "-o", file.to_str().unwrap()]);
    assert_eq!((text.as_str(), figures.as_str()), ("", ""));
    assert_eq!(format!("{}\n", fs::read_to_string(&file).unwrap()), direct);
}

#[test]
fn stop_texts_and_limits_end_the_text() {
    let (whole, _) = run(&["Once upon a time", "-n", "60", "--temperature", "0"]);
    let word = whole.split_whitespace().nth(12).unwrap();
    let (stopped, figures) = run(&["Once upon a time", "-n", "60", "--temperature", "0", "--stop", word]);
    let expected = whole.split(word).next().unwrap();
    assert_eq!(stopped.trim_end_matches('\n'), expected.trim_end_matches('\n'));
    assert!(figures.contains("ended at a stop text"), "{figures}");
    let (_, figures) = run(&["Once upon a time", "--max-seq-len", "30", "--ignore-eos"]);
    assert!(figures.contains("ended at the longest context"), "{figures}");
    let (nothing, _) = run(&["Once upon a time", "-n", "0"]);
    assert_eq!(nothing, "\n");
}

#[test]
fn every_dtype_and_method_runs() {
    for dtype in ["auto", "f32", "f16", "bf16"] {
        let (_, figures) = run(&["Once", "-n", "4", "--dtype", dtype]);
        let expected = if dtype == "auto" { "bf16" } else { dtype };
        assert!(figures.contains(&format!("in {expected}\n")), "{figures}");
    }
    let (_, figures) =
        run(&["Once", "-n", "40", "--sparq-rank", "4", "--sparq-top-k", "16", "--group-scores", "softmax"]);
    assert!(figures.contains("rank r = 4, top-k = 16, local window = 4, mean value off"), "{figures}");
}
