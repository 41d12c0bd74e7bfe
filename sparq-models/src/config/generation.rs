//! `generation_config.json`: how the authors of a model want its texts to be sampled and to end.

use super::ConfigFields;
use crate::error::Result;

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
