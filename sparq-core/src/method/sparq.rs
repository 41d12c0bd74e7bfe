//! SparQ attention (paper, section 4, Algorithm 1).

use burn::tensor::Tensor;

use super::{DecodeMethod, Decoded, MethodKind, Operation};
use crate::{
    cache::{CacheExtras, CachedSequence},
    config::{AttentionShape, SparqConfig},
    error::Result,
};

/// SparQ attention with fixed hyper-parameters.
#[derive(Debug, Clone, Copy)]
pub struct Sparq {
    config: SparqConfig,
}

impl Sparq {
    /// SparQ for layers of this shape.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for hyper-parameters out of range.
    pub fn new(config: SparqConfig, shape: &AttentionShape) -> Result<Self> {
        shape.validate()?;
        config.validate(shape.head_dim)?;
        Ok(Self { config })
    }

    /// Everything is read where that is exact (`top_k` covers all `live` positions) or wanted.
    fn operation_at(&self, live: usize) -> Operation {
        match live <= self.config.top_k || live < self.config.dense_below {
            true => Operation::Dense,
            false => Operation::Sparq(self.config),
        }
    }
}

impl DecodeMethod for Sparq {
    fn name(&self) -> &'static str {
        MethodKind::Sparq.name()
    }

    fn cache_extras(&self) -> CacheExtras {
        CacheExtras { k_t: true, kt_format: self.config.kt_format, mean_value: self.config.mean_value }
    }

    fn truncate(&mut self, _sequence: &CachedSequence<'_>) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn operation(&self, live: usize) -> Option<Operation> {
        Some(self.operation_at(live))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        self.operation_at(sequence.spans().max_len()).decode(q, sequence)
    }
}
