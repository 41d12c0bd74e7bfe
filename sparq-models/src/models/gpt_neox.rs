//! GPT-NeoX: Pythia, GPT-NeoX-20B and others. LayerNorm, biases everywhere, partly rotated heads,
//! and attention and feed-forward side by side on the residual stream.
//!
//! Papers: arXiv 2204.06745, 2304.01373. Reference:
//! `transformers/models/gpt_neox/modeling_gpt_neox.py`.

use burn::tensor::Tensor;
use sparq_core::LayerState;

use super::{
    CausalModel,
    decoder::{Block, Decoder, lm_head},
};
use crate::{
    checkpoint::{Checkpoint, Loader},
    config::{Activation, ConfigFields, ModelConfig, RopeConfig, RopeFields},
    error::Result,
    layers::{Attention, AttentionConfig, Embedding, Mlp, MlpConfig, Norm, Projections, Rope, Step},
};

#[derive(Debug)]
struct Config {
    base: ModelConfig,
    rope: RopeConfig,
    layer_norm_eps: f64,
    attention_bias: bool,
    /// Whether the feed-forward layer reads what attention reads, and not what it adds to.
    parallel: bool,
    activation: Activation,
    tied: bool,
}

impl Config {
    fn read(fields: &ConfigFields<'_>) -> Result<Self> {
        let base = ModelConfig::from_fields(fields)?;
        let names = RopeFields {
            theta: "rotary_emb_base",
            partial: "rotary_pct",
            default_partial: 0.25,
            ..RopeFields::default()
        };
        Ok(Self {
            rope: RopeConfig::read(fields, base.head_dim, names)?,
            layer_norm_eps: fields.optional_positive_float("layer_norm_eps")?.unwrap_or(1e-5),
            attention_bias: fields.optional("attention_bias")?.unwrap_or(true),
            parallel: fields.optional("use_parallel_residual")?.unwrap_or(true),
            activation: Activation::read(fields, "hidden_act", Activation::Gelu)?,
            tied: fields.optional("tie_word_embeddings")?.unwrap_or(false),
            base,
        })
    }
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
    fn load(loader: &mut Loader<'_>, index: usize, config: &Config) -> Self {
        let name = |part: &str| format!("gpt_neox.layers.{index}.{part}");
        let hidden = config.base.hidden_size;
        let attention = AttentionConfig {
            projections: Projections::FusedPerHead,
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            ..AttentionConfig::new(hidden, config.base.attention_shape())
        };
        let mlp = MlpConfig {
            hidden,
            intermediate: config.base.intermediate_size,
            activation: config.activation,
            names: ["dense_h_to_4h", "dense_4h_to_h"],
        };
        let mut norm = |part| Norm::layer(loader, &name(part), hidden, config.layer_norm_eps);
        Self {
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            attention: Attention::load(loader, &name("attention"), &attention),
            mlp: Mlp::load(loader, &name("mlp"), &mlp),
            parallel: config.parallel,
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

/// Loads the checkpoint's weights.
pub(super) fn load(checkpoint: &Checkpoint, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
    let config = Config::read(&checkpoint.config_fields()?)?;
    let base = &config.base;
    let embed_tokens = Embedding::load(loader, "gpt_neox.embed_in", base.table());
    let layers = (0..base.num_hidden_layers).map(|i| DecoderLayer::load(loader, i, &config)).collect();
    let norm = Norm::layer(loader, "gpt_neox.final_layer_norm", base.hidden_size, config.layer_norm_eps);
    // Causal masks and rotary frequencies of old files, which follow from the configuration.
    loader.ignore(|name| {
        [".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"]
            .iter()
            .any(|end| name.ends_with(end))
    });
    // transformers 5 may write the output projection under its usual name.
    let head = if loader.contains("lm_head.weight") { "lm_head" } else { "embed_out" };
    Ok(Box::new(Decoder {
        device: loader.device().clone(),
        ropes: vec![Rope::new(&config.rope)],
        lm_head: lm_head(loader, head, base, config.tied.then_some(&embed_tokens)),
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
    fn rotary_fields_have_names_of_their_own() {
        let config = read(json!({})).unwrap();
        assert_eq!((config.rope.theta, config.rope.rotary_dim), (10_000.0, 4));
        assert!(config.parallel && config.attention_bias && !config.tied);
        let old = json!({"rotary_emb_base": 500, "rotary_pct": 0.5, "use_parallel_residual": false});
        let config = read(old).unwrap();
        assert_eq!((config.rope.theta, config.rope.rotary_dim, config.parallel), (500.0, 8, false));
        let new = json!({"rope_parameters": {"rope_theta": 300.0, "partial_rotary_factor": 1.0}});
        let config = read(new).unwrap();
        assert_eq!((config.rope.theta, config.rope.rotary_dim), (300.0, 16));
    }
}
