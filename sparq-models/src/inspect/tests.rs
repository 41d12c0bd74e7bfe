use std::path::{Path, PathBuf};

use burn::tensor::DType;
use serde_json::json;
use sparq_core::KtFormat;

use super::*;
use crate::{config::ConfigFields, weight::WeightFormat};

fn fixture(name: &str) -> Inspection {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/families");
    Inspection::new(&Checkpoint::open(models.join(name)).unwrap()).unwrap()
}

/// What `read` says of a `config.json`.
fn with_config<T>(config: serde_json::Value, read: impl Fn(&ConfigFields<'_>) -> T) -> T {
    read(&ConfigFields::new(&PathBuf::from("config.json"), &config).unwrap())
}

#[test]
fn sizes_and_memory_of_a_grouped_model() {
    let llama = fixture("llama3_1");
    assert!(llama.supported);
    let sizes = &llama.sizes;
    assert_eq!((sizes.layers, sizes.hidden_size, sizes.context_tokens), (Some(3), Some(32), Some(256)));
    let shape = sizes.attention_shape().unwrap();
    assert_eq!((shape.heads, shape.kv_heads, shape.head_dim), (4, 2, 16));
    // q and o are 64 × 32, k and v 32 × 32, the three projections of the MLP 64 × 32.
    let layer = 2 * 64 * 32 + 2 * 32 * 32 + 3 * 64 * 32 + 2 * 32;
    assert_eq!(llama.parameters, 3 * layer + 2 * 96 * 32 + 32);
    assert_eq!(llama.stored_bytes, 4 * llama.parameters);

    let memory = llama.memory(DType::BF16, 100);
    assert_eq!(memory.weight_bytes, 2 * llama.parameters + 2 * 7 * 32, "norms stay in f32");
    let (dense, sparq) = (memory.dense.unwrap(), memory.sparq.unwrap());
    let vector = 3 * 2 * 16;
    assert_eq!((dense.kv_bytes_per_token, dense.running_sum_bytes), (2 * vector * 2, 0));
    assert_eq!((sparq.kv_bytes_per_token, sparq.running_sum_bytes), (3 * vector * 2, vector * 4));
    assert_eq!(sparq.cache_bytes, 100 * 3 * vector * 2 + vector * 4);
    assert_eq!(sparq.total_bytes, memory.weight_bytes + sparq.cache_bytes);
}

#[test]
fn memory_in_eight_bits() {
    let llama = fixture("llama3_1");
    let formats = Formats { weights: WeightFormat::Int8, k_t: KtFormat::Int8, ..DType::F16.into() };
    let memory = llama.memory(formats, 128);
    let linear = 3 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 64 * 32) + 96 * 32;
    // q and two projections of the MLP have 64 outputs, k, v, o and the third 32, the output layer 96.
    let outputs = 3 * (3 * 64 + 4 * 32) + 96;
    assert_eq!((llama.linear_parameters, llama.linear_outputs), (linear, outputs));
    assert_eq!(memory.weight_bytes, linear + 4 * outputs + 2 * 96 * 32 + 4 * 7 * 32);
    let vector = 3 * 2 * 16;
    assert_eq!(memory.sparq.unwrap().kv_bytes_per_token, 2 * vector * 2 + vector + vector * 4 / 64);
    assert_eq!(memory.dense.unwrap().kv_bytes_per_token, 2 * vector * 2);
}

#[test]
fn what_training_did_not_make_does_not_count() {
    // The same model, once with the frequencies that old conversions carry.
    assert_eq!(fixture("llama2").parameters, fixture("llama2_sharded").parameters);
    assert_eq!(fixture("llama2").tensors, fixture("llama2_sharded").tensors + 3);
    let (neox, parallel) = (fixture("gpt_neox_serial"), fixture("gpt_neox"));
    assert_eq!((neox.parameters, neox.stored.len()), (parallel.parameters, 2));
}

#[test]
fn stored_formats_are_told_apart() {
    let stored = fixture("llama2_bf16").stored;
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].dtype.as_str(), stored[0].bytes), ("bf16", 2 * stored[0].elements));
}

#[test]
fn rotary_embeddings_are_those_that_run() {
    let rope = fixture("llama3_1").rope;
    assert_eq!((rope[0].layers.as_str(), rope[0].scaling.as_str()), ("all", "llama3"));
    assert_eq!((rope[0].theta, rope[0].factor), (Some(10000.0), Some(8.0)));
    assert_eq!((rope[0].original_context_tokens, rope[0].rotary_dim), (Some(32), Some(16)));
    assert_eq!(fixture("phi3_long").rope[0].original_context_tokens, Some(32));
    assert_eq!(fixture("gpt_neox").rope[0].theta, Some(10000.0));
    let two = fixture("gemma3_text").rope;
    assert_eq!([&two[0].layers, &two[1].layers], ["full_attention", "sliding_attention"]);
    assert_eq!((two[0].scaling.as_str(), two[0].factor, two[1].theta), ("linear", Some(4.0), Some(200.0)));
}

/// A folder of the fixture with other fields in its configuration.
fn changed(name: &str, changes: serde_json::Value) -> Inspection {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/families");
    let folder = tempfile::tempdir().unwrap();
    let weights = "model.safetensors";
    std::fs::copy(models.join(name).join(weights), folder.path().join(weights)).unwrap();
    let config = std::fs::read(models.join(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Inspection::new(&Checkpoint::open(folder.path()).unwrap()).unwrap()
}

#[test]
fn a_configuration_that_is_refused_is_described_with_the_reason() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let refused = changed("llama_linear", json!({"rope_scaling": yarn}));
    assert!(!refused.supported);
    assert!(refused.problem.unwrap().contains("rope scaling of type \"yarn\" is not supported"));
    assert_eq!((refused.rope[0].scaling.as_str(), refused.rope[0].factor), ("yarn", Some(4.0)));
    assert_eq!(refused.sizes.layers, Some(3));
    let runs = changed("llama_linear", json!({"rope_parameters": {"rope_theta": 5.0}}));
    assert_eq!((runs.supported, runs.problem), (true, None));
    // `rope_scaling` of the fixture wins.
    assert_eq!((runs.rope[0].scaling.as_str(), runs.rope[0].theta), ("linear", Some(10000.0)));
}

#[test]
fn an_output_layer_counts_unless_it_is_a_copy() {
    let (tied, apart) = (json!({"tie_word_embeddings": true}), json!({"tie_word_embeddings": false}));
    // The file holds another one than the embedding.
    let different = changed("llama_linear", tied).parameters;
    assert_eq!(different, changed("llama_linear", apart).parameters);
}

#[test]
fn unknown_architectures_are_described_as_far_as_they_say() {
    let gpt2 = json!({"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024});
    let sizes = with_config(gpt2, Sizes::read);
    assert_eq!((sizes.layers, sizes.head_dim, sizes.kv_heads), (Some(12), Some(64), Some(12)));
    assert_eq!((sizes.context_tokens, sizes.vocab_size), (Some(1024), None));
    let nested = json!({"text_config": {"hidden_size": 64, "num_attention_heads": [1, 2]}});
    let sizes = with_config(nested, Sizes::read);
    assert_eq!((sizes.hidden_size, sizes.heads, sizes.attention_shape()), (Some(64), None, None));
    assert_eq!(with_config(json!({"n_embd": 8}), rope::read), []);
    let layers = json!({"full_attention": {"rope_theta": 3.0}, "sliding_attention": {"rope_theta": 2.0}});
    let ropes = with_config(json!({"text_config": {"rope_parameters": layers}}), rope::read);
    assert_eq!(ropes.iter().map(|rope| rope.theta).collect::<Vec<_>>(), [Some(3.0), Some(2.0)]);
}

#[test]
fn a_window_counts_where_it_is_used() {
    assert_eq!(fixture("mistral_window").sizes.sliding_window_tokens, Some(24));
    assert_eq!(fixture("mistral_nemo").sizes.sliding_window_tokens, None);
    assert_eq!(fixture("qwen2").sizes.sliding_window_tokens, None);
}

#[test]
fn memory_of_an_absurd_context_does_not_overflow() {
    let memory = fixture("llama2").memory(DType::F32, u64::MAX);
    assert_eq!(memory.sparq.unwrap().total_bytes, u64::MAX);
}
