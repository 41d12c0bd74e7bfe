//! How much of the exact attention a method's selections hold.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, activation::softmax};

use super::{DecodeMethod, Decoded, Method, PromptChunk, parts};
use crate::{
    cache::{CacheExtras, CachedSequence},
    error::Result,
};

/// Runs another method and measures, at each step that leaves positions out, the exact attention mass
/// `Σ softmax(q · Kᵀ / √d)` over the positions that it read. The method's output and its transfers stay
/// as they are; the step reads all keys for the measurement.
#[derive(Debug)]
pub struct MassMeter {
    inner: Box<dyn DecodeMethod>,
    record: RetainedMass,
}

/// What a [`MassMeter`] has measured; clones share it.
#[derive(Debug, Clone, Default)]
pub struct RetainedMass(Arc<Mutex<Sum>>);

#[derive(Debug, Default)]
struct Sum {
    /// Sum over sparse steps, `[batch, heads]`.
    sparse: Option<Tensor<2>>,
    /// Steps that left positions out.
    sparse_steps: u64,
    /// Steps that read everything: their mass is one.
    dense_steps: u64,
}

impl MassMeter {
    /// A meter around `inner` that adds to `record`.
    pub fn new(inner: Box<dyn DecodeMethod>, record: RetainedMass) -> Self {
        Self { inner, record }
    }

    /// A meter around another method that adds to the same record.
    fn around(&self, inner: Box<dyn DecodeMethod>) -> Box<dyn DecodeMethod> {
        Box::new(Self::new(inner, self.record.clone()))
    }
}

impl RetainedMass {
    /// Steps measured, those that read everything included.
    pub fn steps(&self) -> u64 {
        let sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.sparse_steps + sum.dense_steps
    }

    /// Mean over steps and sequences for each query head; one for each of `heads` where no step left
    /// anything out.
    ///
    /// # Errors
    /// [`crate::Error::ReadBack`] where the device fails.
    pub fn per_head(&self, heads: usize) -> Result<Vec<f32>> {
        let sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sparse) = &sum.sparse else {
            return Ok(vec![1.0; heads]);
        };
        let values: Vec<f32> =
            sparse.clone().mean_dim(0).into_data().try_to_vec().map_err(parts::read_back)?;
        let steps = (sum.sparse_steps + sum.dense_steps) as f32;
        Ok(values.into_iter().map(|value| (value + sum.dense_steps as f32) / steps).collect())
    }

    fn add(&self, mass: Option<Tensor<2>>) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mass {
            None => sum.dense_steps += 1,
            Some(mass) => {
                sum.sparse_steps += 1;
                sum.sparse = Some(match sum.sparse.take() {
                    Some(before) => before + mass,
                    None => mass,
                });
            }
        }
    }
}

impl DecodeMethod for MassMeter {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn cache_extras(&self) -> CacheExtras {
        self.inner.cache_extras()
    }

    fn observe_prefill(&mut self, chunk: &PromptChunk<'_>, sequence: &CachedSequence<'_>) -> Result<()> {
        self.inner.observe_prefill(chunk, sequence)
    }

    fn truncate(&mut self, sequence: &CachedSequence<'_>) -> Result<()> {
        self.inner.truncate(sequence)
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(self.around(self.inner.fork()?))
    }

    fn resume(&self, method: &Method) -> Option<Box<dyn DecodeMethod>> {
        Some(self.around(self.inner.resume(method)?))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        let decoded = self.inner.decode(q.clone(), sequence)?;
        let mass = match &decoded.selection {
            None => None,
            Some(selection) => {
                let q = parts::grouped(q, &sequence.layer().shape);
                let weights = parts::at(softmax(parts::exact_logits(q, sequence)?, 3), &selection.positions);
                let filler = selection.positions.clone().lower_elem(0).unsqueeze_dim::<4>(2);
                let kept = weights.clone().mask_fill(filler.expand(weights.dims()), 0.0);
                Some(parts::by_head(kept.sum_dim(3)).squeeze_dim(2))
            }
        };
        self.record.add(mass);
        Ok(decoded)
    }
}
