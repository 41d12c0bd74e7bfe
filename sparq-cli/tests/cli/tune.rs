//! `sparq tune` on the small model inside the program.

use std::{fs, path::Path};

use crate::common::sparq;
use predicates::{prelude::PredicateBooleanExt, str::contains};
use tempfile::TempDir;

/// A text that the model knows the kind of: what it writes itself.
fn text(folder: &Path) -> String {
    let path = folder.join("text.txt");
    let assert = sparq()
        .args([
            "generate",
            "Once upon a time",
            "-q",
            "-n",
            "420",
            "--ignore-eos",
            "--temperature",
            "1",
            "--seed",
            "3",
        ])
        .args(["--attention", "dense"])
        .assert()
        .success();
    fs::write(&path, &assert.get_output().stdout).unwrap();
    path.to_string_lossy().into_owned()
}

fn tune(text: &str, args: &[&str]) -> assert_cmd::assert::Assert {
    let sizes = ["--window", "190", "--steps", "24", "--windows", "2", "--rank", "8,32", "--top-k", "16,64"];
    sparq().args(["tune", "--text", text]).args(sizes).args(args).assert()
}

#[test]
fn a_profile_meets_its_target_and_runs() {
    let folder = TempDir::new().unwrap();
    let text = text(folder.path());
    let profile = folder.path().join("profile.json");
    let path = profile.to_str().unwrap();
    for target in [["--target-kl", "0.2"], ["--target-mass", "0.6"]] {
        let out = tune(&text, &[&target[..], &["-o", path]].concat()).success();
        let out = String::from_utf8_lossy(&out.get_output().stdout).into_owned();
        assert!(out.contains("meets the target") && out.contains("held out"), "{out}");
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&profile).unwrap()).unwrap();
        assert_eq!(json["layers"].as_array().unwrap().len(), 8);
        let found = &json["about"]["found"];
        match target[0] {
            "--target-kl" => assert!(found["kl"].as_f64().unwrap() <= 0.2, "{json}"),
            _ => assert!(found["mass"].as_f64().unwrap() >= 0.6, "{json}"),
        }
        assert!(found["of_dense"].as_f64().unwrap() < 0.8, "{json}");
        sparq().args(["generate", "Once", "-n", "60", "--profile", path]).assert().success();
    }
}

#[test]
fn a_target_out_of_reach_is_an_error_and_leaves_no_profile() {
    let folder = TempDir::new().unwrap();
    let text = text(folder.path());
    let profile = folder.path().join("profile.json");
    tune(&text, &["--target-kl", "1e-9", "--uniform", "-o", profile.to_str().unwrap()])
        .code(1)
        .stderr(contains("no setting of the grid meets the target"));
    assert!(!profile.exists());
    sparq().args(["tune", "--text", &text]).assert().code(2).stderr(contains("--target-kl"));
    let both = ["tune", "--text", &text, "--target-kl", "1", "--target-mass", "0.5"];
    sparq().args(both).assert().code(2);
    tune(&text, &["--target-mass", "2"]).code(1).stderr(contains("at most 1"));
    sparq()
        .args(["tune", "--text", &text, "--target-kl", "1", "--window", "9999"])
        .assert()
        .code(1)
        .stderr(contains("longest context"));
    tune("no-such-file", &["--target-kl", "1"]).code(1).stderr(contains("no-such-file"));
}

#[test]
fn label_channels_are_found_and_used() {
    let folder = TempDir::new().unwrap();
    let text = text(folder.path());
    let profile = folder.path().join("profile.json");
    let path = profile.to_str().unwrap();
    tune(&text, &["--label-channels", "double-sparsity:r=8:k=16", "-o", path]).success();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&profile).unwrap()).unwrap();
    let channels = &json["layers"][7]["double_sparsity"]["channels"];
    assert_eq!((channels.as_array().unwrap().len(), channels[1].as_array().unwrap().len()), (2, 8));
    let assert = sparq().args(["generate", "Once upon", "-n", "40", "--profile", path]).assert().success();
    let figures = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(figures.contains("double-sparsity:r=8:k=16:l=1"), "{figures}");
    tune(&text, &["--label-channels", "h2o", "-o", path])
        .code(1)
        .stderr(contains("only double-sparsity has label channels").and(contains("h2o")));
}
