//! Bad input gets the right message, a hint where there is one, and the right exit code.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use crate::common::{copy_of_llama, edit_config, edit_weights, sparq};
use predicates::{prelude::*, str::contains};
use tempfile::TempDir;

/// `sparq verify` on a damaged model fails with exit code 1 and these words.
fn verify_fails(folder: &TempDir, words: &[&str]) {
    let assert = sparq().arg("verify").arg("-m").arg(folder.path()).assert().failure().code(1);
    let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(message.starts_with("error: "), "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn no_such_folder() {
    sparq()
        .args(["generate", "-m", "/no/such/folder", "Once"])
        .assert()
        .code(1)
        .stdout("")
        .stderr(contains("/no/such/folder").and(contains("hint: ")));
}

#[test]
#[cfg(not(feature = "hub"))]
fn a_name_without_the_hub_says_what_is_missing() {
    sparq()
        .args(["generate", "-m", "org/name", "Once"])
        .assert()
        .code(1)
        .stderr(contains("the hub is not compiled in").and(contains("--features hub")));
}

#[test]
fn no_config() {
    let folder = copy_of_llama();
    fs::remove_file(folder.path().join("config.json")).unwrap();
    verify_fails(&folder, &["config.json"]);
}

#[test]
fn no_weights() {
    let folder = copy_of_llama();
    let path = |name: &str| folder.path().join(name);
    // The only weight file may have any name; of two, none is guessed.
    fs::rename(path("model.safetensors"), path("weights.safetensors")).unwrap();
    fs::rename(path("expected.safetensors"), path("expected")).unwrap();
    sparq()
        .args(["verify", "-m"])
        .arg(folder.path())
        .arg("--expected")
        .arg(path("expected"))
        .assert()
        .success();
    fs::copy(path("weights.safetensors"), path("w.safetensors")).unwrap();
    verify_fails(&folder, &["none of w.safetensors, weights.safetensors is called", "hint: rename the one"]);
    fs::remove_file(path("weights.safetensors")).unwrap();
    fs::rename(path("w.safetensors"), path("w-Q4_0.gguf")).unwrap();
    verify_fails(
        &folder,
        &["there are no weights in", "GGUF file, which is not read (w-Q4_0.gguf)", "hint: "],
    );
}

#[test]
fn no_tokenizer() {
    let folder = copy_of_llama();
    sparq()
        .args(["generate", "Once", "-m"])
        .arg(folder.path())
        .assert()
        .code(1)
        .stderr(contains("tokenizer.json").and(contains("hint: ")));
}

#[test]
fn truncated_weights() {
    let folder = copy_of_llama();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 4, 0] {
        fs::write(&path, &bytes[..length]).unwrap();
        verify_fails(&folder, &["model.safetensors"]);
    }
}

#[test]
fn config_that_is_no_json_or_lacks_a_field() {
    let folder = copy_of_llama();
    edit_config(folder.path(), "\"hidden_size\": 64,", "");
    verify_fails(&folder, &["config.json", "hidden_size"]);
    fs::write(folder.path().join("config.json"), "{").unwrap();
    verify_fails(&folder, &["config.json` is cut short", "hint: download it again"]);
}

#[test]
fn json_is_read_as_python_reads_it() {
    let folder = copy_of_llama();
    edit_config(
        folder.path(),
        "\"hidden_size\"",
        "\"a\": [NaN, Infinity, -1e999, \"\\ud800\"], \"hidden_size\"",
    );
    sparq().args(["verify", "-m"]).arg(folder.path()).assert().success();
    edit_config(folder.path(), "\"hidden_size\": 64", "\"hidden_size\": NaN");
    verify_fails(&folder, &["config.json", "hidden_size", "\"NaN\""]);
}

#[test]
fn quantised_weights_are_named_and_inspected() {
    let folder = copy_of_llama();
    let scheme = "\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}, \"hidden_size\"";
    edit_config(folder.path(), "\"hidden_size\"", scheme);
    verify_fails(&folder, &["are quantised: gptq, 4 bits", "hint: use the model that was quantised"]);
    let inspect =
        |flags: &[&str]| sparq().args(["inspect", "-m"]).arg(folder.path()).args(flags).assert().success();
    inspect(&[]).stdout(contains(
        "gptq, 4 bits (by `quantization_config` in config.json): such weights are not loaded",
    ));
    inspect(&["--json"]).stdout(contains("\"scheme\": \"gptq\""));
}

#[test]
fn an_index_names_files_of_its_own_folder() {
    let (folder, elsewhere) = (copy_of_llama(), TempDir::new().unwrap());
    let shard = elsewhere.path().join("model.safetensors");
    fs::rename(folder.path().join("model.safetensors"), &shard).unwrap();
    let index = format!("{{\"weight_map\": {{\"model.norm.weight\": {:?}}}}}", shard.to_str().unwrap());
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    verify_fails(&folder, &["model.safetensors.index.json` names `", "no file of its own folder", "hint: "]);
}

#[test]
fn wrong_shapes_name_the_tensor_and_both_shapes() {
    let folder = copy_of_llama();
    edit_config(folder.path(), "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4");
    verify_fails(&folder, &["model.layers.2.self_attn.k_proj.weight", "[32, 64]", "[64, 64]"]);
}

#[test]
fn missing_and_unused_tensors_are_all_named() {
    let folder = copy_of_llama();
    edit_weights(folder.path(), |tensors| {
        let moved = tensors.remove("model.layers.1.mlp.up_proj.weight").unwrap();
        tensors.insert("model.layers.1.mlp.upp_proj.weight".into(), moved);
        tensors.remove("model.norm.weight").unwrap();
    });
    let words = ["layers.1.mlp.up_proj.weight", "layers.1.mlp.upp_proj.weight", "model.norm.weight"];
    verify_fails(&folder, &words);
}

#[test]
fn weights_that_are_not_finite() {
    let folder = copy_of_llama();
    edit_weights(folder.path(), |tensors| {
        let (_, data) = tensors.get_mut("model.layers.0.mlp.down_proj.weight").unwrap();
        data[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    verify_fails(&folder, &["model.layers.0.mlp.down_proj.weight"]);
}

#[test]
fn unknown_architecture() {
    let folder = copy_of_llama();
    edit_config(folder.path(), "LlamaForCausalLM", "MambaForCausalLM");
    verify_fails(&folder, &["MambaForCausalLM", "LlamaForCausalLM"]);
}

#[test]
fn reference_file_that_is_missing_or_of_another_form() {
    let folder = copy_of_llama();
    let expected = folder.path().join("expected.safetensors");
    fs::copy(folder.path().join("model.safetensors"), &expected).unwrap();
    verify_fails(&folder, &["expected.safetensors", "prefill"]);
    fs::remove_file(&expected).unwrap();
    verify_fails(&folder, &["expected.safetensors"]);
}

#[test]
fn rank_above_head_dim() {
    sparq()
        .args(["generate", "Once", "--sparq-rank", "65", "--sparq-top-k", "64"])
        .assert()
        .code(1)
        .stdout("")
        .stderr(contains("rank = 65").and(contains("head_dim = 64")));
}

#[test]
fn ratio_and_sampling_out_of_range() {
    for (flag, code) in [("--compression-ratio=0.5", 2), ("--temperature=-1", 1), ("--top-p=2", 1)] {
        sparq().args(["generate", "Once", flag]).assert().code(code).stderr(contains("error: "));
    }
}

#[test]
fn prompt_longer_than_the_maximum() {
    sparq()
        .args(["generate", "--max-seq-len", "8", "one two three four five six seven eight nine ten"])
        .assert()
        .code(1)
        .stdout("")
        .stderr(contains("8").and(contains("hint: ")).and(contains("--max-seq-len")));
}

#[test]
fn empty_prompt_file_that_is_missing_or_no_text() {
    let folder = TempDir::new().unwrap();
    sparq().args(["generate", "-f", "/no/such/file"]).assert().code(1).stderr(contains("/no/such/file"));
    let file = folder.path().join("latin1.txt");
    fs::write(&file, [b'c', b'a', b'f', 0xe9]).unwrap();
    sparq().args(["generate", "-f"]).arg(&file).assert().code(1).stderr(contains("latin1.txt"));
}

#[test]
fn devices_that_are_not_there() {
    let on = |device: &str| {
        let mut command = sparq();
        command.args(["generate", "Once", "--device", device]);
        command.assert().code(1)
    };
    on("tpu").stderr(contains("device `tpu` is not known").and(contains("hint: ")));
    on("cuda:0").stderr(contains("not compiled in").and(contains("--features")));
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for args in [vec![], vec!["generate"], vec!["generate", "x", "--sparq-rank", "8"], vec!["frobnicate"]] {
        sparq().args(args).assert().code(2);
    }
}

#[test]
fn output_that_cannot_be_written_costs_no_work_and_no_file() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("no/such/folder/text.txt")] {
        sparq()
            .args(["generate", "Once", "-n", "3", "-o"])
            .arg(&path)
            .assert()
            .code(1)
            .stderr(contains("cannot write to"));
    }
    // A run that fails after the output was opened leaves what was there, and nothing beside it.
    let file = folder.path().join("text.txt");
    fs::write(&file, "precious").unwrap();
    sparq()
        .args(["generate", "Once", "--sparq-rank", "65", "--sparq-top-k", "64", "-o"])
        .arg(&file)
        .assert()
        .code(1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let program = assert_cmd::cargo::cargo_bin("sparq");
    let output = Command::new(program).args(["generate", "Once", "-n", "20"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}

#[test]
fn a_closed_pipe_is_success() {
    let program = assert_cmd::cargo::cargo_bin("sparq");
    let mut child = Command::new(program)
        .args(["generate", "Once upon a time", "-n", "400", "--ignore-eos", "--dtype", "f32"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
