//! Llama 2, 3, 3.1 and 3.2, and models of the same layout.
//!
//! Papers: arXiv 2302.13971, 2307.09288, 2407.21783. Reference:
//! `transformers/models/llama/modeling_llama.py`.

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
    layers::{Attention, AttentionConfig, Embedding, GatedMlp, GatedMlpConfig, Norm, Rope, Step},
};

#[derive(Debug)]
struct Config {
    base: ModelConfig,
    rope: RopeConfig,
    rms_norm_eps: f64,
    attention_bias: bool,
    mlp_bias: bool,
    activation: Activation,
    tied: bool,
}

impl Config {
    fn read(fields: &ConfigFields<'_>) -> Result<Self> {
        let base = ModelConfig::from_fields(fields)?;
        Ok(Self {
            rope: RopeConfig::read(fields, base.head_dim, RopeFields::default())?,
            rms_norm_eps: fields.positive_float("rms_norm_eps")?,
            attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
            mlp_bias: fields.optional("mlp_bias")?.unwrap_or(false),
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
        let attention = AttentionConfig {
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
            ..AttentionConfig::new(hidden, config.base.attention_shape())
        };
        let mlp = GatedMlpConfig {
            hidden,
            intermediate: config.base.intermediate_size,
            activation: config.activation,
            bias: config.mlp_bias,
            fused: false,
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
    // Old conversions carry the rotary frequencies, which follow from the configuration.
    loader.ignore(|name| name.ends_with("rotary_emb.inv_freq"));
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
    fn absent_fields_take_their_defaults() {
        let config = read(json!({})).unwrap();
        assert_eq!((config.rope.theta, config.rope.rotary_dim), (10_000.0, 16));
        assert!(!config.tied && !config.attention_bias && !config.mlp_bias);
        let message = read(json!({"rms_norm_eps": 0.0})).unwrap_err().to_string();
        assert!(message.contains("field `rms_norm_eps`: must be above 0"), "{message}");
        let message = read(json!({"rope_scaling": 2})).unwrap_err().to_string();
        assert!(message.contains("field `rope_scaling`: expected an object"), "{message}");
    }
}
