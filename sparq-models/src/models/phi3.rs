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
    decoder::{Block, Decoder, lm_head},
};
use crate::{
    checkpoint::{Checkpoint, Loader},
    config::{Activation, ConfigFields, ModelConfig, RopeConfig, RopeFields},
    error::Result,
    layers::{
        Attention, AttentionConfig, Embedding, GatedMlp, GatedMlpConfig, Norm, Projections, Rope, Step,
    },
};

#[derive(Debug)]
struct Config {
    base: ModelConfig,
    rope: RopeConfig,
    rms_norm_eps: f64,
    window: Option<usize>,
    activation: Activation,
    tied: bool,
}

impl Config {
    fn read(fields: &ConfigFields<'_>) -> Result<Self> {
        let base = ModelConfig::from_fields(fields)?;
        Ok(Self {
            rope: RopeConfig::read(fields, base.head_dim, RopeFields::default())?,
            rms_norm_eps: fields.positive_float("rms_norm_eps")?,
            window: fields.optional_positive("sliding_window")?,
            activation: Activation::read(fields, "hidden_act", Activation::Silu)?,
            tied: fields.optional("tie_word_embeddings")?.unwrap_or(false),
            base,
        })
    }
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
    fn load(loader: &mut Loader<'_>, index: usize, config: &Config) -> Self {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let hidden = config.base.hidden_size;
        let layer = AttentionLayer { window: config.window, ..config.base.attention_shape().into() };
        let attention =
            AttentionConfig { projections: Projections::Fused, ..AttentionConfig::new(hidden, layer) };
        let mlp = GatedMlpConfig {
            hidden,
            intermediate: config.base.intermediate_size,
            activation: config.activation,
            bias: false,
            fused: true,
        };
        let mut norm = |part| Norm::rms(loader, &name(part), hidden, config.rms_norm_eps);
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

/// Loads the checkpoint's weights.
pub(super) fn load(checkpoint: &Checkpoint, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
    let config = Config::read(&checkpoint.config_fields()?)?;
    let base = &config.base;
    let embed_tokens = Embedding::load(loader, "model.embed_tokens", base.table());
    let layers = (0..base.num_hidden_layers).map(|i| DecoderLayer::load(loader, i, &config)).collect();
    let norm = Norm::rms(loader, "model.norm", base.hidden_size, config.rms_norm_eps);
    Ok(Box::new(Decoder {
        device: loader.device().clone(),
        ropes: vec![Rope::new(&config.rope)],
        lm_head: lm_head(loader, "lm_head", base, config.tied.then_some(&embed_tokens)),
        embed_tokens,
        layers,
        norm,
        logit_softcap: None,
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
    fn part_of_the_heads_and_windows_are_optional() {
        let config = read(json!({})).unwrap();
        assert_eq!((config.rope.rotary_dim, config.window), (16, None));
        let config = read(json!({"partial_rotary_factor": 0.75, "sliding_window": 2047})).unwrap();
        assert_eq!((config.rope.rotary_dim, config.window), (12, Some(2047)));
    }
}
