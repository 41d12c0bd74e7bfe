//! Gemma 3, text: Gemma 2 with norms over each head's queries and keys in place of the attention soft
//! cap, and five windowed layers with a rotary base of their own to one that sees everything.
//!
//! Paper: arXiv 2503.19786. Reference: `transformers/models/gemma3/modeling_gemma3.py`, which reads
//! `attn_logit_softcapping` and does not apply it; neither does this.

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
};
use crate::{
    checkpoint::Loader,
    config::{ConfigFields, Defaults, Keys, LayerWindows, ModelConfig, Refusal, Ropes, Sliding},
    error::Result,
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, QkNorm, Step},
};

const PARTS: Parts = Parts::GEMMA;

const DEFAULTS: Defaults = Defaults { max_position_embeddings: 131_072, ..Defaults::GEMMA };

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "final_logit_softcapping",
        "head_dim",
        "hidden_activation",
        "layer_types",
        "num_key_value_heads",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_local_base_freq",
        "rope_theta",
        "sliding_window",
        "sliding_window_pattern",
    ],
    harmless: &[
        "_sliding_window_pattern",
        "attn_logit_softcapping",
        "hidden_act",
        "mlp_bias",
        "original_max_position_embeddings",
        "partial_rotary_factor",
    ],
    refused: Refusal::GEMMA_WINDOWS,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let mut config = ModelConfig::read(fields, &DEFAULTS)?;
    let window = fields.positive_or("sliding_window", 4096)?;
    let pattern = fields.optional_positive("sliding_window_pattern")?.unwrap_or(6);
    config.windows = LayerWindows::read(fields, config.num_hidden_layers, window, Sliding::AllBut(pattern))?;
    Ok(ModelConfig {
        ropes: Ropes::read_by_layer_type(fields, &config)?,
        attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
        query_pre_attn_scalar: Some(fields.query_scalar_or("query_pre_attn_scalar", 256.0)?),
        logit_softcap: fields.optional_cap("final_logit_softcapping")?,
        ..config
    })
}

/// Attention and gated feed-forward, each between two norms and added to the residual stream.
#[derive(Debug)]
struct DecoderLayer {
    input_layernorm: Norm,
    self_attn: Attention,
    post_attention_layernorm: Norm,
    pre_feedforward_layernorm: Norm,
    mlp: GatedMlp,
    post_feedforward_layernorm: Norm,
}

impl DecoderLayer {
    fn load(loader: &mut Loader<'_>, index: usize, config: &ModelConfig) -> Self {
        let name = |part: &str| PARTS.of_layer(index, part);
        let hidden = config.hidden_size;
        let window = config.windows.window(index);
        let scale = config.query_scale().map(|scale| scale as f32);
        let layer = AttentionLayer { window, scale, ..config.attention_shape().into() };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            qk_norm: Some(QkNorm { epsilon: config.norm_epsilon, one_plus: true }),
            rope: config.ropes.index(config.windows.is_sliding(index)),
            ..AttentionConfig::new(hidden, layer)
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
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm"),
            post_feedforward_layernorm: norm("post_feedforward_layernorm"),
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
        let x = x + self.post_attention_layernorm.forward(y);
        let y = self.mlp.forward(self.pre_feedforward_layernorm.forward(x.clone()));
        Ok(x + self.post_feedforward_layernorm.forward(y))
    }
}

/// Loads the weights.
pub(super) fn load(config: ModelConfig, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
    decoder::load(config, loader, &PARTS, DecoderLayer::load)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::tests::{fields, with};

    #[test]
    fn every_sixth_layer_sees_everything_unless_another_pattern_is_named() {
        let windows = |changes| {
            let config = super::read(&fields(&with(changes))).unwrap();
            (0..12).map(|layer| config.windows.window(layer).is_some()).collect::<Vec<_>>()
        };
        let pattern = |every| (1..=12).map(|layer| layer % every != 0).collect::<Vec<_>>();
        assert_eq!(windows(json!({})), pattern(6));
        assert_eq!(windows(json!({"sliding_window_pattern": 2})), pattern(2));
    }
}
