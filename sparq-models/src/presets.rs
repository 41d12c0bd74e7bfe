//! Configurations of models that people run, for measuring with random weights.

use serde_json::{Value, json};

/// Names of the presets, with the configuration of each in the form of `config.json`.
///
/// Only what follows from the architecture's sizes is stated: enough to build it.
pub fn presets() -> Vec<(&'static str, Value)> {
    vec![
        ("llama-2-7b", llama(4096, 11008, 32, [32, 32], 32000, 4096)),
        ("llama-2-13b", llama(5120, 13824, 40, [40, 40], 32000, 4096)),
        ("llama-3-8b", llama(4096, 14336, 32, [32, 8], 128_256, 131_072)),
        (
            "llama-3.2-1b",
            with(llama(2048, 8192, 16, [32, 8], 128_256, 131_072), json!({"tie_word_embeddings": true})),
        ),
        (
            "mistral-7b",
            with(
                llama(4096, 14336, 32, [32, 8], 32000, 32768),
                json!({
                    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": null
                }),
            ),
        ),
        (
            "gemma-7b",
            with(
                llama(3072, 24576, 28, [16, 16], 256_000, 8192),
                json!({
                    "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "head_dim": 256,
                    "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true
                }),
            ),
        ),
        (
            "qwen2.5-7b",
            with(
                llama(3584, 18944, 28, [28, 4], 152_064, 32768),
                json!({
                    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"
                }),
            ),
        ),
        (
            "pythia-6.9b",
            json!({
                "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_act": "gelu",
                "hidden_size": 4096, "intermediate_size": 16384, "num_attention_heads": 32,
                "num_hidden_layers": 32, "vocab_size": 50432, "max_position_embeddings": 2048,
                "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "use_parallel_residual": true,
                "tie_word_embeddings": false, "torch_dtype": "float16"
            }),
        ),
    ]
}

/// The configuration of the shape `name`.
pub fn preset(name: &str) -> Option<Value> {
    presets().into_iter().find(|(known, _)| *known == name).map(|(_, config)| config)
}

fn llama(
    hidden: usize,
    intermediate: usize,
    layers: usize,
    [heads, kv_heads]: [usize; 2],
    vocab: usize,
    context: usize,
) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": hidden, "intermediate_size": intermediate, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "num_hidden_layers": layers, "vocab_size": vocab,
        "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    })
}

fn with(mut config: Value, changes: Value) -> Value {
    if let (Some(config), Value::Object(changes)) = (config.as_object_mut(), changes) {
        config.extend(changes);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    /// Every shape builds once it is made narrow and short enough for a test.
    #[cfg(feature = "flex")]
    #[test]
    fn every_shape_builds_with_random_weights() {
        use burn::tensor::{DType, Device};
        for (name, config) in presets() {
            let heads = config["num_attention_heads"].as_u64().unwrap();
            let small = with(
                config,
                json!({
                    "num_hidden_layers": 1, "hidden_size": 8 * heads, "intermediate_size": 8, "vocab_size": 16
                }),
            );
            let small = match small.get("head_dim") {
                Some(_) => with(small, json!({"head_dim": 4})),
                None => small,
            };
            let checkpoint = Checkpoint::with_random_weights(name, small);
            let model =
                crate::text_model::load_model(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| ());
            assert_eq!(model.unwrap().vocab_size(), 16, "{name}");
        }
    }

    #[test]
    fn unknown_names_have_no_shape() {
        assert!(preset("llama-2-7b").is_some());
        assert!(preset("gpt-5").is_none());
    }
}
