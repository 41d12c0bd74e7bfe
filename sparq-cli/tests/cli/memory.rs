//! Models that do not fit into memory.

use std::{
    fs::{self, File},
    io::Write,
};

use crate::common::sparq;
use tempfile::TempDir;

/// A model of four terabytes, in a file that takes no room.
fn huge() -> TempDir {
    let folder = TempDir::new().unwrap();
    let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1048576,
        "intermediate_size": 1048576, "num_hidden_layers": 1, "num_attention_heads": 8192,
        "num_key_value_heads": 1024, "vocab_size": 2097152, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    let bytes = 1_u64 << 42;
    let header = format!(
        r#"{{"model.embed_tokens.weight":{{"dtype":"BF16","shape":[2097152,1048576],"data_offsets":[0,{bytes}]}}}}"#
    );
    let mut file = File::create(folder.path().join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
    folder
}

#[test]
#[cfg(target_os = "linux")]
fn a_model_that_does_not_fit_is_refused_before_it_is_loaded() {
    let folder = huge();
    for command in
        [&["generate", "Once"][..], &["chat"], &["tune", "--text", "/dev/null", "--target-kl", "1"]]
    {
        let assert = sparq().args(command).arg("-m").arg(folder.path()).write_stdin("").assert().code(1);
        let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        // There is no tokenizer either, which loading would have found first.
        for part in
            ["takes 4.4 TB of memory", "are free", "the longest context that fits is 0 tokens", "hint: "]
        {
            assert!(message.contains(part), "`{part}` in {message}");
        }
    }
}

#[test]
fn benchmarks_that_do_not_fit_are_refused() {
    for (args, part) in [
        (&["bench", "-d", "1000000000", "-p", "0", "-n", "1", "-r", "1"][..], "longest context that fits"),
        (&["bench", "attention", "-s", "1000000000", "-b", "1000"], "attention over 1000 sequences"),
        (&["bench", "linear", "--size", "16000000x16000000"], "a layer of 16000000x16000000"),
        (&["bench", "--shape", "llama-2-7b", "--layers", "60000"], "the model takes"),
    ] {
        let assert = sparq().args(args).assert().code(1);
        let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(message.contains(part) && message.contains("free"), "{message}");
    }
    for flags in [
        &["-d", "18446744073709551615"][..],
        &["-r", "18446744073709551615"],
        &["attention", "--head-dim", "1000000000000000000"],
        &["linear", "--tokens", "0"],
    ] {
        let assert = sparq().arg("bench").args(flags).assert().code(2);
        let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(message.contains(flags[flags.len() - 2]) && message.contains("..="), "{message}");
    }
}
