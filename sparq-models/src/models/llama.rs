//! Llama 2, 3, 3.1 and 3.2, and models of the same layout.
//!
//! Papers: arXiv 2302.13971, 2307.09288, 2407.21783. Reference:
//! `transformers/models/llama/modeling_llama.py`.

use burn::tensor::Tensor;
use sparq_core::LayerState;

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
};
use crate::{
    checkpoint::Loader,
    config::{ConfigFields, Defaults, Keys, ModelConfig, Refusal, RopeFields, Ropes},
    error::Result,
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, Step},
};

const PARTS: Parts = Parts::LLAMA;

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "mlp_bias",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
    ],
    harmless: &["partial_rotary_factor"],
    refused: Refusal::NO_WINDOWS,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let config = ModelConfig::read(fields, &Defaults::LLAMA)?;
    Ok(ModelConfig {
        ropes: Ropes::read(fields, &config, RopeFields::LLAMA)?,
        attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
        mlp_bias: fields.optional("mlp_bias")?.unwrap_or(false),
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
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            ..AttentionConfig::new(hidden, config.attention_shape())
        };
        let mlp = GatedMlpConfig {
            hidden,
            intermediate: config.intermediate_size,
            activation: config.activation,
            bias: config.mlp_bias,
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
    fn absent_fields_take_their_defaults() {
        let config = read(json!({})).unwrap();
        assert!(!config.tied && !config.attention_bias && !config.mlp_bias);
        let message = read(json!({"rms_norm_eps": -0.5})).unwrap_err().to_string();
        assert!(message.contains("field `rms_norm_eps`: must be 0 or more"), "{message}");
        let message = read(json!({"rope_scaling": 2})).unwrap_err().to_string();
        assert!(message.contains("field `rope_scaling`: expected an object, found 2"), "{message}");
    }
}
