//! Phi-3 mini and medium, Phi-3.5 mini, Phi-4 and Phi-4 mini: Llama with fused projections, LongRoPE
//! and, in some, a sliding window or partly rotated heads.
//!
//! Papers: arXiv 2404.14219, 2412.08905, 2503.01743. Reference:
//! `transformers/models/phi3/modeling_phi3.py`. LongRoPE chooses between its two sets of factors once
//! per run: see [`Rope::at`].

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
};
use crate::{
    checkpoint::Loader,
    config::{ConfigFields, Defaults, Keys, LayerWindows, ModelConfig, Refusal, RopeFields, Ropes},
    error::Result,
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, Projections, Step},
};

const PARTS: Parts = Parts::LLAMA;

const DEFAULTS: Defaults =
    Defaults { max_position_embeddings: 4096, norm_epsilon: ("rms_norm_eps", 1e-5), ..Defaults::LLAMA };

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "head_dim",
        "hidden_act",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "rms_norm_eps",
        "rope_theta",
        "sliding_window",
    ],
    harmless: &["attention_bias", "mlp_bias"],
    refused: Refusal::ONE_KIND_OF_LAYER,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let mut config = ModelConfig::read(fields, &DEFAULTS)?;
    let window = fields.optional_positive("sliding_window")?;
    config.windows = LayerWindows::all(config.num_hidden_layers, window);
    Ok(ModelConfig { ropes: Ropes::read(fields, &config, RopeFields::PHI3)?, ..config })
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
        let attention =
            AttentionConfig { projections: Projections::Fused, ..AttentionConfig::new(hidden, layer) };
        let mlp = GatedMlpConfig {
            hidden,
            intermediate: config.intermediate_size,
            activation: config.activation,
            bias: false,
            fused: true,
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
    fn windows_are_optional_and_the_epsilon_has_a_default() {
        let config = read(json!({"rms_norm_eps": null})).unwrap();
        assert_eq!((config.windows.tokens(), config.norm_epsilon), (None, 1e-5));
        assert_eq!(read(json!({"sliding_window": 2047})).unwrap().windows.window(1), Some(2047));
    }
}
