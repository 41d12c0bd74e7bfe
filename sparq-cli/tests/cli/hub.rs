//! Models by name, with a small server that plays the hub.

#[path = "../../../sparq-models/src/hub/tests/server.rs"]
mod server;

use std::{fs, path::Path};

use assert_cmd::Command;
use predicates::{prelude::*, str::contains};
use tempfile::TempDir;

use crate::common::sparq;
use server::{Gate, Server};

/// The model inside the program, on a hub.
fn server() -> Server {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let names = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];
    let files = names.map(|name| (name, fs::read(demo.join(name)).unwrap()));
    Server::start(&files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())))
}

/// The program with this hub and this cache, in a folder of its own.
fn with_hub(address: &str, home: &TempDir) -> Command {
    let mut command = sparq();
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", address).env("HF_HOME", home.path()).current_dir(home.path());
    command
}

#[test]
fn a_model_by_name_is_fetched_once_and_then_runs_offline() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let generate = || {
        let mut command = with_hub(&server.address, &home);
        command.args([
            "generate",
            "-m",
            "org/name",
            "Once upon a time",
            "-n",
            "4",
            "--temperature",
            "0",
            "--dense-below",
            "0",
        ]);
        command
    };
    let first = generate().assert().success();
    assert!(server.requests().iter().any(|request| request.contains("model.safetensors")));
    let again = generate().assert().success();
    assert_eq!(server.requests(), ["/api/models/org/name/revision/main"]);
    assert_eq!(first.get_output().stdout, again.get_output().stdout);
    generate().arg("--offline").assert().success();
    generate().env("HF_HUB_OFFLINE", "1").assert().success();
    assert_eq!(server.requests(), [""; 0]);
    with_hub(&server.address, &home).args(["inspect", "-m", "org/name"]).assert().success();

    // A folder of that name wins.
    fs::create_dir_all(home.path().join("org/name")).unwrap();
    generate().assert().code(1).stderr(contains("config.json"));
}

#[test]
fn pull_prints_the_folder() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let pull = |name: &str| {
        let mut command = with_hub(&server.address, &home);
        command.args(["pull", name]).assert()
    };
    let output = pull("org/name").success().get_output().stdout.clone();
    let folder = String::from_utf8(output).unwrap();
    assert!(Path::new(folder.trim()).join("model.safetensors").is_file(), "{folder}");
    pull("name").code(1).stderr(contains("no model folder at `name`"));
    pull(".").code(1).stderr(contains("is a path here"));
}

#[test]
fn what_goes_wrong_is_said_with_the_next_step() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let pull = |name: &str, variables: &[(&str, &str)]| {
        let mut command = with_hub(&server.address, &home);
        command.envs(variables.iter().copied()).args(["pull", name]).assert().code(1).stdout("")
    };
    pull("org/other", &[("HF_TOKEN", "good")])
        .stderr(contains("there is no model `org/other`").and(contains("hint: check the spelling")));
    pull("org/name@v9", &[]).stderr(contains("no revision `v9`").and(contains("hint: ")));
    pull("org/name", &[("HF_HUB_OFFLINE", "1")])
        .stderr(contains("hint: fetch it with `sparq pull org/name`"));
    pull("org/name", &[("HF_ENDPOINT", "http://127.0.0.1:9")]).stderr(contains("cannot reach the hub"));
    server.change(|rules| rules.gate = Gate::Gated);
    pull("org/name", &[])
        .stderr(contains("no token was given").and(contains("set HF_TOKEN or run `hf auth login`")));
    pull("org/name", &[("HF_TOKEN", "other")])
        .stderr(contains("its licence is not accepted").and(contains("hint: accept the licence")));
    server.change(|rules| rules.gate = Gate::Open);
    server.change(|rules| rules.cut_after = Some(0));
    pull("org/name", &[]).stderr(contains("broke off").and(contains("run the same command again")));
    server.change(|rules| rules.cut_after = Some(4_000_000));
    with_hub(&server.address, &home).args(["pull", "org/name"]).assert().success();
}

#[test]
fn a_cached_model_runs_whatever_the_hub_answers_and_pull_mends_it() {
    let (server, home) = (server(), TempDir::new().unwrap());
    let run = |args: &[&str]| {
        let mut command = with_hub(&server.address, &home);
        command.args(args).assert()
    };
    let generate = ["generate", "-m", "org/name", "Once", "-n", "1", "--attention", "dense"];
    run(&["pull", "org/name"]).success();
    server.change(|rules| rules.status = Some(503));
    let note = run(&generate).success().get_output().stderr.clone();
    let note = String::from_utf8(note).unwrap();
    assert_eq!(note.matches("note: ").count(), 1, "{note}");
    assert!(note.contains("status 503") && note.contains("taking `org/name` from the cache"), "{note}");
    // A damaged file says how to fetch it again, and that does.
    let config = home.path().join("hub/models--org--name/snapshots").join(server::COMMIT).join("config.json");
    fs::write(&config, "{").unwrap();
    run(&generate).code(1).stderr(contains("hint: download it again: `sparq pull org/name`"));
    server.change(|rules| rules.status = None);
    run(&["pull", "org/name"]).success();
    run(&generate).success();
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        sparq()
            .args(["completions", shell])
            .assert()
            .success()
            .stdout(contains("generate").and(contains("chat")));
    }
}
