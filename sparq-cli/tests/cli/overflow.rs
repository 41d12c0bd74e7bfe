//! Models whose numbers overflow: every method ends in an error that says where, and no text.

use std::{fs, path::Path};

use crate::common::sparq;
use predicates::{prelude::*, str::contains};
use tempfile::TempDir;

/// The embedded model, whose weights with these ends of names are multiplied by powers of two.
fn scaled(powers: &[(&str, u16)]) -> TempDir {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let folder = TempDir::new().unwrap();
    for name in ["config.json", "generation_config.json", "tokenizer.json"] {
        fs::copy(demo.join(name), folder.path().join(name)).unwrap();
    }
    let mut bytes = fs::read(demo.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    for (name, tensor) in tensors.as_object().unwrap() {
        let Some((_, power)) = powers.iter().find(|(end, _)| name.ends_with(end)) else { continue };
        assert_eq!(tensor["dtype"], "BF16");
        let at = |i: usize| header + tensor["data_offsets"][i].as_u64().unwrap() as usize;
        for pair in bytes[at(0)..at(1)].chunks_exact_mut(2) {
            let bits = u16::from_le_bytes([pair[0], pair[1]]);
            // To the exponent, where the number is not so small that it has none.
            if bits & 0x7f80 != 0 {
                pair.copy_from_slice(&(bits + (power << 7)).to_le_bytes());
            }
        }
    }
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

const PROMPT: &str = "It was a dark night, and the old house stood alone upon the hill above the sea.";

const METHODS: [&str; 10] = [
    "dense",
    "sparq:r=16:k=8",
    "sparq:r=16:k=8:kt=int8",
    "sparq:r=16:k=8:topk=buckets",
    "sparq-mass:r=16:k=8",
    "local:k=8",
    "h2o:k=8",
    "quest:k=8:page=4",
    "double-sparsity:r=16:k=8",
    "exact-topk:k=8",
];

fn fails(folder: &TempDir, method: &str, dtype: &str, words: &[&str]) {
    let mut command = sparq();
    command.args(["generate", PROMPT, "-n", "4", "--dtype", dtype, "--attention", method]);
    let assert = command.arg("-m").arg(folder.path()).assert().code(1);
    let message = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    for word in words {
        assert!(message.contains(word), "{method} in {dtype}: `{word}` in: {message}");
    }
}

#[test]
fn scores_that_overflow_end_a_run_in_every_method() {
    // Queries and keys of 10²⁰: their products are beyond f32.
    let folder = scaled(&[("q_proj.weight", 66), ("k_proj.weight", 66)]);
    for method in METHODS {
        let words = [
            "error: the model's numbers overflowed: layer 0 gives numbers that are not finite at token 0",
            "hint: f32 has overflowed",
        ];
        fails(&folder, method, "f32", &words);
    }
}

#[test]
fn keys_and_values_beyond_f16_are_named() {
    // The weights themselves fit.
    let keys = scaled(&[("layers.2.self_attn.k_proj.weight", 14), ("layers.2.input_layernorm.weight", 6)]);
    let values = scaled(&[("layers.0.self_attn.v_proj.weight", 14), ("layers.0.input_layernorm.weight", 6)]);
    for method in METHODS {
        let words =
            ["the keys of layer 2 do not fit into f16 at token ", "hint: f16 ends at 65504", "--dtype f32"];
        fails(&keys, method, "f16", &words);
        fails(&values, method, "f16", &["the values of layer 0 do not fit into f16 at token "]);
    }
    // In f32 they fit.
    sparq()
        .args(["generate", PROMPT, "-n", "4", "--dtype", "f32", "--attention", "dense", "-m"])
        .arg(keys.path())
        .assert()
        .success()
        .stderr(contains("overflow").not());
}
