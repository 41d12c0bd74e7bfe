//! The decode methods from the command line.

use std::fs;

use crate::common::sparq;
use predicates::{prelude::PredicateBooleanExt, str::contains};
use tempfile::TempDir;

/// Figures of a short run of the embedded model.
fn figures(args: &[&str]) -> String {
    let assert = sparq().args(["generate", "Once upon a time there was", "-n", "30"]).args(args).assert();
    let output = assert.success().get_output().clone();
    assert!(output.stdout.len() > 30, "a text");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes moved over what dense attention would have moved, in percent.
fn share(figures: &str) -> f64 {
    figures.split("been dense (").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_method_writes_and_says_what_it_moved() {
    for (method, shown) in [
        ("sparq-mass:r=16:k=12:p=0.8", "sparq-mass:r=16:k=12:l=3:mean=off:p=0.8"),
        ("exact-topk:k=8", "exact-topk:k=8"),
        ("oracle-topk:k=8", "oracle-topk:k=8"),
        ("local:k=8:i=2", "local:k=8:i=2"),
        ("h2o:k=8", "h2o:k=8:l=2"),
        ("quest:k=8:page=4", "quest:k=8:page=4"),
        ("double-sparsity:r=16:k=8", "double-sparsity:r=16:k=8:l=1"),
    ] {
        let figures = figures(&["--attention", method]);
        assert!(figures.contains(&format!("attention  {shown}\n")), "{method}: {figures}");
        assert!(share(&figures) < 99.0, "{method}: {figures}");
    }
}

#[test]
fn a_ratio_sizes_any_method() {
    let figures = figures(&["--attention", "local", "--compression-ratio", "2"]);
    // Half of what is dense at the end of the run; the shorter contexts before it are covered more.
    assert!((50.0..85.0).contains(&share(&figures)), "{figures}");
    sparq()
        .args(["generate", "Once", "--attention", "exact-topk", "--compression-ratio", "8"])
        .assert()
        .code(1)
        .stderr(contains("exact-topk@8 cannot move one part in 8").and(contains("hint: ")));
    let run = |words: &[&str]| {
        sparq().args(["generate", "Once", "-n", "3", "--dense-below", "0"]).args(words).assert()
    };
    run(&["--compression-ratio", "1000"])
        .code(1)
        .stderr(contains("sparq@1000:dense-below=0 cannot move one part in 1000"));
    // What covers everything is dense, with a stated rank or without.
    run(&["--attention", "sparq:k=1000000"])
        .success()
        .stderr(contains("all steps ran dense: the method's top-k of 1000000"));
}

#[test]
fn layers_may_differ() {
    let all = share(&figures(&["--attention", "local:k=8:i=2"]));
    let some = share(&figures(&["--attention", "local:k=8:i=2", "--dense-layers", "4"]));
    assert!((some - (100.0 + all) / 2.0).abs() < 1.0, "half of the layers: {some} and {all}");

    let folder = TempDir::new().unwrap();
    let profile = folder.path().join("profile.json");
    let path = profile.to_str().unwrap();
    let layers = [[r#""dense""#; 4], [r#"{ "local": { "top_k": 8, "initial": 2 } }"#; 4]].concat();
    fs::write(&profile, format!(r#"{{ "layers": [{}] }}"#, layers.join(","))).unwrap();
    let mixed = figures(&["--profile", path]);
    assert_eq!(share(&mixed), some);
    let line = format!("attention  profile {path}: dense (4 layers), local:k=8:i=2 (4 layers)\n");
    assert!(mixed.contains(&line), "{mixed}");
    let first = figures(&["--attention", "local:k=8:i=2", "--dense-layers", "1"]);
    assert!(first.contains("attention  local:k=8:i=2, the first layer dense\n"), "{first}");
    let first = figures(&["--attention", "local:k=8:i=2", "--dense-layers", "3"]);
    assert!(first.contains("attention  local:k=8:i=2, the first 3 layers dense\n"), "{first}");
    let all = figures(&["--attention", "local:k=8:i=2", "--dense-layers", "99"]);
    assert!(
        all.contains("note: --dense-layers 99 covers all 8 layers") && all.contains("attention  dense\n"),
        "{all}"
    );

    fs::write(&profile, r#"{ "layers": ["dense", "h2o:k=0"] }"#).unwrap();
    let run = || sparq().args(["generate", "Once", "--profile", path]).assert().code(1);
    run().stderr(contains("layer 1: `h2o:k=0`"));
    fs::write(&profile, r#"{ "layers": ["dense"] }"#).unwrap();
    run().stderr(contains("the profile has 1 layer, the model 8").and(contains("hint: ")));
}
