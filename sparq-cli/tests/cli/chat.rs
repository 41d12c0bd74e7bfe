//! `sparq chat` over pipes, with the model inside the program and with folders that hold it.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::common::sparq;
use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Standard output and standard error of a conversation that succeeds.
fn chat(args: &[&str], lines: &str) -> (String, String) {
    let assert = sparq()
        .args(["chat", "--temperature", "0", "-n", "12", "--dense-below", "0"])
        .args(args)
        .write_stdin(lines)
        .assert()
        .success();
    let output = assert.get_output();
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// The number before ` WORD` in the figures.
fn number_before(figures: &str, word: &str) -> usize {
    let before = &figures[..figures.find(word).unwrap_or_else(|| panic!("`{word}` in {figures}"))];
    before.split_whitespace().last().unwrap().parse().unwrap()
}

/// The model inside the program as a folder, with this template.
fn folder(template: Option<&str>) -> TempDir {
    let folder = TempDir::new().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(demo.join(name), folder.path().join(name)).unwrap();
    }
    if let Some(template) = template {
        let config = json!({"bos_token": "<|begin_of_text|>", "chat_template": template}).to_string();
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    }
    folder
}

#[test]
fn a_second_turn_costs_only_what_is_new() {
    let (_, notes) = chat(&[], "Good morning to you, sir.\n/stats\nAnd where do you come from?\n/stats\n");
    assert!(notes.contains("the model has no chat template"), "{notes}");
    let (first, second) = notes.split_at(notes.rfind("prefill").unwrap());
    let prompt = number_before(first, "tokens in");
    assert!(!first.contains("were cached"), "{first}");
    let (new, cached) = (number_before(second, "tokens in"), number_before(second, "tokens were cached"));
    assert!(cached >= prompt && new < cached, "{notes}");
    assert!(notes.contains("context"), "{notes}");

    // The same text without anything cached.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("talk.json");
    let lines = format!("Good morning to you, sir.\nAnd where?\n/save {}\n/bye\nNot this\n", file.display());
    chat(&["--attention", "dense"], &lines);
    let messages: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let content = |index: usize| messages[index]["content"].as_str().unwrap();
    assert_eq!(messages.len(), 4);
    let prompt = format!("User: {}\nAssistant: {}\nUser: {}\nAssistant:", content(0), content(1), content(2));
    let fresh = sparq()
        .args(["generate", "--attention", "dense", "--temperature", "0", "-n", "12", "--stop", "\nUser:"])
        .arg(prompt)
        .assert()
        .success();
    let fresh = String::from_utf8(fresh.get_output().stdout.clone()).unwrap();
    assert_eq!(content(3), fresh.trim());
}

#[test]
fn commands_do_what_they_say() {
    let saved = TempDir::new().unwrap();
    let (json_file, text_file) = (saved.path().join("talk.json"), saved.path().join("my talk.txt"));
    let lines = format!(
        "Forgotten soon\n/clear\n/set max-new-tokens 5 attention dense\nHello there\n//slash\n/stats\n/help\n\
         /save {}\n/save {}\n/set\n",
        json_file.display(),
        text_file.display()
    );
    let (_, notes) = chat(&["--system", "Be brief."], &lines);
    assert!(notes.contains("attention  dense") && notes.contains("/clear"), "{notes}");
    assert!(
        notes.contains("--top-p <P>") && notes.contains("set: max-new-tokens 5 attention dense"),
        "{notes}"
    );
    assert!(notes.contains("(cut off at max-new-tokens = 5)"), "{notes}");
    let messages: Vec<Value> = serde_json::from_slice(&fs::read(json_file).unwrap()).unwrap();
    let roles: Vec<&str> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!((&messages[0]["content"], &messages[3]["content"]), (&json!("Be brief."), &json!("/slash")));
    let text = fs::read_to_string(text_file).unwrap();
    assert!(text.starts_with("System: Be brief.\nUser: Hello there\nAssistant: "), "{text}");
}

#[test]
fn mistakes_end_a_script_with_a_message() {
    for (line, message) in [
        ("/frobnicate", "there is no command `/frobnicate`; /help"),
        ("/set colour red", "there is no setting `colour`"),
        ("/set top-p high", "invalid value 'high'"),
        ("/save", "needs the name of a file"),
        ("/save /no/such/folder/talk.txt", "cannot write to `/no/such/folder/talk.txt`"),
    ] {
        sparq().arg("chat").write_stdin(line).assert().code(1).stdout("").stderr(contains(message));
    }
    let long = "word ".repeat(3000);
    sparq().arg("chat").write_stdin(long).assert().code(1).stderr(contains("the longest context is 2048"));
}

#[test]
fn the_models_own_template_is_used() {
    // As Llama 2 does it, with the marks of the demo's own vocabulary.
    let template = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}Question: {{ m.content }}\n\
                    Answer:{% else %}{{ m.content }}\n{% endif %}{% endfor %}";
    let folder = folder(Some(template));
    let path = folder.path().to_str().unwrap();
    let (with, notes) = chat(&["-m", path], "Who are you?\nAnd then?\n/stats\n");
    assert!(!notes.contains("no chat template") && notes.contains("were cached"), "{notes}");
    let (without, notes) = chat(&["-m", path, "--no-chat-template"], "Who are you?\nAnd then?\n");
    assert!(!notes.contains("no chat template"), "{notes}");
    assert_ne!(with, without);
    // The prompt is what the template writes, with one beginning of text.
    let direct = sparq()
        .args([
            "generate",
            "--temperature",
            "0",
            "-n",
            "12",
            "--dense-below",
            "0",
            "-m",
            path,
            "Question: Who are you?\nAnswer:",
        ])
        .assert()
        .success();
    let direct = String::from_utf8(direct.get_output().stdout.clone()).unwrap();
    assert_eq!(with.lines().next(), direct.trim_start().lines().next());
}

#[test]
fn a_template_that_fails_shows_its_line_and_the_way_out() {
    let refusing = folder(Some("{{ bos_token }}\n{{ raise_exception('System role not supported') }}"));
    sparq()
        .args(["chat", "--dense-below", "0", "--system", "Be brief.", "-m"])
        .arg(refusing.path())
        .write_stdin("Hello\n")
        .assert()
        .code(1)
        .stdout("")
        .stderr(
            contains("tokenizer_config.json`, line 2")
                .and(contains("System role not supported"))
                .and(contains("hint: --no-chat-template")),
        );
    let broken = folder(Some("{% if %}"));
    let command = |args: &[&str]| {
        let mut command = sparq();
        command
            .args(["chat", "-n", "3", "--dense-below", "0", "-m"])
            .arg(broken.path())
            .args(args)
            .write_stdin("Hello\n");
        command
    };
    command(&[]).assert().code(1).stderr(contains("syntax error").and(contains("line 1")));
    command(&["--no-chat-template"]).assert().success();
}

#[test]
#[cfg(unix)]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("sparq"))
        .args(["chat", "-n", "2000", "--stop", "never said", "--temperature", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let interrupt = |child: &std::process::Child| {
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    };
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdin.write_all(b"Tell me a long story of the sea.\n").unwrap();
    let mut byte = [0];
    stdout.read_exact(&mut byte).unwrap();
    interrupt(&child);
    stdin.write_all(b"/stats\n/set max-new-tokens 3\nGo on.\n/bye\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{notes}");
    assert!(notes.contains("(stopped)") && notes.contains("ended early"), "{notes}");

    // Without an answer under way, it ends the program.
    let mut idle = Command::new(assert_cmd::cargo::cargo_bin("sparq"))
        .args(["chat", "-n", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = idle.stdin.take().unwrap();
    stdin.write_all(b"Hello.\n/clear\n").unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(idle.stdout.take().unwrap()), &mut line)
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    interrupt(&idle);
    assert_eq!(idle.wait().unwrap().code(), Some(130));
}
