//! Mistral 7B, Nemo and Small (text): Llama with a sliding window in every layer.
//!
//! Paper: arXiv 2310.06825. Reference: `transformers/models/mistral/modeling_mistral.py`.

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
};
use crate::{
    checkpoint::Loader,
    config::{ConfigFields, Defaults, Keys, LayerWindows, ModelConfig, Refusal, RopeFields, Ropes, Sliding},
    error::Result,
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, Step},
};

const PARTS: Parts = Parts::LLAMA;

const DEFAULTS: Defaults =
    Defaults { key_value_heads: Some(8), max_position_embeddings: 131_072, ..Defaults::LLAMA };

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "head_dim",
        "hidden_act",
        "layer_types",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "sliding_window",
    ],
    harmless: &["attention_bias", "mlp_bias", "partial_rotary_factor"],
    refused: Refusal::WINDOWS,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let mut config = ModelConfig::read(fields, &DEFAULTS)?;
    // `null` from version 0.2 on, which switches it off.
    let window = fields.positive_or("sliding_window", 4096)?;
    let rule = if window.is_some() { Sliding::All } else { Sliding::None };
    config.windows = LayerWindows::read(fields, config.num_hidden_layers, window, rule)?;
    // With `layer_types`, even as `null`, it is a Ministral in transformers.
    let names = RopeFields { has_layer_types: fields.has("layer_types"), ..RopeFields::LLAMA };
    Ok(ModelConfig { ropes: Ropes::read(fields, &config, names)?, ..config })
}

/// Pre-norm attention and gated feed-forward, each added to the residual stream.
#[derive(Debug)]
struct DecoderLayer {
    input_layernorm: Norm,
    self_attn: Attention,
    post_attention_layernorm: Norm,
    mlp: GatedMlp,
}

impl DecoderLayer {
    fn load(loader: &mut Loader<'_>, index: usize, config: &ModelConfig) -> Self {
        let name = |part: &str| PARTS.of_layer(index, part);
        let hidden = config.hidden_size;
        let layer =
            AttentionLayer { window: config.windows.window(index), ..config.attention_shape().into() };
        let mlp = GatedMlpConfig {
            hidden,
            intermediate: config.intermediate_size,
            activation: config.activation,
            bias: false,
            fused: false,
        };
        let mut norm = |part| Norm::rms(loader, &name(part), hidden, config.norm_epsilon);
        Self {
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            self_attn: Attention::load(loader, &name("self_attn"), &AttentionConfig::new(hidden, layer)),
            mlp: GatedMlp::load(loader, &name("mlp"), &mlp),
        }
    }
}

impl Block for DecoderLayer {
    fn attention(&self) -> &Attention {
        &self.self_attn
    }

    fn forward(&self, x: Tensor<2>, state: &mut LayerState, step: &Step) -> Result<Tensor<2>> {
        let y = self.self_attn.forward(self.input_layernorm.forward(x.clone()), state, step)?;
        let x = x + y;
        let y = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
        Ok(x + y)
    }
}

/// Loads the weights.
pub(super) fn load(config: ModelConfig, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
    decoder::load(config, loader, &PARTS, DecoderLayer::load)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::{fields, with};

    fn read(changes: Value) -> Result<ModelConfig> {
        super::read(&fields(&with(changes)))
    }

    #[test]
    fn null_switches_the_window_off() {
        let window = |changes| read(changes).unwrap().windows.window(0);
        assert_eq!(window(json!({})), Some(4096));
        assert_eq!(window(json!({"sliding_window": 16})), Some(16));
        assert_eq!(window(json!({"sliding_window": null})), None);
    }

    #[test]
    fn layers_of_a_ministral_that_see_everything_have_no_window() {
        let types = json!(["full_attention", "sliding_attention", "full_attention"]);
        let config = read(json!({"sliding_window": 16, "layer_types": types})).unwrap();
        assert_eq!([0, 1, 2].map(|layer| config.windows.window(layer)), [None, Some(16), None]);
        let config = read(json!({"sliding_window": 16, "layer_types": null})).unwrap();
        assert_eq!(config.windows.window(2), Some(16));
        // It takes no section by type of layer, where a Mistral ignores it.
        let section = json!({"sliding_attention": {"rope_theta": 300.0}});
        assert!(read(json!({"rope_parameters": section})).is_ok());
        let message = read(json!({"rope_parameters": section, "layer_types": null})).unwrap_err().to_string();
        assert!(message.contains("`rope_parameters.sliding_attention`"), "{message}");
    }

    #[test]
    fn nemo_names_its_head_size() {
        assert_eq!(read(json!({"head_dim": 32})).unwrap().head_dim, 32);
    }
}
