//! What all layers of one forward pass share.

use std::ops::Range;

use burn::tensor::Tensor;
use sparq_core::{AppendPlan, LayerState};

use super::Rotation;
use crate::error::Result;

/// Whether tokens are attended to densely, as a part of a prompt, or decoded with the method of their sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Dense and causal.
    Prefill,
    /// One token after another, through the sequence's decode method.
    Decode,
}

/// The tokens of one forward pass, those of all its sequences one after another.
#[derive(Debug, Clone)]
pub struct Step {
    /// Sequences that attend together, in the order of the tokens.
    pub parts: Vec<StepPart>,
    /// Rotary embeddings of the tokens, one for each that the model has.
    pub rotations: Vec<Rotation>,
}

/// Sequences of a [`Step`] with the same number of new tokens, in the same phase.
#[derive(Debug, Clone)]
pub struct StepPart {
    /// Prefill or decode.
    pub phase: Phase,
    /// Their tokens in the step.
    pub tokens: Range<usize>,
    /// Where these go.
    pub plan: AppendPlan,
}

impl Step {
    /// Attends with queries, keys and values of all tokens, `[tokens, heads, head_dim]` each; the new keys and
    /// values stay in `state`. Returns `[tokens, heads · head_dim]`.
    ///
    /// # Errors
    /// [`crate::Error::Core`] where the cache is full or does not fit.
    pub fn attend(&self, qkv: [Tensor<3>; 3], state: &mut LayerState) -> Result<Tensor<2>> {
        let outputs = self.parts.iter().map(|part| {
            let Range { start, end } = part.tokens;
            let of_part = |x: &Tensor<3>| match self.parts.len() {
                1 => x.clone(),
                _ => x.clone().narrow(0, start, end - start),
            };
            part.attend(qkv.each_ref().map(of_part), state)
        });
        let mut outputs = outputs.collect::<Result<Vec<_>>>()?;
        Ok(match outputs.len() {
            1 => outputs.swap_remove(0),
            _ => Tensor::cat(outputs, 0),
        })
    }
}

impl StepPart {
    fn attend(&self, qkv: [Tensor<3>; 3], state: &mut LayerState) -> Result<Tensor<2>> {
        let [batch, width] = [self.plan.as_slice().len(), self.plan.width()];
        let [q, k, v] = qkv.map(|x| {
            let [_, heads, head_dim] = x.dims();
            x.reshape([batch, width, heads, head_dim]).swap_dims(1, 2)
        });
        let output = match self.phase {
            Phase::Prefill => state.prefill_planned(q, k, v, &self.plan)?,
            Phase::Decode => state.decode_planned(q, k, v, &self.plan)?.output,
        };
        let [_, heads, _, head_dim] = output.dims();
        Ok(output.swap_dims(1, 2).reshape([batch * width, heads * head_dim]))
    }
}
