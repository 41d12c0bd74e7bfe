//! `sparq inspect`.

use std::fs;

use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};

use crate::common::{copy_of_llama, edit_config, reference_llama, sparq};

fn json_of(args: &[&str], folder: &std::path::Path) -> Value {
    let assert = sparq().args(["inspect", "--json", "-m"]).arg(folder).args(args).assert().success();
    serde_json::from_slice(&assert.get_output().stdout).unwrap()
}

#[test]
fn tables_state_what_the_model_is_and_needs() {
    let assert = sparq().args(["inspect", "--max-seq-len", "1000", "-m"]).arg(reference_llama()).assert();
    let out = String::from_utf8(assert.success().stderr("").get_output().stdout.clone()).unwrap();
    // The lines as words, since the columns depend on the folder's name.
    let lines: Vec<String> =
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "architecture LlamaForCausalLM, can be loaded",
        "parameters 108992",
        "layers 3",
        "hidden size 64",
        "query heads 4",
        "key/value heads 2",
        "head size 16",
        "vocabulary 128",
        "context 512",
        "rotary embedding base 10000, not scaled",
        "sampling greedy, by generation_config.json",
        "end of text 2, by config.json, generation_config.json",
        "stored as tensors numbers size",
        "f32 30 108992 436.0 kB",
        "Memory on the device for one sequence of up to 1000 tokens",
        "dtype attention per token KV cache weights together",
        "f32 dense 768.0 B 768.0 kB 436.0 kB 1.2 MB",
        "f32 sparq 1.2 kB 1.2 MB 436.0 kB 1.6 MB",
        "bf16 dense 384.0 B 384.0 kB 218.9 kB 602.9 kB",
    ] {
        assert!(lines.iter().any(|line| line == expected), "`{expected}` in\n{out}");
    }
}

#[test]
fn weights_and_key_copies_in_few_bits_take_less() {
    let plain = json_of(&["--dtype", "f16"], &reference_llama());
    let eight = json_of(&["--dtype", "f16", "--weights", "int8", "--kt", "int8"], &reference_llama());
    let [plain, eight] = [plain, eight].map(|report| report["memory"][0].clone());
    assert_eq!((&eight["weights"], &eight["k_t"]), (&json!("int8"), &json!("int8")));
    let bytes = |memory: &Value, part: &str| memory[part].as_u64().unwrap();
    assert!(bytes(&eight, "weight_bytes") < bytes(&plain, "weight_bytes"));
    // 3 layers of 2 KV heads of 16: a byte per component and a scale of 4 per 64 for the copy.
    assert_eq!(eight["sparq"]["kv_bytes_per_token"], 3 * 2 * 16 * (2 * 2 + 1) + 3 * 2 * 16 * 4 / 64);
    assert_eq!(eight["dense"], {
        let mut dense = plain["dense"].clone();
        dense["total_bytes"] = json!(bytes(&eight["dense"], "cache_bytes") + bytes(&eight, "weight_bytes"));
        dense
    });
}

#[test]
fn json_has_stable_names_with_units() {
    let mut report = json_of(&["--max-seq-len", "1000", "--dtype", "bf16"], &reference_llama());
    report.as_object_mut().unwrap().remove("model");
    assert_eq!(
        report,
        json!({
            "architecture": "LlamaForCausalLM",
            "supported": true,
            "layers": 3,
            "hidden_size": 64,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 16,
            "vocab_size": 128,
            "context_tokens": 512,
            "sliding_window_tokens": null,
            "rope": [{
                "layers": "all",
                "theta": 10000.0,
                "scaling": "default",
                "factor": null,
                "rotary_dim": 16,
                "original_context_tokens": null,
            }],
            "generation": {
                "source": "generation_config.json",
                "settings": {"temperature": 0},
                "ends": [{"id": 2, "piece": null, "named_by": ["config.json", "generation_config.json"]}],
                "notes": [],
            },
            "tensors": 30,
            "parameters": 108992,
            "vector_parameters": 448,
            "stored_bytes": 435968,
            "stored": [{"dtype": "f32", "tensors": 30, "elements": 108992, "bytes": 435968}],
            "memory": [{
                "dtype": "bf16",
                "context_tokens": 1000,
                "weight_bytes": 218880,
                "dense": {
                    "kv_bytes_per_token": 384,
                    "running_sum_bytes": 0,
                    "cache_bytes": 384000,
                    "total_bytes": 602880,
                },
                "sparq": {
                    "kv_bytes_per_token": 576,
                    "running_sum_bytes": 384,
                    "cache_bytes": 576384,
                    "total_bytes": 795264,
                },
            }],
        })
    );
}

#[test]
fn settings_and_ends_are_shown_with_where_they_come_from() {
    let assert = sparq().arg("inspect").assert().success().stderr("");
    let out = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let lines: Vec<String> =
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "sampling temperature 0.8, top_p 0.95, repetition_penalty 1.1, by generation_config.json",
        "end of text 1 \"<|end_of_text|>\", by config.json, generation_config.json, tokenizer",
    ] {
        assert!(lines.iter().any(|line| line == expected), "`{expected}` in\n{out}");
    }

    let folder = copy_of_llama();
    let json =
        r#"{"do_sample": "yes", "top_k": -1, "num_beams": 4, "eos_token_id": [7, null], "max_length": 9}"#;
    fs::write(folder.path().join("generation_config.json"), json).unwrap();
    let generation = json_of(&[], folder.path())["generation"].clone();
    assert_eq!(generation["settings"], json!({"temperature": 0, "max_length": 9}));
    let ends = json!([
        {"id": 2, "piece": null, "named_by": ["config.json"]},
        {"id": 7, "piece": null, "named_by": ["generation_config.json"]},
    ]);
    assert_eq!((&generation["source"], &generation["ends"]), (&json!("generation_config.json"), &ends));
    let notes: Vec<&str> =
        generation["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    for (note, part) in
        notes.iter().zip(["`do_sample`", "`top_k` is -1", "`eos_token_id`: null", "num_beams = 4"])
    {
        assert!(note.contains("generation_config.json") && note.contains(part), "{note}");
    }
    assert_eq!(notes.len(), 4);
    let shown = sparq().args(["inspect", "-m"]).arg(folder.path()).assert().success();
    shown.stderr(contains("note: ").count(4).and(contains("not honoured: num_beams = 4")));
}

#[test]
fn an_architecture_that_cannot_be_loaded_is_described_all_the_same() {
    let folder = copy_of_llama();
    edit_config(folder.path(), "LlamaForCausalLM", "NovelForCausalLM");
    edit_config(folder.path(), "\"max_position_embeddings\": 512,", "");
    let report = json_of(&[], folder.path());
    assert_eq!((&report["architecture"], &report["supported"]), (&json!("NovelForCausalLM"), &json!(false)));
    assert_eq!(report["parameters"], 108992);
    assert_eq!(report["memory"], json!([]), "it is not known what such layers keep");
    sparq()
        .args(["inspect", "-m"])
        .arg(folder.path())
        .assert()
        .success()
        .stdout(contains("NovelForCausalLM, cannot be loaded").and(contains("not stated")));
}

#[test]
fn bad_folders_and_flags_fail_as_elsewhere() {
    let folder = copy_of_llama();
    fs::remove_file(folder.path().join("config.json")).unwrap();
    sparq().args(["inspect", "-m"]).arg(folder.path()).assert().code(1).stderr(contains("config.json"));
    sparq().args(["inspect", "--max-seq-len", "0"]).assert().code(2);
}
