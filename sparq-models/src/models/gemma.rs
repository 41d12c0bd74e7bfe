//! Gemma 1: Llama with `1 + weight` in its norms, a tanh GELU, scaled embeddings, and heads whose size
//! is not `hidden / heads`.
//!
//! Paper: arXiv 2403.08295. Reference: `transformers/models/gemma/modeling_gemma.py`; the details
//! that ports got wrong: <https://unsloth.ai/blog/gemma-bugs>.

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
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, Step},
};

const PARTS: Parts = Parts::GEMMA;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Some(16),
    activation: ("hidden_act", Activation::GeluTanh),
    ..Defaults::GEMMA
};

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
    ],
    harmless: &["mlp_bias", "partial_rotary_factor"],
    refused: Refusal::GEMMA,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let config = ModelConfig::read(fields, &DEFAULTS)?;
    Ok(ModelConfig {
        ropes: Ropes::read(fields, &config, RopeFields::LLAMA)?,
        attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
        activation: activation(fields, config.activation)?,
        ..config
    })
}

/// `hidden_activation` where it is given, else `hidden_act`, whose `gelu` in the first releases was
/// meant to be the tanh form (<https://github.com/huggingface/transformers/pull/29402>).
fn activation(fields: &ConfigFields<'_>, named: Activation) -> Result<Activation> {
    let meant = if named == Activation::Gelu { Activation::GeluTanh } else { named };
    Activation::read(fields, "hidden_activation", meant)
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
            bias: false,
            fused: false,
        };
        let mut norm = |part| Norm::rms_one_plus(loader, &name(part), hidden, config.norm_epsilon);
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
    fn embeddings_are_tied_and_heads_have_256_components_by_default() {
        let config = read(json!({})).unwrap();
        assert!(config.tied);
        assert_eq!(config.head_dim, 256);
        assert!(!read(json!({"tie_word_embeddings": false})).unwrap().tied);
    }

    #[test]
    fn gelu_means_its_tanh_form_unless_named_by_the_new_field() {
        let of = |changes| read(changes).unwrap().activation;
        assert_eq!(of(json!({"hidden_act": null})), Activation::GeluTanh);
        assert_eq!(of(json!({"hidden_act": "gelu"})), Activation::GeluTanh);
        let both = json!({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"});
        assert_eq!(of(both), Activation::GeluTanh);
        assert_eq!(of(json!({"hidden_act": "gelu", "hidden_activation": "gelu"})), Activation::Gelu);
    }
}
