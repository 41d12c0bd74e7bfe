//! `sparq eval` with the model inside the program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use assert_cmd::cargo::cargo_bin;
use predicates::{prelude::*, str::contains};
use sparq_models::eval::Results;
use tempfile::TempDir;

use crate::common::sparq;

/// A small evaluation of several batches.
const RUN: &[&str] = &[
    "eval",
    "passkey",
    "multi-turn",
    "--attention",
    "sparq",
    "--compression-ratio",
    "2,8",
    "--lengths",
    "320",
    "--depths",
    "2",
    "--limit",
    "3",
    "--batch",
    "1",
    "-q",
    "-o",
];

#[test]
fn finished_results_are_replaced_by_the_same_run_only() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("r.json");
    let run = |words: &[&str]| {
        let common = [
            "eval",
            "passkey",
            "passkey",
            "--attention",
            "h2o,h2o,dense,dense",
            "--compression-ratio",
            "4,4",
        ];
        let sizes = ["--lengths", "128", "--depths", "1", "--batch", "1", "-q", "-o"];
        sparq().args(common).args(sizes).arg(&output).args(words).assert()
    };
    run(&["--limit", "1"]).success();
    let found = Results::read(&output).unwrap();
    assert_eq!((found.settings.methods.len(), found.tasks.len()), (2, 1), "each is run once");
    run(&["--limit", "1"]).success();
    let other = run(&["--limit", "2"]).code(1);
    other.stderr(contains("holds the results of a run with other settings (limit)").and(contains("--force")));
    assert_eq!(Results::read(&output).unwrap(), found);
    run(&["--limit", "2", "--force"]).success();
    assert_eq!(Results::read(&output).unwrap().settings.plan.limit, 2);
}

fn run(output: &Path) -> Vec<u8> {
    sparq().args(RUN).arg(output).assert().success().stdout("").stderr("");
    fs::read(output).unwrap()
}

fn partial(output: &Path) -> PathBuf {
    output.with_file_name(format!("{}.partial", output.file_name().unwrap().to_string_lossy()))
}

#[test]
fn results_depend_neither_on_jobs_nor_on_threads() {
    let folder = TempDir::new().unwrap();
    let run = |jobs: &str, threads: &str| {
        let output = folder.path().join(format!("{jobs}-{threads}.json"));
        let mut command = sparq();
        command.args(RUN).arg(&output).args(["-j", jobs]).env("RAYON_NUM_THREADS", threads);
        // One thread that waited for another would wait for ever.
        command.timeout(Duration::from_secs(300)).assert().success();
        fs::read(output).unwrap()
    };
    let alone = run("1", "1");
    assert_eq!(run("2", "1"), alone);
    assert_eq!(run("1", "8"), alone);
    assert_eq!(run("3", "4"), alone);
}

#[test]
fn the_same_command_gives_the_same_bytes_even_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let once = folder.path().join("once.json");
    let whole = run(&once);
    assert!(!partial(&once).exists(), "the journal goes when the results are there");

    // Killed as soon as two batches are finished, and the third line cut in the middle.
    let output = folder.path().join("killed.json");
    let journal = partial(&output);
    let lines = || fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    let mut child = Command::new(cargo_bin("sparq"))
        .args(RUN)
        .arg(&output)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while lines() < 3 && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!output.exists(), "killed before its end");
    let text = fs::read(&journal).unwrap();
    fs::write(&journal, &text[..text.len() - 20]).unwrap();
    let left = lines();
    assert!(left >= 2, "{left} lines");

    let changed: Vec<&str> = RUN.iter().map(|&word| if word == "2,8" { "2,4" } else { word }).collect();
    let other = sparq().args(changed).arg(&output).assert().code(1);
    other.stderr(contains("left by a run with other settings (methods)")).stderr(contains("hint"));

    let resumed = run(&output);
    assert!(resumed == whole, "a run that was killed ends as one that was not");
    assert!(!journal.exists());
}

#[test]
fn dense_attention_recalls_a_key_and_sparq_moves_less() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("results.json");
    run(&output);
    let results = Results::read(&output).unwrap();
    let labels: Vec<String> = results.settings.methods.iter().map(|method| method.label()).collect();
    assert_eq!(labels, ["dense", "sparq 1/2", "sparq 1/8"]);
    let keys = &results.tasks[1];
    assert_eq!(keys.samples.len(), 3);
    assert_eq!(keys.average(0).score, 1.0, "{keys:?}");
    assert_eq!((keys.average(0).kl, keys.average(0).bytes), (0.0, 1.0));
    assert_eq!(keys.turns(0).len(), 4);
    // Keys and values written and the transposed copy count too, so a little more than the ratio.
    assert!((0.45..0.6).contains(&keys.average(1).bytes), "{}", keys.average(1).bytes);
    assert!((0.1..0.2).contains(&keys.average(2).bytes), "{}", keys.average(2).bytes);
    assert!(keys.average(2).kl > keys.average(1).kl);
}

#[test]
fn every_task_without_a_file_runs() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("results.json");
    let assert = sparq()
        .args([
            "eval",
            "--attention",
            "sparq",
            "--compression-ratio",
            "4",
            "--lengths",
            "512",
            "--depths",
            "1",
        ])
        .args(["--limit", "1", "-o"])
        .arg(&output)
        .assert()
        .success();
    let table = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let results = Results::read(&output).unwrap();
    for task in &results.tasks {
        assert!(table.contains(&format!("| {}", task.task)), "{} in {table}", task.task);
        assert!(task.samples[0].answer_tokens > 0);
        let average = task.average(1);
        assert!(average.kl.is_finite() && average.nats_per_token > 0.0, "{}: {average:?}", task.task);
        if task.task == "own-text" {
            let mass = task.mass(1);
            assert_eq!((mass.len(), mass[0].len()), (8, 4), "layers and heads");
            assert!(mass.iter().flatten().all(|mass| (0.0..=1.0001).contains(mass)), "{mass:?}");
            assert!(task.mass(0).iter().flatten().all(|&mass| mass == 1.0));
        }
    }
    assert_eq!(results.tasks.len(), 13);
    assert!(results.tasks.iter().any(|task| task.average(1).kl > 0.01), "SparQ is not dense attention");
}

#[test]
fn tasks_read_files() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-models/tests/tasks");
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("results.json");
    let task = |name: &str, file: &str| format!("{name}={}", files.join(file).display());
    sparq()
        .args([
            "eval",
            "--attention",
            "sparq",
            "--compression-ratio",
            "4",
            "--lengths",
            "2048",
            "--limit",
            "1",
            "-q",
            "-o",
        ])
        .arg(&output)
        .args([task("squad", "squad.json"), task("triviaqa", "triviaqa/qa/wikipedia-dev.json")])
        .args([task("cnn-dailymail", "cnn.csv"), task("text", "cnn.jsonl")])
        .assert()
        .success();
    let results = Results::read(&output).unwrap();
    assert_eq!(results.tasks.len(), 4);
    for task in &results.tasks[..3] {
        assert!(task.samples[0].outcomes[0].output.as_ref().is_some_and(|output| !output.is_empty()));
    }
    assert!(results.settings.tasks[0].file_bytes.is_some_and(|bytes| bytes > 1000));
}

#[test]
fn the_list_names_every_task() {
    let assert = sparq().args(["eval", "list"]).assert().success();
    let out = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    for task in sparq_models::eval::tasks::tasks() {
        assert!(out.contains(task.name) && out.contains(task.about), "{}", task.name);
    }
}

#[test]
fn bad_input_is_named() {
    let fails = |args: &[&str], code: i32, message: &str| {
        let assert = sparq().arg("eval").args(args).assert().code(code);
        let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    };
    fails(&["paskey"], 1, "did you mean `passkey`?");
    fails(&["squad"], 1, "name it as `squad=FILE`");
    fails(&["squad=nothing.json"], 1, "nothing.json");
    fails(&["passkey=file"], 1, "reads no file");
    fails(&["passkey", "-o", "/nowhere/at/all.json"], 1, "/nowhere/at/all.json");
    fails(&["passkey", "--limit", "0"], 1, "limit is 0");
    fails(&["passkey", "--lengths", "99999"], 1, "99999");
    fails(&["passkey", "--lengths", "30"], 1, "--lengths");
    fails(&["passkey", "--compression-ratio", "0.5"], 2, "0.5");
    fails(&["passkey", "--attention", "magic"], 2, "magic");
    fails(&["passkey", "--limit", "many"], 2, "--limit");
    fails(&["report", "nothing.json"], 1, "nothing.json");
}

/// The committed pages and charts are those that the program makes of the committed results.
#[test]
fn numbers_that_no_run_gives_are_refused_and_small_parts_are_drawn() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results/text-1024.json");
    let text = fs::read_to_string(&committed).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("results.json");
    let report = |field: &str, value: &str| {
        let at = text.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
        let end = at + text[at..].find([',', '}']).unwrap();
        fs::write(&file, format!("{}{value}{}", &text[..at], &text[end..])).unwrap();
        sparq().args(["eval", "report", "-o"]).arg(folder.path()).arg(&file).assert()
    };
    for field in ["kl", "nats_per_token", "kv_bytes_per_token"] {
        let expected = format!("holds no results of `sparq eval`: `{field}` of an outcome is 1e308");
        report(field, "1e308").code(1).stderr(contains(expected));
        report(field, "1e15").success();
        report(field, "1e-300").success();
    }
}

#[test]
fn committed_reports_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results");
    let mut reports = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let results = entry.unwrap().path();
        if results.extension().is_none_or(|extension| extension != "json") || Results::read(&results).is_err()
        {
            continue;
        }
        reports += 1;
        let made = TempDir::new().unwrap();
        let assert = sparq().args(["eval", "report", "-o"]).arg(made.path()).arg(&results).assert().success();
        let out = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        for path in out.lines().map(Path::new) {
            let committed = folder.join(path.file_name().unwrap());
            let (new, old) = (fs::read_to_string(path).unwrap(), fs::read_to_string(&committed).unwrap());
            assert!(new == old, "{} is out of date: `sparq eval report` writes it", committed.display());
        }
    }
    assert!(reports > 0);
}
