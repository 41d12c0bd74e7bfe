//! What comes from the input reaches the terminal as text: no codes, no floods, no tags in pages.

use std::fs;

use crate::common::{copy_of_llama, edit_config, edit_weights, sparq};
use tempfile::TempDir;

const RED: &str = "\x1b[31mred\x07";

#[test]
fn codes_in_names_are_shown() {
    let folder = copy_of_llama();
    edit_weights(folder.path(), |tensors| {
        let tensor = tensors.remove("model.norm.weight").unwrap();
        tensors.insert(format!("model.{RED}.weight"), tensor);
    });
    let assert = sparq().arg("verify").arg("-m").arg(folder.path()).assert().code(1);
    let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(message.contains("model.\\u{1b}[31mred\\u{7}.weight") && !message.contains('\x1b'), "{message}");

    edit_config(folder.path(), "LlamaForCausalLM", "Llama\\u001b[31m\\u007fForCausalLM");
    for flag in [&["--json"][..], &[]] {
        let assert = sparq().arg("inspect").args(flag).arg("-m").arg(folder.path()).assert().success();
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        assert!(text.contains("[31m") && !text.contains(['\x1b', '\x7f']), "{text}");
    }
}

#[test]
fn long_names_and_lists_are_cut() {
    let folder = copy_of_llama();
    edit_weights(folder.path(), |tensors| {
        let tensor = tensors.remove("model.norm.weight").unwrap();
        tensors.insert(format!("model.{}.weight", "x".repeat(1_000_000)), tensor);
    });
    let assert = sparq().arg("verify").arg("-m").arg(folder.path()).assert().code(1);
    let message = &assert.get_output().stderr;
    assert!(message.len() < 20_000 && message.starts_with(b"error: "), "{} bytes", message.len());
}

#[test]
fn a_page_shows_tags_as_text() {
    let folder = TempDir::new().unwrap();
    let (results, page) = (folder.path().join("r.json"), folder.path().join("page"));
    sparq()
        .args(["eval", "passkey", "-q", "--limit", "1", "--lengths", "300", "--attention", "local"])
        .args(["--compression-ratio", "2", "-o"])
        .arg(&results)
        .assert()
        .success();
    let text = fs::read_to_string(&results).unwrap();
    let evil = text
        .replace("\"embedded model\"", "\"<script>x</script>|\\u001b[31m\"")
        .replace("\"passkey\"", "\"../<b>out</b>\"");
    assert_ne!(text, evil);
    fs::write(&results, evil).unwrap();
    sparq().args(["eval", "report"]).arg(&results).arg("-o").arg(&page).assert().success();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing beside the folder of the page");
    let mut pages = 0;
    for entry in fs::read_dir(&page).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("<script>") && !text.contains("<b>") && !text.contains('\x1b'), "{text}");
        pages += usize::from(text.contains("&lt;script&gt;x&lt;/script&gt;\\|"));
    }
    assert_eq!(pages, 1);
}
