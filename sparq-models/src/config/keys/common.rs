//! The fields of all families, and of several.

use super::{Neutral, Refusal};

/// Fields that every family reads.
pub(super) const USED: &[&str] = &[
    "architectures",
    "dtype",
    "eos_token_id",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "rope_parameters",
    "rope_scaling",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
];

/// Fields of training, of other tasks and of other programs, which no family's logits follow from.
pub(super) const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "embd_pdrop",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "torchscript",
    "transformers_version",
    "use_cache",
];

/// Fields that transformers reads for every family.
pub(super) const REFUSED: &[Refusal] = &[
    Refusal {
        name: "is_causal",
        neutral: Neutral::TrueAlone,
        reason: "tokens would attend to those behind them, and text is written from front to back",
    },
    Refusal {
        name: "is_encoder_decoder",
        neutral: Neutral::False,
        reason: "only models with a decoder alone are built",
    },
    Refusal {
        name: "per_layer_config",
        neutral: Neutral::Empty,
        reason: "all layers have the same sizes here",
    },
    Refusal {
        name: "kv_sharing_modes",
        neutral: Neutral::Empty,
        reason: "every layer has keys and values of its own here",
    },
    // Where the weights are opened.
    Refusal { name: "quantization_config", neutral: Neutral::Elsewhere, reason: "" },
];

const LAYER_TYPES: Refusal = Refusal {
    name: "layer_types",
    neutral: Neutral::FullAttention,
    reason: "all layers of this architecture are of one kind",
};

const SLIDING_WINDOW: Refusal = Refusal {
    name: "sliding_window",
    neutral: Neutral::WholeContext,
    reason: "this architecture has no sliding window; set it to null if the model was trained without one",
};

const ATTENTION_CHUNK_SIZE: Refusal = Refusal {
    name: "attention_chunk_size",
    neutral: Neutral::WholeContext,
    reason: "attention in chunks is not built",
};

const USE_BIDIRECTIONAL_ATTENTION: Refusal = Refusal {
    name: "use_bidirectional_attention",
    neutral: Neutral::False,
    reason: "an encoder, and text is written from front to back",
};

const HEAD_DIM: Refusal = Refusal {
    name: "head_dim",
    // Where the family is read: what it would be anyway is fine.
    neutral: Neutral::Elsewhere,
    reason: "",
};

impl Refusal {
    /// For families whose layers all see everything.
    pub(crate) const NO_WINDOWS: &'static [Self] = &[LAYER_TYPES, SLIDING_WINDOW, ATTENTION_CHUNK_SIZE];

    /// For families whose layers have one window, or none.
    pub(crate) const ONE_KIND_OF_LAYER: &'static [Self] = &[LAYER_TYPES, ATTENTION_CHUNK_SIZE];

    /// For families with windows of their own.
    pub(crate) const WINDOWS: &'static [Self] = &[];

    /// For Gemma.
    pub(crate) const GEMMA: &'static [Self] =
        &[LAYER_TYPES, SLIDING_WINDOW, ATTENTION_CHUNK_SIZE, USE_BIDIRECTIONAL_ATTENTION];

    /// For Gemma 2 and 3.
    pub(crate) const GEMMA_WINDOWS: &'static [Self] = &[USE_BIDIRECTIONAL_ATTENTION];

    /// For GPT-NeoX.
    pub(crate) const GPT_NEOX: &'static [Self] =
        &[LAYER_TYPES, SLIDING_WINDOW, ATTENTION_CHUNK_SIZE, HEAD_DIM];
}
