//! Gemma 1: Llama with `1 + weight` in its norms, a tanh GELU, scaled embeddings, and heads whose size
//! is not `hidden / heads`.
//!
//! Paper: arXiv 2403.08295. Reference: `transformers/models/gemma/modeling_gemma.py`; the details
//! that ports got wrong: <https://unsloth.ai/blog/gemma-bugs>.

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
    activation: Activation,
    /// On in files that say nothing.
    tied: bool,
}

impl Config {
    fn read(fields: &ConfigFields<'_>) -> Result<Self> {
        causal(fields)?;
        let base = ModelConfig::with_head_dim(fields, 256)?;
        Ok(Self {
            rope: RopeConfig::read(fields, base.head_dim, RopeFields::default())?,
            rms_norm_eps: fields.positive_float("rms_norm_eps")?,
            attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
            activation: activation(fields)?,
            tied: fields.optional("tie_word_embeddings")?.unwrap_or(true),
            base,
        })
    }
}

/// `hidden_activation` where it is given, else `hidden_act`, whose `gelu` in the first releases was
/// meant to be the tanh form (<https://github.com/huggingface/transformers/pull/29402>).
fn activation(fields: &ConfigFields<'_>) -> Result<Activation> {
    let named = Activation::read(fields, "hidden_act", Activation::GeluTanh)?;
    let meant = if named == Activation::Gelu { Activation::GeluTanh } else { named };
    Activation::read(fields, "hidden_activation", meant)
}

/// Refuses the encoders that are made of Gemma's layers.
pub(super) fn causal(fields: &ConfigFields<'_>) -> Result<()> {
    match fields.optional("use_bidirectional_attention")?.unwrap_or(false) {
        true => {
            Err(fields.error("use_bidirectional_attention = true is not supported: text is written causally"))
        }
        false => Ok(()),
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
            bias: false,
            fused: false,
        };
        let mut norm = |part| Norm::rms_one_plus(loader, &name(part), hidden, config.rms_norm_eps);
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
    fn embeddings_are_tied_and_heads_have_256_components_by_default() {
        let config = read(json!({})).unwrap();
        assert!(config.tied);
        assert_eq!(config.base.head_dim, 256);
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

    #[test]
    fn encoders_are_refused() {
        let message = read(json!({"use_bidirectional_attention": true})).unwrap_err().to_string();
        assert!(message.contains("use_bidirectional_attention"), "{message}");
    }
}
