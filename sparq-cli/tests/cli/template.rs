//! Chat templates through the program: where they come from, and what they are given.

use std::{fs, path::Path};

use crate::{chat::folder, common::sparq};
use assert_cmd::assert::Assert;
use predicates::{prelude::*, str::contains};

/// A template that shows a value instead of a prompt.
fn showing(value: &str) -> String {
    format!("{{{{ raise_exception('<' ~ {value} ~ '>') }}}}")
}

fn chat(model: &Path, args: &[&str]) -> Assert {
    let mut command = sparq();
    command.args(["chat", "-n", "1", "--attention", "dense", "-m"]).arg(model);
    command.args(args).write_stdin("Hello\n").assert()
}

#[test]
fn flags_reach_the_template() {
    let model = folder(Some(&showing("tools|tojson ~ enable_thinking ~ style")));
    let tools = model.path().join("tools.json");
    fs::write(&tools, r#"[{"type": "function", "a": 1.0}]"#).unwrap();
    let tools = tools.to_str().unwrap();
    let flags =
        ["--tools", tools, "--no-thinking", "--template-kwargs", "style=brief", "--template-kwargs", "x=1"];
    chat(model.path(), &flags).code(1).stderr(
        contains(r#"<[{"type": "function", "a": 1.0}]Falsebrief>"#)
            .and(contains("note: the chat template does not read `x`: it has no effect"))
            .and(contains("does not read `style`").not()),
    );
    let plain = folder(None);
    chat(plain.path(), &["--no-thinking"])
        .success()
        .stderr(contains("the model has no chat template that could read `enable_thinking`"));
    fs::write(model.path().join("tools.json"), "{}").unwrap();
    chat(model.path(), &["--tools", tools]).code(1).stderr(contains("tools.json` is no list of objects"));
    fs::write(model.path().join("tools.json"), "[").unwrap();
    chat(model.path(), &["--tools", tools]).code(1).stderr(contains("tools.json` is no JSON"));
}

#[test]
fn a_template_comes_from_where_transformers_finds_it() {
    let model = folder(Some(&showing("'config'")));
    let shows = |flags: &[&str], text: &str| {
        chat(model.path(), flags).code(1).stderr(contains(text));
    };
    shows(&[], "<config>");
    fs::create_dir(model.path().join("additional_chat_templates")).unwrap();
    fs::write(model.path().join("additional_chat_templates/tool_use.jinja"), showing("'tools'")).unwrap();
    fs::write(model.path().join("chat_template.jinja"), showing("'a\r\nb'")).unwrap();
    fs::write(model.path().join("other.jinja"), showing("'other'")).unwrap();
    fs::write(model.path().join("tools.json"), "[]").unwrap();
    shows(&[], "<a\nb>");
    shows(&["--chat-template", "tool_use"], "<tools>");
    shows(&["--tools", model.path().join("tools.json").to_str().unwrap()], "<tools>");
    shows(&["--chat-template", model.path().join("other.jinja").to_str().unwrap()], "<other>");
    shows(
        &["--chat-template", "rag"],
        "none of the chat templates is called `rag`; there are default, tool_use",
    );
    sparq()
        .args(["inspect", "-m"])
        .arg(model.path())
        .assert()
        .success()
        .stdout(contains("chat template").and(contains("tool_use.jinja")));
}

#[test]
fn a_template_that_is_no_text_is_named() {
    let model = folder(None);
    let path = model.path().join("chat_template.jinja");
    fs::write(&path, b"a\n\xff").unwrap();
    chat(model.path(), &[]).code(1).stderr(
        contains("chat_template.jinja`, line 2: the file is not UTF-8")
            .and(contains("hint: save it as UTF-8")),
    );
    sparq().args(["inspect", "-m"]).arg(model.path()).assert().success().stdout(contains("cannot be used"));
    fs::write(&path, "{{ messages|wordwrap }}").unwrap();
    chat(model.path(), &[]).code(1).stderr(
        contains("line 1, `wordwrap`: unknown filter")
            .and(contains("hint: put a template that does without it")),
    );
    fs::write(&path, "{{ raise_exception('a\x1b[31mb') }}").unwrap();
    chat(model.path(), &[]).code(1).stderr(contains("\\u{1b}[31mb").and(contains("--no-chat-template")));
}
