//! `sparq tokenize`, and prompts as the model sees them.

use std::{fs, path::Path};

use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};

use crate::common::{copy_of_llama, sparq};

/// A tokenizer whose words begin with `▁`, trained by `fixtures/tokenizers/make.py`.
fn trained(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/tokenizers");
    fs::read_to_string(folder.join(name)).unwrap()
}

fn stdout(args: &[&str]) -> String {
    let assert = sparq().arg("tokenize").args(args).assert().success().stderr("");
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_folder_without_weights_will_do() {
    let model = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(demo.join(name), model.path().join(name)).unwrap();
    }
    let folder = model.path().to_str().unwrap();
    assert_eq!(stdout(&["-m", folder, "--ids", "Once upon"]), stdout(&["--ids", "Once upon"]));
    // The model itself is another matter.
    let inspect = sparq().args(["inspect", "-m", folder]).assert().code(1);
    inspect.stderr(contains("there are no weights in").and(contains("looked for model.safetensors")));
    fs::write(model.path().join("model.safetensors"), "cut").unwrap();
    assert_eq!(stdout(&["-m", folder, "--ids", "Once upon"]), stdout(&["--ids", "Once upon"]));
}

#[test]
fn ids_and_pieces_are_listed() {
    let list = stdout(&["Once upon\na <|pad|>"]);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.trim().split("  ").collect()).collect();
    assert_eq!(lines[0], ["0", "\"<|begin_of_text|>\"", "special"]);
    assert!(list.contains("\"\\n\"\n") && list.contains("2  \"<|pad|>\"  special\n"), "{list}");
    let ids: Vec<&str> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(stdout(&["--ids", "Once upon\na <|pad|>"]), ids.join(" ") + "\n");
    assert_eq!(
        stdout(&["--ids", "--no-special-tokens", "-p", "Once upon\na <|pad|>"]),
        ids[1..].join(" ") + "\n"
    );
    let json: Value = serde_json::from_str(&stdout(&["--json", "Once upon\na <|pad|>"])).unwrap();
    assert_eq!(json["count"], ids.len());
    assert_eq!(json["pieces"].as_array().unwrap().len(), ids.len());
    let begin = json!({"id": 0, "token": "<|begin_of_text|>", "text": "<|begin_of_text|>", "special": true});
    assert_eq!(json["pieces"][0], begin);
}

#[test]
fn the_text_comes_from_an_argument_an_option_a_file_or_standard_input() {
    let expected = stdout(&["--", "- one"]);
    assert_eq!(stdout(&["-p", "- one"]), expected);
    assert_eq!(stdout(&["--prompt=- one"]), expected);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("text");
    fs::write(&file, "- one").unwrap();
    assert_eq!(stdout(&["-f", file.to_str().unwrap()]), expected);
    for args in [["tokenize", "-"].as_slice(), &["tokenize", "-p", "-"]] {
        sparq().args(args).write_stdin("- one").assert().success().stdout(expected.clone());
    }
    for args in [["tokenize"].as_slice(), &["tokenize", "a", "-p", "b"], &["generate", "a", "-p", "b"]] {
        sparq().args(args).assert().code(2);
    }
}

#[test]
fn generate_shows_the_prompt_as_the_model_sees_it() {
    let (args, text) = (["generate", "-n", "4", "--temperature", "0", "--quiet"], "Once upon\na time");
    let plain = sparq().args(args).arg(text).assert().success().stderr("");
    let shown = sparq().args(args).args(["--show-prompt", "-p", text]).assert().success();
    assert_eq!(shown.get_output().stdout, plain.get_output().stdout);
    let stderr = String::from_utf8(shown.get_output().stderr.clone()).unwrap();
    let list = stdout(&[text]);
    let head =
        format!("prompt     {} tokens: \"<|begin_of_text|>Once upon\\na time\"\n", list.lines().count());
    assert_eq!(stderr, head + &list);
}

#[test]
fn files_beside_the_tokenizer_are_heeded() {
    let folder = copy_of_llama();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("tokenizer.json", &trained("spm.json"));
    let ids = |text: &str| {
        let assert =
            sparq().args(["tokenize", "--ids", "-m"]).arg(folder.path()).arg(text).assert().success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    };
    let blanks = ids("a </s> b");
    let decoder = json!({"2": {"content": "</s>", "lstrip": true, "rstrip": true, "special": true}});
    write("tokenizer_config.json", &json!({"added_tokens_decoder": decoder}).to_string());
    assert!(ids("a </s> b").split(' ').count() < blanks.split(' ').count());
    // A map is read only where there is no such list.
    write("special_tokens_map.json", "[]");
    ids("a </s> b");
    write("tokenizer_config.json", "{}");
    let message = "special_tokens_map.json`: expected an object, found a list";
    for command in [&["tokenize"][..], &["generate", "-n", "2"]] {
        sparq()
            .args(command)
            .arg("-m")
            .arg(folder.path())
            .arg("a")
            .assert()
            .code(1)
            .stderr(contains(message));
    }
}

#[test]
fn a_tokenizer_of_another_form_or_size_is_named() {
    let folder = copy_of_llama();
    let tokenize = || {
        let mut command = sparq();
        command.args(["tokenize", "-m"]).arg(folder.path()).arg("Once upon a time");
        command
    };
    let missing = || contains("there is no file").and(contains("tokenizer.json"));
    tokenize().assert().code(1).stderr(missing().and(contains("the folder is incomplete")));
    fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    let named = contains("found tokenizer.model: a SentencePiece").and(contains("save_pretrained"));
    tokenize().assert().code(1).stderr(missing().and(named));
    sparq().args(["inspect", "-m"]).arg(folder.path()).assert().success().stdout(contains("cannot be read"));

    fs::write(folder.path().join("tokenizer.json"), trained("bytelevel.json")).unwrap();
    tokenize().assert().success();
    let both = contains("the file has 4096 tokens, the embedding table 128 rows");
    sparq().args(["generate", "-m"]).arg(folder.path()).arg("Once upon a time").assert().code(1).stderr(both);
}

#[test]
fn inspect_shows_the_tokenizer() {
    let assert = sparq().arg("inspect").assert().success();
    let out = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let lines: Vec<String> =
        out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "tokenizer BPE, byte level; 4096 tokens, 3 of them added",
        "texts begin with \"<|begin_of_text|>\" (0)",
    ] {
        assert!(lines.iter().any(|line| line == expected), "`{expected}` in\n{out}");
    }
    let assert = sparq().args(["inspect", "--json"]).assert().success();
    let json: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    let bos = json!({"id": 0, "token": "<|begin_of_text|>", "text": "<|begin_of_text|>", "special": true});
    let expected = json!({"model": "BPE", "bytes": "level", "tokens": 4096, "added_tokens": 3, "bos": bos});
    assert_eq!(json["tokenizer"], expected);
}
