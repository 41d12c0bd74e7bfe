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
use sparq_models::tokenizer::Tokenizer;
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
pub(crate) fn folder(template: Option<&str>) -> TempDir {
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
        notes.contains("dense-below 0\n           temperature 0\n           max-new-tokens 5\n           attention dense\n")
            && notes.contains("\nsampling   greedy, repetition_penalty 1.1\nattention  dense\nanswers    5 tokens at most\n"),
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

/// Standard output and standard error of a conversation in which something fails.
fn chat_with_mistakes(args: &[&str], lines: &str) -> (String, String) {
    let assert = sparq()
        .args(["chat", "--temperature", "0", "-n", "12", "--dense-below", "0"])
        .args(args)
        .write_stdin(lines)
        .assert()
        .code(1);
    let output = assert.get_output();
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// The messages that `/save` wrote: who, and what.
fn saved(file: &Path) -> Vec<(String, String)> {
    let messages: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
    messages.iter().map(|message| (text(message, "role"), text(message, "content"))).collect()
}

#[test]
fn mistakes_are_reported_and_the_talk_goes_on() {
    for (line, message) in [
        ("/frobnicate", "there is no command `/frobnicate`; /help"),
        ("/sav talk.json", "did you mean /save?"),
        ("/set colour red", "there is no setting `colour`"),
        ("/set top-p high", "invalid value 'high'"),
        ("/save", "needs the name of a file"),
        ("/save /no/such/folder/talk.txt", "cannot write to `/no/such/folder/talk.txt`"),
        ("/load /no/such/talk.json", "cannot read `/no/such/talk.json`"),
        ("/undo", "nothing to take back"),
        ("/retry", "no message to answer"),
        ("\"\"\"open", "has no end"),
    ] {
        sparq().arg("chat").write_stdin(line).assert().code(1).stdout("").stderr(contains(message));
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("talk.json");
    let long = "word ".repeat(3000);
    let lines = format!("Hello there\n{long}\n/frobnicate\nAnd you?\n/save {}\n", file.display());
    let (_, notes) = chat_with_mistakes(&[], &lines);
    assert!(notes.contains("the longest context is 2048") && notes.contains("/frobnicate"), "{notes}");
    let messages = saved(&file);
    assert_eq!((messages.len(), messages[2].1.as_str()), (4, "And you?"), "the long one is not kept");
}

#[test]
fn what_cannot_run_is_not_set() {
    let lines = "/set temperature -1\n/set top-p 1.5 max-new-tokens 3\n\
                 /set attention sparq:r=9999:k=8\n/set sparq-rank 16 sparq-top-k 64 attention h2o\nHello\n/set\n/stats\n";
    let (_, notes) = chat_with_mistakes(&[], lines);
    for message in [
        "temperature is -1, expected 0 (likeliest token) or more",
        "top_p is 1.5, expected above 0 and at most 1 (off)",
        "rank = 9999 is out of range",
        "has no effect with --attention h2o",
        "(cut off at max-new-tokens = 12)",
    ] {
        assert!(notes.contains(message), "{message} in {notes}");
    }
    assert!(notes.contains("set        max-new-tokens 12\n"), "{notes}");
    assert!(notes.contains("sampling   greedy, repetition_penalty 1.1\n"), "{notes}");
}

#[test]
fn turns_are_taken_back_and_answered_anew() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    let save = |name: &str| format!("/save {}\n", file(name).display());
    let lines = [
        "/system Be brief.\n/system\nWho are you?\n",
        &save("one.json"),
        "/retry\n",
        &save("again.json"),
        "/set temperature 1 top-k 50\n/retry\n",
        &save("other.json"),
        "And then?\n/undo\n/undo\n",
        &save("none.json"),
        "/system \"\"\n/system\n/set temperature 0\n/system Be brief.\nWho are you?\n",
        &save("fresh.json"),
    ]
    .concat();
    let (_, notes) = chat(&["--system", "Be long."], &lines);
    assert!(notes.contains("\nBe brief.\n") && notes.contains("there are no instructions"), "{notes}");
    assert!(notes.contains("at temperature 0 an answer comes out as before"), "{notes}");
    let one = saved(&file("one.json"));
    assert_eq!(one[..2], [("system".into(), "Be brief.".into()), ("user".into(), "Who are you?".into())]);
    assert_eq!(saved(&file("again.json")), one);
    let other = saved(&file("other.json"));
    assert!(other[..2] == one[..2] && other.len() == 3 && other[2] != one[2], "{other:?}");
    assert_eq!(saved(&file("none.json")), one[..1]);
    assert_eq!(saved(&file("fresh.json")), one);
}

#[test]
fn a_seed_draws_another_answer_each_time_it_is_asked_again() {
    let folder = TempDir::new().unwrap();
    let talk = |name: &str| {
        let files: Vec<_> = (0..3).map(|index| folder.path().join(format!("{name}{index}.json"))).collect();
        let save = |index: usize| format!("/save {}\n", files[index].display());
        let lines =
            ["/set temperature 1\nTell me more.\n", &save(0), "/retry\n", &save(1), "/retry\n", &save(2)];
        chat(&["--seed", "7"], &lines.concat());
        files.iter().map(|file| saved(file)[1].1.clone()).collect::<Vec<_>>()
    };
    let first = talk("a");
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "{first:?}");
    assert_eq!(talk("b"), first);
}

#[test]
fn a_saved_conversation_is_loaded_again() {
    let folder = TempDir::new().unwrap();
    let [first, second, damaged] =
        ["first.json", "second.json", "damaged.json"].map(|name| folder.path().join(name));
    let (path, other) = (first.display(), second.display());
    let lines =
        format!("\"\"\"\n Two\nlines\n\"\"\"\nAnd \\\ntwo more\n/save {path}\nOn we go.\n/save {other}\n");
    chat(&["--system", "Be brief.", "--attention", "dense"], &lines);
    let messages = saved(&first);
    assert_eq!((messages[1].1.as_str(), messages[3].1.as_str()), (" Two\nlines", "And \ntwo more"));
    // What follows is what followed there, with an error on the way.
    fs::write(&damaged, &fs::read(&first).unwrap()[..100]).unwrap();
    let lines = format!("/load {path}\n/load {}\nOn we go.\n/save --force {other}\n", damaged.display());
    let expected = saved(&second);
    let (_, notes) = chat_with_mistakes(&["--attention", "dense"], &lines);
    assert!(
        notes.contains("loaded 5 messages") && notes.contains("damaged.json` is no conversation"),
        "{notes}"
    );
    assert_eq!(saved(&second), expected);

    // Without a word, no file is replaced from a pipe.
    let (_, notes) = chat_with_mistakes(&[], &format!("/save {path}\n"));
    assert!(notes.contains("is there already; /save --force replaces it"), "{notes}");
    assert_eq!(saved(&first), messages);
    chat(&[], &format!("/save --force {path}\n"));
    assert_eq!(saved(&first), []);
}

#[test]
fn a_new_method_takes_up_the_flags_before_it() {
    let lines = "/set attention sparq:r=8:k=16\nHello\n/stats\n/set local-window 2 attention h2o:k=16\n/set\n\
                 /set attention sparq:r=8:k=16\n/set compression-ratio 2\n/set sparq-rank 8\n";
    let (_, notes) = chat_with_mistakes(&["--k-index", "int8", "--group-scores", "softmax"], lines);
    for expected in [
        "sparq, rank r = 8, top-k = 16, local window = 4, mean value off, group scores softmax, transposed keys in int8, \
         dense below 0 tokens",
        "note: `k-index int8` no longer holds beside `attention h2o:k=16`",
        "note: `dense-below 0` no longer holds beside `attention h2o:k=16`",
        "attention  h2o:k=16:l=2",
        "--compression-ratio has no effect with --attention sparq:r=8:k=16, which states all sizes",
        "sparq-top-k <K> is needed as well",
    ] {
        assert!(notes.contains(expected), "{expected} in {notes}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let lines = "/set top-p 0.9\n/set attention dense\n/set compression-ratio 2\n/set compression-ratio default\n\
                 /set temperature 1\n/set\n";
    let assert =
        sparq().args(["chat", "-n", "3"]).arg("--temperature=0").write_stdin(lines).assert().success();
    let notes = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let said: Vec<&str> = notes.lines().filter(|line| line.contains("no effect")).collect();
    assert_eq!(
        said,
        [
            "note: --top-p has no effect at --temperature 0",
            "note: --compression-ratio has no effect with --attention dense",
        ]
    );
    assert!(
        notes.contains("           top-p 0.9\n           attention dense\n           temperature 1\n"),
        "{notes}"
    );
    let folder = TempDir::new().unwrap();
    let profile = folder.path().join("p.json");
    fs::write(&profile, format!(r#"{{ "layers": [{}] }}"#, [r#""sparq:r=8:k=16""#; 8].join(","))).unwrap();
    let lines = format!("/set profile {}\n/set compression-ratio 2\n", profile.display());
    let (_, notes) = chat_with_mistakes(&[], &lines);
    assert!(
        notes.contains("cannot be used with '--compression-ratio <X>'")
            || notes.contains("cannot be used with"),
        "{notes}"
    );
    assert!(notes.contains("`dense-below 0` no longer holds beside `profile"), "{notes}");
}

#[test]
fn names_and_texts_may_stand_in_quotation_marks() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a talk.json");
    let path = file.display();
    let lines = format!(
        "/system \"Be brief.\"\n/system\n/save \"{path}\"\n/load \"{path}\"\n\
         /system \"\"\"\n\"Be kind.\"\n\"\"\"\n/save --force \"{path}\"\n"
    );
    let (_, notes) = chat(&[], &lines);
    assert!(notes.contains("\nBe brief.\n") && notes.contains("loaded 1 message from"), "{notes}");
    assert_eq!(saved(&file), [("system".to_owned(), "\"Be kind.\"".to_owned())]);
    chat(&["--system", ""], &format!("/save --force {path}\n"));
    assert_eq!(saved(&file), []);
    let (_, notes) = chat_with_mistakes(&[], &format!("/load {}\n", folder.path().display()));
    assert!(notes.contains("is a folder, not a file"), "{notes}");
}

#[test]
fn a_line_that_is_no_text_is_left_out() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("talk.json");
    let mut lines = b"\xef\xbb\xbfOne\r\nbad \xff\n\"\"\"\nworse \xfe\n/bye\n\"\"\"\nTwo\n".to_vec();
    lines.extend(format!("/save {}\n", file.display()).bytes());
    let assert = sparq().args(["chat", "-n", "2", "--dense-below", "0"]).write_stdin(lines).assert().code(1);
    let notes = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    for line in [2, 4] {
        let expected = format!("error: line {line} of standard input is not UTF-8, and is left out");
        assert!(notes.contains(&expected), "{notes}");
    }
    let asked: Vec<String> =
        saved(&file).into_iter().filter(|(role, _)| role == "user").map(|(_, text)| text).collect();
    assert_eq!(asked, ["One", "Two"]);
}

/// Wants a system message first, if any, then a user and an assistant in turn.
const STRICT: &str = "{{ bos_token }}{% set ns = namespace(turn='user') %}{% for m in messages %}\
    {% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('a late system message') }}{% endif %}\
    {% elif m.role != ns.turn %}{{ raise_exception('out of turn') }}\
    {% else %}{% set ns.turn = 'assistant' if m.role == 'user' else 'user' %}{% endif %}\
    {{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";

#[test]
fn a_full_context_drops_the_oldest_turns() {
    let folder = folder(Some(STRICT));
    let model = folder.path().to_str().unwrap();
    let (file, kept) = (folder.path().join("talk.json"), folder.path().join("kept.json"));
    let asked: String = ["first", "second", "third", "fourth", "fifth"]
        .map(|number| format!("This is the {number} question.\n"))
        .concat();
    let lines = format!("{asked}/stats\n/save {}\n/prompt\n", file.display());
    let common = ["-m", model, "--attention", "dense", "--max-seq-len"];
    let (_, notes) = chat(&[&common[..], &["100", "--system", "Be brief."]].concat(), &lines);
    let told: Vec<&str> =
        notes.lines().filter(|line| line.contains("the context of 100 tokens is full: the")).collect();
    assert!(told.len() > 1 && told.iter().all(|line| line.ends_with("dropped")), "{notes}");
    assert!(notes.contains(" of 100 tokens; the"), "{notes}");
    // Before the last answer was written, and now that it is there.
    let number = |text: &str| match text.contains("the oldest turn is") {
        true => 1,
        false => number_before(text, "oldest turns"),
    };
    let (before, now) =
        (number(told[told.len() - 1]), number(&notes[notes.rfind("dropped").unwrap() - 40..]));
    assert!(0 < before && before <= now, "{notes}");
    let prompt = &notes[notes.rfind("system: Be brief.").expect("the system message stays")..];
    assert!(!prompt.contains("first question") && prompt.contains("fifth question"), "{prompt}");
    let messages = saved(&file);
    assert_eq!(messages.len(), 11, "what is dropped is not lost");

    // The answer is the one to the conversation that is left.
    let left: Vec<_> = messages[..1].iter().chain(&messages[1 + 2 * before..10]).collect();
    let left: Vec<Value> =
        left.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    fs::write(&kept, serde_json::to_string(&left).unwrap()).unwrap();
    let lines = format!("/load {0}\n/retry\n/save --force {0}\n", kept.display());
    let (_, notes) = chat(&[&common[..], &["2048"]].concat(), &lines);
    assert!(notes.contains("/retry answers the last one") && !notes.contains("is full"), "{notes}");
    assert_eq!(saved(&kept).last(), messages.last());
}

#[test]
fn a_full_context_may_stop_the_talk() {
    let question = "What is it that you see, and where do you see it?\n".repeat(8);
    let stop = ["--context-full", "stop", "--max-seq-len", "100"];
    let (_, notes) = chat_with_mistakes(&stop, &format!("{question}/clear\nHello.\n/stats\n"));
    assert!(
        notes.contains("error: the context is full: the prompt has") && notes.contains("hint: /undo and"),
        "{notes}"
    );
    assert!(notes.contains("the longest context is 100") && !notes.contains("dropped"), "{notes}");
    assert!(notes.contains(" of 100 tokens\n"), "after /clear there is an answer: {notes}");

    // Alone it does not fit either.
    let long = "word ".repeat(200);
    let (_, notes) =
        chat_with_mistakes(&["--max-seq-len", "100"], &format!("Hello.\n{long}\n/undo\n/undo\n"));
    assert!(notes.contains("does not fit into the context, even without the turns before it"), "{notes}");
    assert!(notes.contains("took back 2 messages") && notes.contains("nothing to take back"), "{notes}");
    // An answer that the context ends says so.
    let folder = folder(Some(STRICT));
    let lines = "/set max-new-tokens 100\nHello, who are you?\n";
    let (_, notes) = chat(&["-m", folder.path().to_str().unwrap(), "--max-seq-len", "32"], lines);
    assert!(notes.contains("(cut off: the context of 32 tokens is full"), "{notes}");
}

#[test]
fn the_prompt_is_shown_as_text_and_ids() {
    let folder = folder(Some(STRICT));
    let model = folder.path().to_str().unwrap();
    let (answers, notes) = chat(&["-m", model, "--system", "Be brief."], "/prompt Who are you?\n");
    assert_eq!(answers, "");
    let text = "<|begin_of_text|>system: Be brief.\nuser: Who are you?\nassistant:";
    assert!(notes.contains(text), "{notes}");
    let tokenizer = Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
    let ids: Vec<String> = tokenizer.encode(text, false).unwrap().iter().map(u32::to_string).collect();
    assert!(notes.contains(&format!("\n{} tokens: {}\n", ids.len(), ids.join(" "))), "{notes}");
    let (_, notes) = chat(&["-m", model], "One\n/system Late\n/prompt\n");
    assert!(notes.contains("<|begin_of_text|>system: Late\nuser: One\nassistant:"), "{notes}");
}

#[test]
fn a_template_is_asked_before_anything_changes() {
    let refusing = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}\
                    {% endif %}{{ m.content }}\n{% endfor %}";
    let folder = folder(Some(refusing));
    let file = folder.path().join("talk.json");
    fs::write(
        &file,
        json!([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]).to_string(),
    )
    .unwrap();
    let lines = format!("/system Be brief.\n/load {}\nHello\n/stats\n", file.display());
    let (_, notes) = chat_with_mistakes(&["-m", folder.path().to_str().unwrap()], &lines);
    assert_eq!(notes.matches("refuses the conversation: no system").count(), 2, "{notes}");
    assert!(notes.contains("prefill"), "the message was answered: {notes}");
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
                .and(contains("--no-chat-template")),
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
