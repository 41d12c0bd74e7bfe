//! `sparq bench`: what it writes, never how fast it was.

use crate::common::{reference_llama, sparq};
use predicates::str::contains;
use serde_json::Value;

/// Standard output and standard error of a successful run.
fn run(args: &[&str]) -> (String, String) {
    let assert = sparq().arg("bench").args(args).assert().success();
    let output = assert.get_output();
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn records(args: &[&str]) -> Vec<Value> {
    serde_json::from_str(&run(&[args, &["-o", "json"]].concat()).0).unwrap()
}

#[test]
fn a_model_is_measured_at_depths_dense_first() {
    let methods = "sparq:r=4:k=16,dense";
    let list = records(&["-p", "16", "-n", "3", "-d", "0,40", "-r", "2", "--attention", methods]);
    let tests: Vec<_> = list
        .iter()
        .map(|r| {
            let number = |key: &str| r[key].as_u64().unwrap();
            (number("n_depth"), number("n_prompt"), number("n_gen"), r["attention"].as_str().unwrap())
        })
        .collect();
    let at = |depth| [(depth, 16, 0, "dense"), (depth, 0, 3, "dense"), (depth, 0, 3, "sparq")];
    assert_eq!(tests, [at(0), at(40)].concat());
    for record in &list {
        for key in [
            "cpu_info",
            "backends",
            "model_filename",
            "model_type",
            "model_size",
            "model_n_params",
            "n_batch",
            "n_ubatch",
            "n_threads",
            "type_k",
            "type_v",
            "test_time",
            "avg_ns",
            "stddev_ns",
            "avg_ts",
            "stddev_ts",
            "samples_ns",
            "samples_ts",
            "attention",
            "sparq_r",
            "sparq_k",
            "kv_bytes_per_token",
            "device",
            "dtype",
            "backend_version",
            "read_gb_per_s",
            "copy_gb_per_s",
            "gb_per_s",
            "bandwidth_fraction",
            "depth_by",
        ] {
            assert!(record.get(key).is_some(), "{key} in {record}");
        }
        assert_eq!(record["samples_ns"].as_array().unwrap().len(), 2);
        assert!(record["avg_ts"].as_f64().unwrap() > 0.0);
        assert_eq!(record["ignore_eos"], true);
    }
    // At depth 40 SparQ reads 16 of about 42 positions; at depth 0 the context is shorter than that.
    let bytes = |i: usize| list[i]["kv_bytes_per_token"].as_f64().unwrap();
    assert!(bytes(5) < bytes(4), "{} {}", bytes(5), bytes(4));
    assert_eq!((list[5]["sparq_r"].as_u64(), list[5]["sparq_k"].as_u64()), (Some(4), Some(16)));
    assert!(list[5]["speedup_by_bytes"].as_f64().unwrap() > 1.0);
    assert!(list[0]["kv_bytes_per_token"].is_null(), "a prompt decodes nothing");
}

#[test]
fn every_format_and_the_note_about_end_of_text() {
    let base = ["-p", "0", "-n", "2", "-r", "1", "--no-warmup", "--attention", "dense"];
    let with = |format| run(&[&base[..], &["-o", format]].concat());
    let (table, notes) = with("md");
    assert!(
        table.starts_with("| model | size | params | backend | threads | dtype | attention | test | t/s")
    );
    assert!(table.contains("| tg2 |"), "{table}");
    assert!(notes.contains("end-of-text tokens do not end a run"), "{notes}");
    let (csv, _) = with("csv");
    let mut lines = csv.lines();
    let columns = lines.next().unwrap().split(',').count();
    assert!(columns > 25 && lines.count() == 1, "{csv}");
    let (jsonl, _) = with("jsonl");
    assert_eq!(serde_json::from_str::<Value>(jsonl.trim()).unwrap()["n_gen"], 2);
}

#[test]
fn a_configuration_without_weights_and_a_random_cache() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::copy(reference_llama().join("config.json"), folder.path().join("config.json")).unwrap();
    let path = folder.path().to_str().unwrap();
    let args = ["-m", path, "--random-weights", "--layers", "2", "--random-cache", "-d", "64"];
    let rest = ["-p", "0", "-n", "2", "-r", "1", "--attention", "dense,sparq:r=4:k=16"];
    let list = records(&[&args[..], &rest].concat());
    assert_eq!(list.len(), 2);
    assert_eq!((&list[0]["depth_by"], &list[0]["random_weights"]), (&"random".into(), &true.into()));
    assert!(list[0]["model_type"].as_str().unwrap().ends_with("2 layers"), "{}", list[0]["model_type"]);
    // Two layers, two KV heads of 16 in f32: keys and values of 65.5 positions on average, and appends.
    let kv = list[0]["kv_bytes_per_token"].as_f64().unwrap();
    assert_eq!(kv, 2.0 * 2.0 * 16.0 * 4.0 * 2.0 * (65.5 + 1.0));
}

#[test]
fn the_layer_alone() {
    let sizes = ["attention", "-s", "64,96", "--heads", "4,4/2", "--head-dim", "16", "-b", "1,3"];
    let rest = ["--rank", "4", "--top-k", "16", "--dtype", "f32,bf16", "-r", "2"];
    let list = records(&[&sizes[..], &rest].concat());
    assert_eq!(list.len(), 2 * 2 * 2 * 2 * 2);
    for pair in list.chunks(2) {
        let (dense, with_sparq) = (&pair[0], &pair[1]);
        assert_eq!((&dense["attention"], &with_sparq["attention"]), (&"dense".into(), &"sparq".into()));
        let number = |record: &Value, key: &str| record[key].as_u64().unwrap();
        let [batch, kv, len] = ["batch", "kv_heads", "seq_len"].map(|key| number(dense, key));
        let size = if dense["dtype"] == "f32" { 4 } else { 2 };
        assert_eq!(number(dense, "bytes_per_step"), batch * kv * 16 * (2 * len + 2) * size);
        assert_eq!(number(with_sparq, "dense_bytes_per_step"), number(dense, "bytes_per_step"));
        assert!(number(with_sparq, "bytes_per_step") < number(dense, "bytes_per_step"));
        assert_eq!(dense["speedup_over_dense"], 1.0);
    }
    let (table, _) = run(&["attention", "-s", "64", "--heads", "4", "--head-dim", "64", "-r", "1"]);
    assert!(table.starts_with("| dtype | B | heads | d | S | attention | time | bytes | GB/s"), "{table}");
}

#[test]
fn a_linear_layer_alone() {
    let list = records(&["linear", "--size", "64x32", "--dtype", "f32,f16", "-r", "2"]);
    let bytes: Vec<_> = list.iter().map(|record| record["bytes"].as_u64().unwrap()).collect();
    assert_eq!(bytes, [64 * 32 * 4, 64 * 32 * 2]);
    let list = records(&["linear", "--size", "64x32", "--weights", "int8", "-r", "2"]);
    assert_eq!((list[0]["bytes"].as_u64(), &list[0]["dtype"]), (Some(32 * (64 + 4)), &"int8".into()));
}

#[test]
fn any_method_and_a_profile() {
    let list = records(&[
        "attention",
        "-s",
        "96",
        "--head-dim",
        "16",
        "--heads",
        "4",
        "-r",
        "1",
        "--attention",
        "h2o:k=16,sparq:r=4:k=16:mean=off,quest@4,dense",
    ]);
    let names: Vec<_> = list.iter().map(|record| record["attention"].as_str().unwrap()).collect();
    assert_eq!(names, ["dense", "h2o", "sparq", "quest"]);
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("profile.json");
    std::fs::write(&path, r#"{"layers": ["dense", "sparq:r=4:k=16", "h2o:k=16", "dense"]}"#).unwrap();
    let layers =
        ["-m", reference_llama().to_str().unwrap(), "--random-weights", "--layers", "4"].map(str::to_owned);
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let rest = ["-p", "0", "-n", "2", "-d", "40", "-r", "1", "--attention", "dense"];
    let list = records(&[&layers, &rest[..], &["--profile", path.to_str().unwrap()]].concat());
    let names: Vec<_> = list.iter().map(|record| record["attention"].as_str().unwrap()).collect();
    assert_eq!(names, ["dense", "profile"]);
    let bytes = |i: usize| list[i]["kv_bytes_per_token"].as_f64().unwrap();
    assert!(bytes(1) < bytes(0), "{} {}", bytes(1), bytes(0));
}

#[test]
fn weights_of_eight_bits_are_counted() {
    let base = ["-p", "0", "-n", "2", "-r", "1", "--no-warmup", "--attention", "dense", "--dtype", "f32"];
    let number = |weights: &str, key: &str| {
        records(&[&base[..], &["--weights", weights]].concat())[0][key].as_u64().unwrap()
    };
    for key in ["model_size", "weight_bytes_per_token"] {
        assert!(number("int8", key) < number("auto", key), "{key}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let fails = |args: &[&str], message: &str| {
        sparq().arg("bench").args(args).assert().code(1).stderr(contains(message.to_owned()));
    };
    fails(&["--shape", "gpt-5"], "there is no shape `gpt-5` (there are: llama-2-7b");
    fails(&["--layers", "3"], "--layers needs --shape or --random-weights");
    fails(&["attention", "--heads", "4/3"], "kv_heads = 3");
    fails(&["attention", "--device", "tpu"], "device `tpu` is not known");
}
