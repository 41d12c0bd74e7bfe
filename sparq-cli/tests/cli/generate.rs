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
    assert!(figures.contains("ended at the stop text"), "{figures}");
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

/// The model inside the program as a folder, with other settings.
fn with_settings(settings: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(demo.join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("generation_config.json"), settings).unwrap();
    folder
}

/// Text and figures of a run of that model.
fn run_with(settings: &str, args: &[&str]) -> (String, String) {
    let folder = with_settings(settings);
    run(&[&["-m", folder.path().to_str().unwrap(), "--attention", "dense", "Once upon a time"], args]
        .concat())
}

#[test]
fn settings_of_the_checkpoint_count_and_flags_beat_them() {
    let (greedy, figures) = run_with("{}", &["-n", "12"]);
    assert!(figures.contains("sampling   greedy\n"), "{figures}");
    let warm = r#"{"do_sample": true, "min_p": 1.0, "repetition_penalty": 1}"#;
    assert_eq!(run_with(warm, &["-n", "12", "--seed", "3"]).0, greedy);
    assert_ne!(run_with(warm, &["-n", "12", "--seed", "3", "--min-p", "0"]).0, greedy);
    let (short, figures) = run_with(r#"{"max_new_tokens": 3}"#, &[]);
    assert!(greedy.starts_with(short.trim_end()) && short.len() < greedy.len(), "{short}");
    assert!(figures.contains("ended at max_new_tokens = 3 of generation_config.json"), "{figures}");
    let (long, figures) = run_with(r#"{"max_new_tokens": 3}"#, &["-n", "12"]);
    assert_eq!(long, greedy);
    assert!(figures.contains("ended at --max-new-tokens, over max_new_tokens = 3"), "{figures}");
    let words: Vec<&str> = greedy.split_whitespace().collect();
    let stop = format!(r#"{{"stop_strings": [" {}"]}}"#, words[2]);
    let (stopped, figures) = run_with(&stop, &["-n", "12"]);
    assert_eq!(stopped.split_whitespace().collect::<Vec<_>>(), words[..2]);
    assert!(figures.contains(&format!("ended at the stop text \" {}\"", words[2])), "{figures}");
    assert_eq!(run_with(&stop, &["-n", "12", "--ignore-generation-config"]).0, greedy);
    assert_eq!(run_with(&stop, &["-n", "12", "--stop", "no such text"]).0, greedy);
}

#[test]
fn settings_that_are_wrong_or_not_built_are_named_and_the_text_comes() {
    let settings = r#"{"temperature": "0.7", "num_beams": 4, "eos_token_id": [1, null]}"#;
    let (text, figures) = run_with(settings, &["-n", "8"]);
    assert_eq!(text, run_with("{}", &["-n", "8"]).0);
    let notes: Vec<&str> = figures.lines().filter(|line| line.starts_with("note: ")).collect();
    assert_eq!(notes.len(), 3, "{figures}");
    for (note, part) in notes.iter().zip([
        "field `temperature`: the text \"0.7\" is left out",
        "`eos_token_id`: null",
        "num_beams = 4",
    ]) {
        assert!(note.contains("generation_config.json`: ") && note.contains(part), "{note}");
    }
    let (_, figures) = run_with(settings, &["-n", "8", "--ignore-generation-config"]);
    assert!(!figures.contains("note: "), "{figures}");
}

#[test]
fn a_special_token_may_be_a_stop_text() {
    let forced = r#"{"forced_eos_token_id": 1}"#;
    let end = ["-n", "4", "--ignore-eos", "--stop", "<|end_of_text|>"];
    let (text, figures) = run_with(forced, &end);
    assert!(figures.contains("ended at the stop text \"<|end_of_text|>\""), "{figures}");
    assert!(!text.contains("<|"), "{text}");
    sparq()
        .args(["generate", "Once", "--stop", ""])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("--stop"));
}

#[test]
fn limits_of_any_size_are_taken() {
    let most = usize::MAX.to_string();
    let end = ["--max-seq-len", most.as_str(), "-n", most.as_str(), "--stop", ",", "--temperature", "0"];
    for attention in
        ["dense", "sparq", "sparq-mass", "h2o:k=64", "quest", "local", "double-sparsity", "exact-topk:k=64"]
    {
        // No measurement of this machine.
        let always: &[&str] = if attention == "sparq" { &["--dense-below", "0"] } else { &[] };
        let (_, figures) = run(&[&["Once upon a time", "--attention", attention], &end[..], always].concat());
        assert!(figures.contains("ended at the stop text"), "{attention}: {figures}");
    }
}

#[test]
fn a_text_beyond_the_trained_length_says_so() {
    let folder = with_settings("{}");
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path)
        .unwrap()
        .replace("\"max_position_embeddings\": 2048", "\"max_position_embeddings\": 16");
    fs::write(path, config).unwrap();
    let model =
        ["-m", folder.path().to_str().unwrap(), "--attention", "dense", "Once upon a time", "--ignore-eos"];
    let (_, figures) = run(&[&model[..], &["-n", "30", "--max-seq-len", "64"]].concat());
    assert_eq!(
        figures.matches("longer than the 16 tokens that the model was made for").count(),
        1,
        "{figures}"
    );
    let (_, figures) = run(&[&model[..], &["-n", "30"]].concat());
    assert!(!figures.contains("made for") && figures.contains("ended at the longest context"), "{figures}");
}
