//! Qwen 3 (dense): Llama with a norm over each head's queries and keys.
//!
//! Paper: arXiv 2505.09388. Reference: `transformers/models/qwen3/modeling_qwen3.py`.

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
    qwen2,
};
use crate::{
    checkpoint::Loader,
    config::{ConfigFields, Defaults, Keys, ModelConfig, Refusal, Ropes},
    error::Result,
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, QkNorm, Step},
};

const PARTS: Parts = Parts::LLAMA;

const DEFAULTS: Defaults = Defaults {
    head_dim: Some(128),
    key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    ..Defaults::LLAMA
};

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
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
    harmless: &["mlp_bias", "partial_rotary_factor"],
    refused: Refusal::WINDOWS,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let mut config = ModelConfig::read(fields, &DEFAULTS)?;
    config.windows = qwen2::windows(fields, config.num_hidden_layers)?;
    Ok(ModelConfig {
        ropes: Ropes::read(fields, &config, qwen2::ROPE)?,
        attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
        ..config
    })
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
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            qk_norm: Some(QkNorm { epsilon: config.norm_epsilon, one_plus: false }),
            ..AttentionConfig::new(hidden, layer)
        };
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
    fn heads_have_128_components_by_default() {
        let config = read(json!({})).unwrap();
        assert_eq!(config.head_dim, 128);
        assert!(!config.attention_bias && config.windows.tokens().is_none());
    }
}
