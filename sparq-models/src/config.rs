//! `config.json` and `generation_config.json`, checked field by field.
//!
//! `config.json` is read once, into a [`ModelConfig`]: the loader, the models and `inspect` share it. Each
//! family reads its own fields of it, and lists them ([`Keys`]), so that no field is ignored unknowingly.

mod activation;
mod fields;
mod generation;
mod keys;
#[cfg(test)]
pub(crate) mod record;
mod rope;
mod windows;

use burn::tensor::DType;
use sparq_core::AttentionShape;

pub use activation::Activation;
pub use fields::ConfigFields;
pub(crate) use fields::brief;
pub use generation::GenerationConfig;
pub use keys::{KeyUse, Keys, Refusal};
pub use rope::{RopeConfig, RopeFields, RopeScaling, Ropes};
pub use windows::{LayerWindows, Sliding};

use crate::error::Result;

/// A decoder's sizes, and what is different from family to family.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers. Not compared with the weights yet: keep nothing for each of them.
    pub num_hidden_layers: usize,
    /// Query heads of each layer.
    pub num_attention_heads: usize,
    /// Key and value heads of each layer; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even, because rotary embedding works on pairs.
    pub head_dim: usize,
    /// Longest sequence in tokens that the model was made for.
    pub max_position_embeddings: usize,
    /// What norms add to the mean square or variance.
    pub norm_epsilon: f64,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Rotary embeddings.
    pub ropes: Ropes,
    /// Sliding windows.
    pub windows: LayerWindows,
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether those of the feed-forward layers have.
    pub mlp_bias: bool,
    /// Whether the output projection is the embedding table, unless the weights hold another one.
    pub tied: bool,
    /// `q · k` is divided by the root of this, where it is not by that of `head_dim`.
    pub query_pre_attn_scalar: Option<f64>,
    /// `cap · tanh(score / cap)` on attention scores.
    pub attention_softcap: Option<f64>,
    /// `cap · tanh(logit / cap)` on the output.
    pub logit_softcap: Option<f64>,
    /// Whether the feed-forward layer reads what attention reads, and not what it adds to.
    pub parallel_residual: bool,
}

/// What a family takes where the file says nothing, and what it calls things.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `head_dim`; the hidden size shared out evenly over the heads for `None`.
    pub head_dim: Option<usize>,
    /// Whether `num_key_value_heads` and `head_dim` are fields of the family.
    pub has_groups: bool,
    /// `num_key_value_heads`; as many as query heads for `None`, and where the file says `null`.
    pub key_value_heads: Option<usize>,
    /// `max_position_embeddings`.
    pub max_position_embeddings: usize,
    /// The field of the norms' epsilon, and its value.
    pub norm_epsilon: (&'static str, f64),
    /// The field of the activation, and its value.
    pub activation: (&'static str, Activation),
    /// `tie_word_embeddings`.
    pub tied: bool,
}

impl Defaults {
    /// Llama's.
    pub const LLAMA: Self = Self {
        head_dim: None,
        has_groups: true,
        key_value_heads: None,
        max_position_embeddings: 2048,
        norm_epsilon: ("rms_norm_eps", 1e-6),
        activation: ("hidden_act", Activation::Silu),
        tied: false,
    };

    /// Gemma's.
    pub const GEMMA: Self = Self {
        head_dim: Some(256),
        key_value_heads: Some(4),
        max_position_embeddings: 8192,
        activation: ("hidden_activation", Activation::GeluTanh),
        tied: true,
        ..Self::LLAMA
    };
}

impl ModelConfig {
    /// Reads and checks the fields that all families have. The rest is as in a Llama without biases,
    /// windows and scaling, for the family to replace.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) names the first field that is missing, has the
    /// wrong type, a value that is not supported, or does not fit the others.
    pub fn read(fields: &ConfigFields<'_>, defaults: &Defaults) -> Result<Self> {
        let vocab_size = fields.positive("vocab_size")?;
        let hidden_size = fields.positive("hidden_size")?;
        let intermediate_size = fields.positive("intermediate_size")?;
        let num_hidden_layers = fields.positive("num_hidden_layers")?;
        let num_attention_heads = fields.positive("num_attention_heads")?;
        const GROUPS: &str = "num_key_value_heads";
        let (groups, given_head_dim) = match (defaults.has_groups, defaults.key_value_heads) {
            (true, Some(count)) => {
                (fields.positive_or(GROUPS, count)?, fields.optional_positive("head_dim")?)
            }
            (true, None) => (fields.optional_positive(GROUPS)?, fields.optional_positive("head_dim")?),
            (false, _) => (None, None),
        };
        let num_key_value_heads = groups.unwrap_or(num_attention_heads);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let whose = if fields.has(GROUPS) { "" } else { ", the default of this architecture" };
            return Err(fields.error(format!(
                "num_attention_heads = {num_attention_heads} is not a multiple of \
                 num_key_value_heads = {num_key_value_heads}{whose}"
            )));
        }
        let given_head_dim = given_head_dim.or(defaults.head_dim);
        let head_dim = checked_head_dim(fields, given_head_dim, hidden_size, num_attention_heads)?;
        // Three times as much is the largest tensor of any family.
        check_product(fields, [("vocab_size", vocab_size), ("hidden_size", hidden_size)])?;
        check_product(fields, [("intermediate_size", intermediate_size), ("hidden_size", hidden_size)])?;
        check_product(fields, [("num_attention_heads", num_attention_heads), ("head_dim", head_dim)])?;
        let width = ("num_attention_heads × head_dim", num_attention_heads * head_dim);
        check_product(fields, [width, ("hidden_size", hidden_size)])?;
        let (epsilon, default_epsilon) = defaults.norm_epsilon;
        let (activation, default_activation) = defaults.activation;
        let longest = fields.optional_positive("max_position_embeddings")?;
        Ok(Self {
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings: longest.unwrap_or(defaults.max_position_embeddings),
            norm_epsilon: norm_epsilon(fields, epsilon)?.unwrap_or(default_epsilon),
            activation: Activation::read(fields, activation, default_activation)?,
            ropes: Ropes::All(RopeConfig { theta: 1e4, rotary_dim: head_dim, scaling: RopeScaling::None }),
            windows: LayerWindows::all(num_hidden_layers, None),
            attention_bias: false,
            mlp_bias: false,
            tied: fields.optional("tie_word_embeddings")?.unwrap_or(defaults.tied),
            query_pre_attn_scalar: None,
            attention_softcap: None,
            logit_softcap: None,
            parallel_residual: false,
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

    /// What `q · k` is multiplied by, where that is not `1 / √head_dim`.
    pub fn query_scale(&self) -> Option<f64> {
        self.query_pre_attn_scalar.map(|scalar| scalar.powf(-0.5))
    }
}

/// What norms add: 0 is possible.
fn norm_epsilon(fields: &ConfigFields<'_>, name: &str) -> Result<Option<f64>> {
    match fields.optional::<f64>(name)? {
        Some(0.0) => Ok(Some(0.0)),
        Some(below) if below < 0.0 => Err(fields.bad_field(name, format!("must be 0 or more, is {below}"))),
        epsilon => Ok(epsilon),
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

/// Refuses two axes whose product no tensor can have, with room for what families lay side by side.
fn check_product(fields: &ConfigFields<'_>, axes: [(&str, usize); 2]) -> Result<()> {
    const MOST_ELEMENTS: usize = isize::MAX as usize / 64;
    let [(left, a), (right, b)] = axes;
    match a.checked_mul(b) {
        Some(product) if product <= MOST_ELEMENTS => Ok(()),
        _ => Err(fields.error(format!("{left} = {a} and {right} = {b} are more than any memory holds"))),
    }
}

/// `dtype`, called `torch_dtype` before transformers 5; a name that is no float format counts as absent.
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
