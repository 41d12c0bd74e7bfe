//! Qwen 2 and 2.5: Llama with biases on queries, keys and values.
//!
//! Papers: arXiv 2407.10671, 2412.15115. Reference: `transformers/models/qwen2/modeling_qwen2.py`.

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
    Defaults { key_value_heads: Some(32), max_position_embeddings: 32_768, ..Defaults::LLAMA };

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "head_dim",
        "hidden_act",
        "layer_types",
        "max_window_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "sliding_window",
        "use_sliding_window",
    ],
    harmless: &["attention_bias", "mlp_bias", "partial_rotary_factor"],
    refused: Refusal::WINDOWS,
};

/// Rotary embeddings of families that list types of layers and give all of them one.
pub(super) const ROPE: RopeFields = RopeFields { has_layer_types: true, ..RopeFields::LLAMA };

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let mut config = ModelConfig::read(fields, &DEFAULTS)?;
    config.windows = windows(fields, config.num_hidden_layers)?;
    Ok(ModelConfig { ropes: Ropes::read(fields, &config, ROPE)?, ..config })
}

/// Windows of Qwen's layers: where `use_sliding_window` is on, from layer `max_window_layers` on.
pub(super) fn windows(fields: &ConfigFields<'_>, layers: usize) -> Result<LayerWindows> {
    let window = match fields.optional("use_sliding_window")?.unwrap_or(false) {
        true => fields.positive_or("sliding_window", 4096)?,
        false => None,
    };
    // The count may be 0, which puts a window on every layer.
    let first: usize = fields.optional("max_window_layers")?.unwrap_or(28);
    let rule = if window.is_some() { Sliding::From(first) } else { Sliding::None };
    LayerWindows::read(fields, layers, window, rule)
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
        let shape = config.attention_shape();
        let layer = AttentionLayer { window: config.windows.window(index), ..shape.into() };
        let attention = AttentionConfig { qkv_bias: true, ..AttentionConfig::new(hidden, layer) };
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
            self_attn: Attention::load(loader, &name("self_attn"), &attention),
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
    fn windows_are_off_unless_asked_for() {
        let windows = |changes| {
            let config = read(changes).unwrap();
            [0, 1, 2].map(|layer| config.windows.window(layer))
        };
        assert_eq!(windows(json!({"sliding_window": 8})), [None; 3]);
        let on = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2});
        assert_eq!(windows(on), [None, None, Some(8)]);
        let types = json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2});
        assert_eq!(windows(types), [Some(8), None, None]);
    }
}
