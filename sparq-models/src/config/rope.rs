//! Rotary embedding: base, width and scaling.
//!
//! A file states it in `rope_parameters` (transformers 5), in `rope_scaling` and fields beside it
//! (transformers 4), or in both. What wins where is that of `modeling_rope_utils.py` and
//! `configuration_*.py` in transformers 5.

mod read;

use super::fields::ConfigFields;
use crate::error::Result;

pub use read::RopeFields;

/// Rotary embedding of a model, or of one type of its layers.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Components of a head that are rotated, the first ones.
    pub rotary_dim: usize,
    /// How the frequencies are stretched for longer sequences.
    pub scaling: RopeScaling,
}

/// The rotary embeddings of a model's layers.
#[derive(Debug, Clone, PartialEq)]
pub enum Ropes {
    /// One for all layers.
    All(RopeConfig),
    /// One for the layers that see everything, one for those with a window (Gemma 3). `None` for a type
    /// that no layer has.
    ByLayerType {
        /// `full_attention`.
        full: Option<RopeConfig>,
        /// `sliding_attention`.
        sliding: Option<RopeConfig>,
    },
}

/// How rotary frequencies are stretched for sequences longer than those of the first training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every position is divided by `factor`.
    Linear {
        /// How many times longer the sequences become.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided by `factor`, high ones stay, those between are blended.
    Llama3 {
        /// How many times longer the sequences become.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` stay as they are.
        high_freq_factor: f64,
        /// Longest sequence in tokens of the first training.
        original_max_position_embeddings: usize,
    },
    /// LongRoPE (Phi-3): every frequency is divided by a factor of its own.
    LongRope {
        /// Divisors for texts of up to `original_max_position_embeddings` tokens.
        short_factor: Vec<f64>,
        /// Divisors for longer texts.
        long_factor: Vec<f64>,
        /// What sines and cosines are multiplied by, in short and long texts.
        attention_factor: f64,
        /// Longest sequence in tokens of the first training.
        original_max_position_embeddings: usize,
    },
}

impl Ropes {
    /// Each rotary embedding with the layers that use it: `all`, or the type of layer.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &RopeConfig)> {
        let parts = match self {
            Self::All(rope) => [("all", Some(rope)), ("", None)],
            Self::ByLayerType { full, sliding } => {
                [("full_attention", full.as_ref()), ("sliding_attention", sliding.as_ref())]
            }
        };
        parts.into_iter().filter_map(|(layers, rope)| Some((layers, rope?)))
    }

    /// Which of [`Ropes::iter`] a layer uses.
    pub fn index(&self, is_sliding: bool) -> usize {
        match self {
            Self::ByLayerType { full: Some(_), .. } => usize::from(is_sliding),
            _ => 0,
        }
    }
}

impl RopeScaling {
    /// The name of the type: that of `rope_type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "default",
            Self::Linear { .. } => "linear",
            Self::Llama3 { .. } => "llama3",
            Self::LongRope { .. } => "longrope",
        }
    }

    /// How many times longer the sequences become, where one number says it.
    pub fn factor(&self) -> Option<f64> {
        match self {
            Self::Linear { factor } | Self::Llama3 { factor, .. } => Some(*factor),
            Self::None | Self::LongRope { .. } => None,
        }
    }

    /// Longest sequence in tokens of the first training, where it counts.
    pub fn original_max_position_embeddings(&self) -> Option<usize> {
        match self {
            Self::Llama3 { original_max_position_embeddings, .. }
            | Self::LongRope { original_max_position_embeddings, .. } => {
                Some(*original_max_position_embeddings)
            }
            Self::None | Self::Linear { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
