//! `config.json` and `generation_config.json`, checked field by field.
//!
//! [`ModelConfig`] covers the decoders that are built like Llama. A family with other fields reads
//! them through the same [`ConfigFields`], so that its errors also name file and field.

mod fields;
mod rope;

use burn::tensor::DType;
use sparq_core::AttentionShape;

pub use fields::ConfigFields;
pub use rope::RopeScaling;

use crate::error::Result;

/// Sizes and constants of a decoder that is built like Llama.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads of each layer.
    pub num_attention_heads: usize,
    /// Key and value heads of each layer; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even, because rotary embedding works on pairs.
    pub head_dim: usize,
    /// Longest sequence in tokens that the model was made for.
    pub max_position_embeddings: usize,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for longer sequences.
    pub rope_scaling: RopeScaling,
    /// Whether the output layer shares the embedding's weights.
    pub tie_word_embeddings: bool,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Activation of the feed-forward block.
    pub hidden_act: Activation,
    /// Number format that the model was trained or saved in, where the file says so.
    pub dtype: Option<DType>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; often one, sometimes several, perhaps none.
    pub eos_token_ids: Vec<u32>,
}

/// Activation function of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
}

impl ModelConfig {
    /// Reads and checks the fields of `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) names the first field that is missing, has the
    /// wrong type, a value that is not supported, or does not fit the others.
    pub fn from_fields(fields: &ConfigFields<'_>) -> Result<Self> {
        let hidden_size = fields.positive("hidden_size")?;
        let num_attention_heads = fields.positive("num_attention_heads")?;
        let num_key_value_heads =
            fields.optional_positive("num_key_value_heads")?.unwrap_or(num_attention_heads);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            return Err(fields.error(format!(
                "num_attention_heads = {num_attention_heads} is not a multiple of \
                 num_key_value_heads = {num_key_value_heads}"
            )));
        }
        let (rope_theta, rope_scaling) = rope::read(fields)?;
        Ok(Self {
            vocab_size: fields.positive("vocab_size")?,
            hidden_size,
            intermediate_size: fields.positive("intermediate_size")?,
            num_hidden_layers: fields.positive("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim: head_dim(fields, hidden_size, num_attention_heads)?,
            max_position_embeddings: fields.positive("max_position_embeddings")?,
            rms_norm_eps: fields.positive_float("rms_norm_eps")?,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: fields.optional("tie_word_embeddings")?.unwrap_or(false),
            attention_bias: fields.optional("attention_bias")?.unwrap_or(false),
            mlp_bias: fields.optional("mlp_bias")?.unwrap_or(false),
            hidden_act: activation(fields, "hidden_act")?,
            dtype: stored_dtype(fields)?,
            bos_token_id: fields.optional("bos_token_id")?,
            eos_token_ids: fields.ids("eos_token_id")?,
        })
    }
}

impl ModelConfig {
    /// Heads and sizes of each attention layer.
    pub fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }
}

/// Width of one head: `head_dim`, or the hidden size shared out evenly.
fn head_dim(fields: &ConfigFields<'_>, hidden_size: usize, heads: usize) -> Result<usize> {
    let head_dim = match fields.optional_positive("head_dim")? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(fields.error(format!(
                "hidden_size = {hidden_size} is not a multiple of num_attention_heads = {heads}, \
                 and there is no head_dim"
            )));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(fields.error(format!("head_dim = {head_dim} is odd, rotary embedding needs an even one")));
    }
    Ok(head_dim)
}

fn activation(fields: &ConfigFields<'_>, name: &str) -> Result<Activation> {
    let value: String = fields.required(name)?;
    match value.as_str() {
        "silu" => Ok(Activation::Silu),
        _ => Err(fields.error(format!("{name} = \"{value}\" is not supported (supported: silu)"))),
    }
}

/// `torch_dtype`, called `dtype` since transformers 5; a name that is no float format counts as absent.
fn stored_dtype(fields: &ConfigFields<'_>) -> Result<Option<DType>> {
    let name: Option<String> = match fields.optional("dtype")? {
        Some(name) => Some(name),
        None => fields.optional("torch_dtype")?,
    };
    Ok(name.and_then(|name| match name.trim_start_matches("torch.") {
        "float32" => Some(DType::F32),
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        _ => None,
    }))
}

/// What `generation_config.json` says about ending and sampling; every field may be absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Whether the authors recommend sampling over the likeliest token.
    pub do_sample: Option<bool>,
    /// Recommended temperature.
    pub temperature: Option<f32>,
    /// Recommended number of likeliest tokens to sample from.
    pub top_k: Option<usize>,
    /// Recommended probability mass to sample from.
    pub top_p: Option<f32>,
    /// Recommended penalty on tokens that occurred before.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads the fields of `generation_config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) names the first field of the wrong type.
    pub fn from_fields(fields: &ConfigFields<'_>) -> Result<Self> {
        Ok(Self {
            eos_token_ids: fields.ids("eos_token_id")?,
            bos_token_id: fields.optional("bos_token_id")?,
            do_sample: fields.optional("do_sample")?,
            temperature: fields.optional("temperature")?,
            top_k: fields.optional("top_k")?,
            top_p: fields.optional("top_p")?,
            repetition_penalty: fields.optional("repetition_penalty")?,
        })
    }

    /// Every token that ends a text: those named here and `config_ids`, ascending, each once.
    pub fn eos_ids(&self, config_ids: &[u32]) -> Vec<u32> {
        let mut ids = [self.eos_token_ids.as_slice(), config_ids].concat();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

#[cfg(test)]
mod tests;
