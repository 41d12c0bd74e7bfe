//! Dense decode: every live key and value is read.

use burn::tensor::Tensor;

use super::{DecodeMethod, Decoded, MethodKind, Operation};
use crate::{cache::CachedSequence, error::Result, transfer::Transfer};

/// Exact attention over all live positions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dense;

impl DecodeMethod for Dense {
    fn name(&self) -> &'static str {
        MethodKind::Dense.name()
    }

    fn truncate(&mut self, _sequence: &CachedSequence<'_>) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn operation(&self, _live: usize) -> Option<Operation> {
        Some(Operation::Dense)
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        Operation::Dense.decode(q, sequence)
    }
}

/// What dense attention moves in one step over this sequence: all live keys and values read, one of
/// each written.
pub fn dense_transfer(sequence: &CachedSequence<'_>) -> Transfer {
    let live = sequence.spans().max_len();
    Transfer {
        k: sequence.key_rows(live),
        v: sequence.value_rows(live),
        append: sequence.key_rows(1) + sequence.value_rows(1),
        ..Transfer::default()
    }
}
