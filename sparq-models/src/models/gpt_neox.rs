//! GPT-NeoX: Pythia, GPT-NeoX-20B and others. LayerNorm, biases everywhere, partly rotated heads,
//! and attention and feed-forward side by side on the residual stream.
//!
//! Papers: arXiv 2204.06745, 2304.01373. Reference:
//! `transformers/models/gpt_neox/modeling_gpt_neox.py`.

use burn::tensor::Tensor;
use sparq_core::LayerState;

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
};
use crate::{
    checkpoint::Loader,
    config::{Activation, ConfigFields, Defaults, Keys, ModelConfig, Refusal, RopeFields, Ropes},
    error::Result,
    layers::{Attention, AttentionConfig, Mlp, MlpConfig, Norm, Projections, Step},
};

const PARTS: Parts = Parts {
    embedding: "gpt_neox.embed_in",
    layers: "gpt_neox.layers",
    norm: "gpt_neox.final_layer_norm",
    // transformers 5 may write the output projection under its usual name.
    heads: &["lm_head", "embed_out"],
    load_norm: Norm::layer,
    scaled_embeddings: false,
};

const DEFAULTS: Defaults = Defaults {
    has_groups: false,
    norm_epsilon: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", Activation::Gelu),
    ..Defaults::LLAMA
};

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "hidden_act",
        "layer_norm_eps",
        "original_max_position_embeddings",
        "rotary_emb_base",
        "rotary_pct",
        "use_parallel_residual",
    ],
    harmless: &["hidden_dropout", "mlp_bias", "num_key_value_heads", "partial_rotary_factor", "rope_theta"],
    refused: Refusal::GPT_NEOX,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let config = ModelConfig::read(fields, &DEFAULTS)?;
    // transformers takes it for the rotary embedding alone.
    if fields.optional_positive("head_dim")?.is_some_and(|head_dim| head_dim != config.head_dim) {
        let expected = config.head_dim;
        return Err(
            fields.bad_field("head_dim", format!("heads of this architecture have {expected} components"))
        );
    }
    Ok(ModelConfig {
        ropes: Ropes::read(fields, &config, RopeFields::GPT_NEOX)?,
        attention_bias: fields.optional("attention_bias")?.unwrap_or(true),
        parallel_residual: fields.optional("use_parallel_residual")?.unwrap_or(true),
        ..config
    })
}

/// Attention and feed-forward, each behind a norm of its own.
#[derive(Debug)]
struct DecoderLayer {
    input_layernorm: Norm,
    attention: Attention,
    post_attention_layernorm: Norm,
    mlp: Mlp,
    parallel: bool,
}

impl DecoderLayer {
    fn load(loader: &mut Loader<'_>, index: usize, config: &ModelConfig) -> Self {
        let name = |part: &str| PARTS.of_layer(index, part);
        let hidden = config.hidden_size;
        let attention = AttentionConfig {
            projections: Projections::FusedPerHead,
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            ..AttentionConfig::new(hidden, config.attention_shape())
        };
        let mlp = MlpConfig {
            hidden,
            intermediate: config.intermediate_size,
            activation: config.activation,
            names: ["dense_h_to_4h", "dense_4h_to_h"],
        };
        let mut norm = |part| Norm::layer(loader, &name(part), hidden, config.norm_epsilon);
        Self {
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            attention: Attention::load(loader, &name("attention"), &attention),
            mlp: Mlp::load(loader, &name("mlp"), &mlp),
            parallel: config.parallel_residual,
        }
    }
}

impl Block for DecoderLayer {
    fn attention(&self) -> &Attention {
        &self.attention
    }

    fn forward(&self, x: Tensor<2>, state: &mut LayerState, step: &Step) -> Result<Tensor<2>> {
        let y = self.attention.forward(self.input_layernorm.forward(x.clone()), state, step)?;
        let sum = x.clone() + y;
        let input = if self.parallel { x } else { sum.clone() };
        Ok(sum + self.mlp.forward(self.post_attention_layernorm.forward(input)))
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
    fn absent_fields_take_their_defaults_and_heads_have_no_groups() {
        let config = read(json!({"num_key_value_heads": 3, "hidden_act": null})).unwrap();
        assert!(config.parallel_residual && config.attention_bias && !config.tied);
        assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
        assert_eq!((config.norm_epsilon, config.activation), (1e-5, Activation::Gelu));
        assert!(!read(json!({"use_parallel_residual": false})).unwrap().parallel_residual);
        assert!(read(json!({"head_dim": 16})).is_ok());
        let message = read(json!({"head_dim": 8})).unwrap_err().to_string();
        assert!(
            message.contains("field `head_dim`: heads of this architecture have 16 components"),
            "{message}"
        );
    }
}
