//! Gemma 2: Gemma with norms on both sides of each sub-layer, soft caps on attention and output
//! logits, a scale of its own for queries, and a sliding window in every other layer.
//!
//! Paper: arXiv 2408.00118. Reference: `transformers/models/gemma2/modeling_gemma2.py`.

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{
    CausalModel,
    decoder::{self, Block, Parts},
    qwen2,
};
use crate::{
    checkpoint::Loader,
    config::{ConfigFields, Defaults, Keys, LayerWindows, ModelConfig, Refusal, Ropes, Sliding},
    error::Result,
    layers::{Attention, AttentionConfig, GatedMlp, GatedMlpConfig, Norm, Step},
};

const PARTS: Parts = Parts::GEMMA;

/// Its fields beside those of all families.
pub(super) const KEYS: Keys = Keys {
    used: &[
        "attention_bias",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "head_dim",
        "hidden_activation",
        "layer_types",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_theta",
        "sliding_window",
    ],
    harmless: &["hidden_act", "mlp_bias", "partial_rotary_factor"],
    refused: Refusal::GEMMA_WINDOWS,
};

/// Reads `config.json`.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<ModelConfig> {
    let mut config = ModelConfig::read(fields, &Defaults::GEMMA)?;
    let window = fields.positive_or("sliding_window", 4096)?;
    config.windows = LayerWindows::read(fields, config.num_hidden_layers, window, Sliding::AllBut(2))?;
    Ok(ModelConfig {
        ropes: Ropes::read(fields, &config, qwen2::ROPE)?,
        attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
        query_pre_attn_scalar: Some(fields.query_scalar_or("query_pre_attn_scalar", 256.0)?),
        attention_softcap: fields.cap_or("attn_logit_softcapping", 50.0)?,
        logit_softcap: fields.cap_or("final_logit_softcapping", 30.0)?,
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
        let layer = AttentionLayer {
            window: config.windows.window(index),
            softcap: config.attention_softcap.map(|cap| cap as f32),
            scale: config.query_scale().map(|scale| scale as f32),
            ..config.attention_shape().into()
        };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
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
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::{fields, with};

    fn read(changes: Value) -> Result<ModelConfig> {
        super::read(&fields(&with(changes)))
    }

    #[test]
    fn absent_fields_take_their_defaults_and_null_switches_off() {
        let config = read(json!({})).unwrap();
        let windows = [0, 1, 2].map(|layer| config.windows.window(layer));
        assert_eq!(windows, [Some(4096), None, Some(4096)]);
        assert_eq!((config.attention_softcap, config.logit_softcap), (Some(50.0), Some(30.0)));
        assert_eq!((config.query_pre_attn_scalar, config.tied), (Some(256.0), true));
        for scalar in [1e-300, 1e300] {
            let error = read(json!({"query_pre_attn_scalar": scalar})).unwrap_err().to_string();
            assert!(
                error.contains("config.json`: field `query_pre_attn_scalar`: f32 cannot hold"),
                "{error}"
            );
        }
        let off = json!({"attn_logit_softcapping": null, "final_logit_softcapping": null});
        let config = read(off).unwrap();
        assert_eq!((config.attention_softcap, config.logit_softcap), (None, None));
    }
}
