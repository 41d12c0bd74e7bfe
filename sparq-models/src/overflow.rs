//! Where a model's numbers stopped to be finite: looked for in what the caches hold, once logits are not.
//!
//! No step checks its numbers. A cache stores what does not fit its dtype as NaN, scores that overflow
//! make the output of their step NaN, and NaN reaches the logits; these are read anyway.

use std::fmt;

use burn::tensor::{DType, Tensor};
use sparq_core::{CachedSequence, LayerCache};

use crate::{
    error::{Error, Result},
    state::ModelState,
};

/// The first place where a number is not finite, as far as the caches show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// What is not finite.
    pub part: OverflowPart,
    /// Number format of the caches.
    pub dtype: DType,
}

/// What is not finite. Layers and tokens count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverflowPart {
    /// Some components of a token's key.
    Keys {
        /// The layer.
        layer: usize,
        /// The token.
        token: usize,
    },
    /// Some components of a token's value.
    Values {
        /// The layer.
        layer: usize,
        /// The token.
        token: usize,
    },
    /// What a layer hands on: its attention scores, or its MLP.
    Layer {
        /// The layer.
        layer: usize,
        /// The token.
        token: usize,
    },
    /// What goes into the first layer.
    Embedding {
        /// The token.
        token: usize,
    },
    /// What comes behind the keys and values of the last layer.
    Logits,
}

impl Overflow {
    /// The next step for the user.
    pub fn hint(&self) -> String {
        let source = "the weights or config.json (rope, scales, norms) are not those that the model was trained \
                      with";
        let stored = matches!(self.part, OverflowPart::Keys { .. } | OverflowPart::Values { .. });
        match (self.dtype, stored) {
            (DType::F16, true) => "f16 ends at 65504: try bf16 or f32".into(),
            (DType::F16, false) => format!("try f32; where that overflows as well, {source}"),
            // Everything but what is stored is computed in f32.
            (_, false) => format!("f32 has overflowed: {source}"),
            (dtype, true) => format!("{} has overflowed: {source}", name(dtype)),
        }
    }
}

/// A number format as the command line names it.
fn name(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = name(self.dtype);
        match self.part {
            OverflowPart::Keys { layer, token } => {
                write!(f, "the keys of layer {layer} do not fit into {dtype} at token {token}")
            }
            OverflowPart::Values { layer, token } => {
                write!(f, "the values of layer {layer} do not fit into {dtype} at token {token}")
            }
            OverflowPart::Layer { layer, token } => write!(
                f,
                "layer {layer} gives numbers that are not finite at token {token}: its attention scores or \
                 its MLP overflowed"
            ),
            OverflowPart::Embedding { token } => {
                write!(f, "the input of layer 0 is not finite at token {token}")
            }
            OverflowPart::Logits => {
                write!(f, "the scores of the last layer, its MLP or the output projection overflowed")
            }
        }
    }
}

/// The error for logits that are not finite, after the step that gave them.
pub(crate) fn error(state: &ModelState) -> Error {
    match locate(state) {
        Ok(overflow) => Error::Overflow(overflow),
        Err(error) => error,
    }
}

/// The first token of the first layer whose key or value is not finite.
fn locate(state: &ModelState) -> Result<Overflow> {
    let dtype = state.layers().first().map_or(DType::F32, |layer| layer.cache().config().dtype);
    for (layer, state) in state.layers().iter().enumerate() {
        if let Some(part) = in_layer(layer, state.cache())? {
            return Ok(Overflow { part, dtype });
        }
    }
    Ok(Overflow { part: OverflowPart::Logits, dtype })
}

fn in_layer(layer: usize, cache: &LayerCache) -> Result<Option<OverflowPart>> {
    for slot in (0..cache.lens().len()).filter(|&slot| cache.lens()[slot] > 0) {
        let found = in_sequence(layer, &cache.sequence(slot)?)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn in_sequence(layer: usize, sequence: &CachedSequence<'_>) -> Result<Option<OverflowPart>> {
    let (len, k, v) = (sequence.len(), sequence.k()?, sequence.v()?);
    let (in_k, in_v) = (first(&k, len)?, first(&v, len)?);
    let Some(token) = in_k.into_iter().chain(in_v).min() else { return Ok(None) };
    // What is not finite on its way into a layer makes all of the key and all of the value NaN.
    Ok(Some(match (is_whole(&k, token)? && is_whole(&v, token)?, layer) {
        (true, 0) => OverflowPart::Embedding { token },
        (true, _) => OverflowPart::Layer { layer: layer - 1, token },
        (false, _) if in_k == Some(token) => OverflowPart::Keys { layer, token },
        (false, _) => OverflowPart::Values { layer, token },
    }))
}

/// The first position of `x: [1, kv_heads, capacity, head_dim]` with a component that is not finite.
fn first(x: &Tensor<4>, len: usize) -> Result<Option<usize>> {
    let rows = x.clone().narrow(2, 0, len).cast(DType::F32);
    // What is not finite times zero is not a number.
    let sums = read(rows.mul_scalar(0.0).sum_dim(3).sum_dim(1))?;
    Ok((0..len).find(|position| sums.iter().skip(*position).step_by(len).any(|sum| sum.is_nan())))
}

/// Whether no component at `position` is finite.
fn is_whole(x: &Tensor<4>, position: usize) -> Result<bool> {
    Ok(read(x.clone().narrow(2, position, 1).cast(DType::F32))?.iter().all(|x| !x.is_finite()))
}

fn read(x: Tensor<4>) -> Result<Vec<f32>> {
    x.into_data().try_to_vec().map_err(|error| Error::ReadBack { message: format!("{error:?}") })
}

#[cfg(test)]
mod tests;
