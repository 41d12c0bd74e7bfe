//! What is typed for the first time: the message says what is meant instead.

use std::{fs, path::Path};

use predicates::{prelude::*, str::contains};
use tempfile::TempDir;

use crate::common::{copy_of_llama, demo_folder, sparq};

#[test]
fn a_text_from_a_file_or_a_pipe_is_the_text_that_was_meant() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("prompt.txt");
    fs::write(&file, "\u{feff}Once upon\n").unwrap();
    let ids = |command: &mut assert_cmd::Command| {
        String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
    };
    let typed = ids(sparq().args(["tokenize", "--ids", "Once upon"]));
    assert_eq!(ids(sparq().args(["tokenize", "--ids", "-f"]).arg(&file)), typed);
    assert_eq!(ids(sparq().args(["tokenize", "--ids", "-"]).write_stdin("Once upon\r\n")), typed);
    let two = ids(sparq().args(["tokenize", "--ids", "-"]).write_stdin("Once upon\n\n"));
    assert_eq!(two, ids(sparq().args(["tokenize", "--ids", "Once upon\n"])));
    let generate = ["generate", "-q", "-n", "4", "--temperature", "0", "--dense-below", "0"];
    assert_eq!(
        ids(sparq().args(generate).arg("-f").arg(&file)),
        ids(sparq().args(generate).arg("Once upon"))
    );
}

#[test]
fn a_tokenizer_that_is_something_else_is_told_by_what_it_is() {
    let folder = demo_folder();
    for (content, expected) in [
        (&b"<!DOCTYPE html><html>"[..], "is a web page (HTML or XML), not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer, not JSON"),
        (b"", "is empty, not JSON"),
        (&[0; 64], "holds nothing but zero bytes"),
        (b"{\"version\": \"1.0\", ", "is cut short"),
    ] {
        fs::write(folder.path().join("tokenizer.json"), content).unwrap();
        for command in ["tokenize", "generate"] {
            sparq()
                .args([command, "Once", "-m"])
                .arg(folder.path())
                .assert()
                .code(1)
                .stderr(contains("tokenizer.json`").and(contains(expected)).and(contains("hint: ")));
        }
    }
}

#[test]
fn parts_of_a_character_are_shown_as_bytes() {
    let run = sparq().args(["tokenize", "\u{1f600}"]).assert().success();
    let shown = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    assert!(shown.contains("<0xF0>") && !shown.contains('\u{f0}'), "{shown}");
}

#[test]
fn words_that_mean_something_else_have_a_hint() {
    let fails = |words: &[&str], code: i32, expected: &str| {
        sparq().args(words).env("HF_HUB_OFFLINE", "1").assert().code(code).stderr(contains(expected));
    };
    fails(&["inspect", "smol"], 2, "hint: -m names a model: -m smol");
    fails(&[], 2, "error: a command is missing");
    let no_text = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    sparq().arg::<&std::ffi::OsStr>(no_text).assert().code(2).stderr(contains("unrecognized subcommand"));
    fails(&["generate", "a", "-m", "https://huggingface.co/org/name"], 1, "hint: write it as org/name");
    fails(&["chat", "--chat-template", "/nope"], 1, "`/nope`: there is no such file");
    fails(
        &["generate", "a", "--temperature", "-1"],
        1,
        "temperature is -1, expected 0 (likeliest token) or more",
    );
    fails(
        &["generate", "a", "--temperature", "inf"],
        1,
        "temperature is inf, expected 0 (likeliest token) or more, and finite",
    );
    fails(&["generate", "a", "-n", "-1"], 2, "invalid value '-1' for '--max-new-tokens <N>'");
    fails(&["bench", "-p", "0", "-n", "0"], 2, "there is nothing to measure");
    fails(&["inspect", "--max-seq-len", "999999999999999999"], 1, "beyond what can be counted");
    fails(
        &["generate", "a", "-n", "1", "-o", "/nope/x"],
        1,
        "cannot write to `/nope/x`: No such file or directory (os error 2)\n",
    );
}

#[test]
fn filters_without_a_temperature_are_noted() {
    let words =
        ["generate", "Once", "-n", "2", "--ignore-generation-config", "--top-p", "0.9", "--seed", "3"];
    let note = "note: --top-p and --seed have no effect without --temperature";
    sparq().args(words).assert().success().stderr(contains(note).and(contains("sampling   greedy")));
}

#[test]
fn depths_beyond_the_model_are_noted() {
    let words = ["bench", "-p", "0", "-n", "1", "-d", "0,2100", "-r", "1", "--no-warmup", "--random-cache"];
    sparq()
        .args(words)
        .args(["--attention", "dense", "--no-progress"])
        .assert()
        .success()
        .stderr(contains("note: depth 2100 is beyond the model's 2048"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_by_every_command() {
    for words in [&["inspect"][..], &["tokenize", "a"], &["completions", "bash"], &["eval", "list"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("sparq"))
            .args(words)
            .stdout(full)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("error: cannot write to standard output: No space left"), "{words:?}: {said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn memory_is_stated_for_what_can_be_loaded_only() {
    let folder = copy_of_llama();
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let inspect = |path: &Path| {
        let run = sparq().args(["inspect", "-m"]).arg(path).assert().success();
        String::from_utf8(run.get_output().stdout.clone()).unwrap()
    };
    assert!(inspect(folder.path()).contains("Memory on the device"));
    fs::write(&path, config.replace("LlamaForCausalLM", "GptOssForCausalLM")).unwrap();
    let shown = inspect(folder.path());
    assert!(shown.contains("cannot be loaded") && !shown.contains("Memory on the device"), "{shown}");
    assert!(shown.contains("Memory is stated for checkpoints that can be loaded"), "{shown}");
    // What keeps it from being loaded is said to its end.
    fs::write(&path, config.replacen('{', "{\"hidden_act\": \"an_activation_of_another_kind\", ", 1))
        .unwrap();
    let run = sparq().args(["inspect", "--json", "-m"]).arg(folder.path()).assert().success();
    let json: serde_json::Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    if let Some(problem) = json["problem"].as_str() {
        assert!(inspect(folder.path()).contains(problem));
    }
}

#[test]
fn a_missing_reference_is_no_missing_part_of_the_model() {
    let folder = copy_of_llama();
    let _ = fs::remove_file(folder.path().join("expected.safetensors"));
    sparq().args(["verify", "-m"]).arg(folder.path()).assert().code(1).stderr(
        contains("there is no file of reference logits").and(contains("docs/models.md says what it holds")),
    );
    fs::write(folder.path().join("expected.safetensors"), "x").unwrap();
    sparq()
        .args(["verify", "-m"])
        .arg(folder.path())
        .assert()
        .code(1)
        .stderr(contains("is no file of reference logits").and(contains("hint: docs/models.md")));
}
