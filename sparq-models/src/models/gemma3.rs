//! Gemma 3, text: Gemma 2 with norms over each head's queries and keys in place of the attention soft
//! cap, and five windowed layers with a rotary base of their own to one that sees everything.
//!
//! Paper: arXiv 2503.19786. Reference: `transformers/models/gemma3/modeling_gemma3.py`, which reads
//! `attn_logit_softcapping` and does not apply it; neither does this.

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{
    CausalModel,
    decoder::{Block, Decoder, lm_head},
};
use crate::{
    checkpoint::{Checkpoint, Loader},
    config::{Activation, ConfigFields, ModelConfig, RopeConfig, RopeFields, layer_windows},
    error::Result,
    layers::{Attention, AttentionConfig, Embedding, GatedMlp, GatedMlpConfig, Norm, QkNorm, Rope, Step},
};

#[derive(Debug)]
struct Config {
    base: ModelConfig,
    /// Of the layers without a window, then of those with one.
    ropes: [RopeConfig; 2],
    rms_norm_eps: f64,
    attention_bias: bool,
    query_pre_attn_scalar: f64,
    final_logit_softcapping: Option<f64>,
    /// Of each layer.
    windows: Vec<Option<usize>>,
    activation: Activation,
    tied: bool,
}

impl Config {
    fn read(fields: &ConfigFields<'_>) -> Result<Self> {
        super::gemma::causal(fields)?;
        let base = ModelConfig::with_head_dim(fields, 256)?;
        let full = RopeFields {
            layer_type: Some("full_attention"),
            default_theta: 1_000_000.0,
            ..RopeFields::default()
        };
        let sliding = RopeFields {
            layer_type: Some("sliding_attention"),
            theta: "rope_local_base_freq",
            scaled: false,
            ..RopeFields::default()
        };
        let rope = |names| RopeConfig::read(fields, base.head_dim, names);
        let window = fields.positive_or("sliding_window", 4096)?;
        let pattern = fields.optional_positive("sliding_window_pattern")?.unwrap_or(6);
        let is_sliding = |i: usize| !(i + 1).is_multiple_of(pattern);
        Ok(Self {
            ropes: [rope(full)?, rope(sliding)?],
            rms_norm_eps: fields.positive_float("rms_norm_eps")?,
            attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
            query_pre_attn_scalar: fields.optional_positive_float("query_pre_attn_scalar")?.unwrap_or(256.0),
            final_logit_softcapping: fields.optional_positive_float("final_logit_softcapping")?,
            windows: layer_windows(fields, base.num_hidden_layers, window, is_sliding)?,
            activation: Activation::read(fields, "hidden_activation", Activation::GeluTanh)?,
            tied: fields.optional("tie_word_embeddings")?.unwrap_or(true),
            base,
        })
    }
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
    fn load(loader: &mut Loader<'_>, index: usize, config: &Config) -> Self {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let hidden = config.base.hidden_size;
        let window = config.windows[index];
        let layer = AttentionLayer { window, ..config.base.attention_shape().into() };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            qk_norm: Some(QkNorm { epsilon: config.rms_norm_eps, one_plus: true }),
            query_scale: Some(config.query_pre_attn_scalar.powf(-0.5)),
            rope: usize::from(window.is_some()),
            ..AttentionConfig::new(hidden, layer)
        };
        let mlp = GatedMlpConfig {
            hidden,
            intermediate: config.base.intermediate_size,
            activation: config.activation,
            bias: false,
            fused: false,
        };
        let mut norm = |part| Norm::rms_one_plus(loader, &name(part), hidden, config.rms_norm_eps);
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

/// Loads the checkpoint's weights.
pub(super) fn load(checkpoint: &Checkpoint, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
    let config = Config::read(&checkpoint.config_fields()?)?;
    let base = &config.base;
    let embed_tokens =
        Embedding::load(loader, "model.embed_tokens", base.table()).scaled((base.hidden_size as f64).sqrt());
    let layers = (0..base.num_hidden_layers).map(|i| DecoderLayer::load(loader, i, &config)).collect();
    let norm = Norm::rms_one_plus(loader, "model.norm", base.hidden_size, config.rms_norm_eps);
    Ok(Box::new(Decoder {
        device: loader.device().clone(),
        ropes: config.ropes.iter().map(Rope::new).collect(),
        lm_head: lm_head(loader, "lm_head", base, config.tied.then_some(&embed_tokens)),
        embed_tokens,
        layers,
        norm,
        logit_softcap: config.final_logit_softcapping,
        config: config.base,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{
        RopeScaling,
        tests::{fields, with},
    };

    fn read(changes: Value) -> Result<Config> {
        Config::read(&fields(&with(changes)))
    }

    #[test]
    fn two_rotary_bases_in_the_spelling_of_transformers_4() {
        let config = read(json!({
            "rope_theta": 500_000.0, "rope_local_base_freq": 20_000.0, "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 16
        }))
        .unwrap();
        let [full, sliding] = config.ropes;
        assert_eq!((full.theta, full.scaling), (500_000.0, RopeScaling::Linear { factor: 8.0 }));
        assert_eq!((sliding.theta, sliding.scaling), (20_000.0, RopeScaling::None));
        assert_eq!(config.windows, [Some(16), None, Some(16)]);
    }

    #[test]
    fn two_rotary_bases_in_the_spelling_of_transformers_5() {
        let config = read(json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 200.0}
        }}))
        .unwrap();
        let [full, sliding] = config.ropes;
        assert_eq!((full.theta, full.scaling), (300.0, RopeScaling::Linear { factor: 2.0 }));
        assert_eq!((sliding.theta, sliding.scaling), (200.0, RopeScaling::None));
    }

    #[test]
    fn rotary_bases_have_defaults() {
        let [full, sliding] = read(json!({})).unwrap().ropes;
        assert_eq!((full.theta, sliding.theta), (1_000_000.0, 10_000.0));
    }
}
