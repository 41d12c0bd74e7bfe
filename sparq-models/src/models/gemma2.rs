//! Gemma 2: Gemma with norms on both sides of each sub-layer, soft caps on attention and output
//! logits, a scale of its own for queries, and a sliding window in every other layer.
//!
//! Paper: arXiv 2408.00118. Reference: `transformers/models/gemma2/modeling_gemma2.py`.

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
    layers::{Attention, AttentionConfig, Embedding, GatedMlp, GatedMlpConfig, Norm, Rope, Step},
};

#[derive(Debug)]
struct Config {
    base: ModelConfig,
    rope: RopeConfig,
    rms_norm_eps: f64,
    attention_bias: bool,
    query_pre_attn_scalar: f64,
    attn_logit_softcapping: Option<f64>,
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
        let window = fields.positive_or("sliding_window", 4096)?;
        Ok(Self {
            rope: RopeConfig::read(fields, base.head_dim, RopeFields::default())?,
            rms_norm_eps: fields.positive_float("rms_norm_eps")?,
            attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
            query_pre_attn_scalar: fields.optional_positive_float("query_pre_attn_scalar")?.unwrap_or(256.0),
            attn_logit_softcapping: fields.positive_float_or("attn_logit_softcapping", 50.0)?,
            final_logit_softcapping: fields.positive_float_or("final_logit_softcapping", 30.0)?,
            windows: layer_windows(fields, base.num_hidden_layers, window, |i| i % 2 == 0)?,
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
        let layer = AttentionLayer {
            shape: config.base.attention_shape(),
            window: config.windows[index],
            softcap: config.attn_logit_softcapping.map(|cap| cap as f32),
        };
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            query_scale: Some(config.query_pre_attn_scalar.powf(-0.5)),
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
        ropes: vec![Rope::new(&config.rope)],
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
    use crate::config::tests::{fields, with};

    fn read(changes: Value) -> Result<Config> {
        Config::read(&fields(&with(changes)))
    }

    #[test]
    fn absent_fields_take_their_defaults_and_null_switches_off() {
        let config = read(json!({})).unwrap();
        assert_eq!(config.windows, [Some(4096), None, Some(4096)]);
        assert_eq!((config.attn_logit_softcapping, config.final_logit_softcapping), (Some(50.0), Some(30.0)));
        assert_eq!((config.query_pre_attn_scalar, config.tied), (256.0, true));
        let off = json!({"attn_logit_softcapping": null, "final_logit_softcapping": null});
        let config = read(off).unwrap();
        assert_eq!((config.attn_logit_softcapping, config.final_logit_softcapping), (None, None));
    }
}
