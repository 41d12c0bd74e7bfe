//! Sizes that a configuration states, under the names that the architectures give them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sparq_core::AttentionShape;

use crate::config::{ConfigFields, ModelConfig};

/// Sizes of a decoder. What `config.json` does not state, or states as something else than a count,
/// is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Decoder layers.
    pub layers: Option<usize>,
    /// Width of the residual stream.
    pub hidden_size: Option<usize>,
    /// Query heads of each layer.
    pub heads: Option<usize>,
    /// Key and value heads of each layer: the query heads, where nothing else is stated.
    pub kv_heads: Option<usize>,
    /// Components per head: the hidden size shared out, where nothing else is stated.
    pub head_dim: Option<usize>,
    /// Entries of the vocabulary.
    pub vocab_size: Option<usize>,
    /// Longest sequence that the model was made for.
    pub context_tokens: Option<usize>,
    /// Tokens that the layers with a sliding window attend to, where some have one.
    pub sliding_window_tokens: Option<usize>,
}

impl Sizes {
    /// Those of a model that can be loaded.
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self {
            layers: Some(config.num_hidden_layers),
            hidden_size: Some(config.hidden_size),
            heads: Some(config.num_attention_heads),
            kv_heads: Some(config.num_key_value_heads),
            head_dim: Some(config.head_dim),
            vocab_size: Some(config.vocab_size),
            context_tokens: Some(config.max_position_embeddings),
            sliding_window_tokens: config.windows.tokens(),
        }
    }

    /// Those that any configuration states.
    pub(super) fn read(fields: &ConfigFields<'_>) -> Self {
        let count = |names: &[&str]| find::<usize>(fields, names).filter(|&count| count > 0);
        let hidden_size = count(&["hidden_size", "n_embd", "d_model"]);
        let heads = count(&["num_attention_heads", "n_head", "n_heads"]);
        let shared_out = || hidden_size.zip(heads).map(|(hidden, heads)| hidden / heads);
        // Qwen's configurations state a window that they do not use.
        let has_window = find::<bool>(fields, &["use_sliding_window"]) != Some(false);
        Self {
            layers: count(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"]),
            hidden_size,
            heads,
            kv_heads: count(&["num_key_value_heads", "num_kv_heads"]).or(heads),
            head_dim: count(&["head_dim"]).or_else(shared_out),
            vocab_size: count(&["vocab_size"]),
            context_tokens: count(&["max_position_embeddings", "n_positions", "max_seq_len", "seq_length"]),
            sliding_window_tokens: count(&["sliding_window"]).filter(|_| has_window),
        }
    }

    /// Heads and sizes of each attention layer, where all are stated.
    pub fn attention_shape(&self) -> Option<AttentionShape> {
        Some(AttentionShape { heads: self.heads?, kv_heads: self.kv_heads?, head_dim: self.head_dim? })
    }
}

/// The first of these fields that is there and has the type. Models for text and images keep those
/// of the text in `text_config`.
pub(super) fn find<T: DeserializeOwned>(fields: &ConfigFields<'_>, names: &[&str]) -> Option<T> {
    let text = fields.section("text_config").ok().flatten();
    let sections = [Some(fields), text.as_ref()];
    let value =
        |section: &ConfigFields<'_>| names.iter().find_map(|name| section.optional::<T>(name).ok().flatten());
    sections.into_iter().flatten().find_map(value)
}
