//! `config.json` and `generation_config.json`, checked field by field.
//!
//! [`ModelConfig`] holds what all families have. Each family reads its further fields through the
//! same [`ConfigFields`], so that its errors also name file and field.

mod activation;
mod fields;
mod generation;
mod rope;
mod windows;

use burn::tensor::DType;
use sparq_core::AttentionShape;

pub use activation::Activation;
pub use fields::ConfigFields;
pub use generation::GenerationConfig;
pub use rope::{RopeConfig, RopeFields, RopeScaling};
pub use windows::layer_windows;

use crate::error::Result;

/// What all decoders have in common: sizes.
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
    /// Number format that the model was trained or saved in, where the file says so.
    pub dtype: Option<DType>,
}

impl ModelConfig {
    /// Reads and checks the fields of `config.json`. Without `head_dim` the hidden size is shared out
    /// evenly over the heads.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) names the first field that is missing, has the
    /// wrong type, a value that is not supported, or does not fit the others.
    pub fn from_fields(fields: &ConfigFields<'_>) -> Result<Self> {
        Self::read(fields, None)
    }

    /// Like [`ModelConfig::from_fields`], for families with a default `head_dim` of their own.
    ///
    /// # Errors
    ///
    /// As [`ModelConfig::from_fields`].
    pub fn with_head_dim(fields: &ConfigFields<'_>, default: usize) -> Result<Self> {
        Self::read(fields, Some(default))
    }

    fn read(fields: &ConfigFields<'_>, default_head_dim: Option<usize>) -> Result<Self> {
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
        let head_dim = fields.optional_positive("head_dim")?.or(default_head_dim);
        Ok(Self {
            vocab_size: fields.positive("vocab_size")?,
            hidden_size,
            intermediate_size: fields.positive("intermediate_size")?,
            num_hidden_layers: fields.positive("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim: checked_head_dim(fields, head_dim, hidden_size, num_attention_heads)?,
            max_position_embeddings: fields.positive("max_position_embeddings")?,
            dtype: stored_dtype(fields)?,
        })
    }

    /// Heads and sizes of each attention layer.
    pub fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    /// `[vocab, hidden]`: the embedding table, and the output projection.
    pub fn table(&self) -> [usize; 2] {
        [self.vocab_size, self.hidden_size]
    }
}

/// Width of one head: as given, or the hidden size shared out evenly.
fn checked_head_dim(
    fields: &ConfigFields<'_>,
    given: Option<usize>,
    hidden_size: usize,
    heads: usize,
) -> Result<usize> {
    let head_dim = match given {
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

/// `torch_dtype`, called `dtype` since transformers 5; a name that is no float format counts as absent.
pub(crate) fn stored_dtype(fields: &ConfigFields<'_>) -> Result<Option<DType>> {
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

#[cfg(test)]
pub(crate) mod tests;
