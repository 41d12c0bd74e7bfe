//! One sequence of a cache, as a decode method sees it.

use burn::tensor::Tensor;

use super::{LayerCache, memory::Axis};
use crate::{
    config::{AttentionLayer, AttentionShape},
    error::Result,
    k_t::{KtFormat, QuantizedKt},
    ops::AttendParams,
    spans::{Append, AppendPlan, Spans},
    transfer::Part,
};

/// One sequence of a cache: what a decode method sees of it. In all tensors the batch is 1.
#[derive(Debug, Clone, Copy)]
pub struct CachedSequence<'a> {
    cache: &'a LayerCache,
    slot: usize,
}

impl LayerCache {
    /// The sequence of a slot.
    ///
    /// # Errors
    /// [`crate::Error::Slot`] for a slot that is not there.
    pub fn sequence(&self, slot: usize) -> Result<CachedSequence<'_>> {
        self.check_slot(slot)?;
        Ok(CachedSequence { cache: self, slot })
    }
}

impl<'a> CachedSequence<'a> {
    /// The cache that it lies in.
    pub fn cache(&self) -> &'a LayerCache {
        self.cache
    }

    /// Its slot there.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The layer that the cache belongs to.
    pub fn layer(&self) -> AttentionLayer {
        self.cache.config.layer
    }

    /// Bytes of an element of keys and values.
    pub fn element_size(&self) -> usize {
        self.cache.config.dtype.size()
    }

    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.cache.lens[self.slot]
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that fit without growing: the third axis of keys and values.
    pub fn capacity(&self) -> usize {
        self.cache.places[self.slot].capacity
    }

    /// Live positions: those that the next query sees. The layer's window leaves the last ones. The span names
    /// slot 0, as the tensors have one sequence.
    pub fn spans(&self) -> Spans {
        Spans::from_lens(&[self.len()], self.cache.config.layer.window)
    }

    /// What queries of its last `width` tokens need over the tensors of the whole cache, [`LayerCache::k`] and
    /// [`LayerCache::v`]: [`CachedSequence::k`] is a cache of one.
    pub fn attend_params(&self, width: usize) -> AttendParams {
        let take = self.len().min(width);
        let append = Append { slot: self.slot, skip: 0, take, at: self.len() - take };
        self.cache.attend_params_of(&AppendPlan::of(width, std::iter::once(append)))
    }

    /// Keys `[1, kv_heads, capacity, head_dim]`.
    ///
    /// # Errors
    /// [`crate::Error::MissingInCache`] before the first append.
    pub fn k(&self) -> Result<Tensor<4>> {
        Ok(self.cache.of_slot(self.cache.k()?, self.slot, Axis::Rows))
    }

    /// Values `[1, kv_heads, capacity, value_dim]`.
    ///
    /// # Errors
    /// [`crate::Error::MissingInCache`] before the first append.
    pub fn v(&self) -> Result<Tensor<4>> {
        Ok(self.cache.of_slot(self.cache.v()?, self.slot, Axis::Rows))
    }

    /// Transposed keys `[1, kv_heads, head_dim, capacity]`.
    ///
    /// # Errors
    /// As [`LayerCache::k_t`].
    pub fn k_t(&self) -> Result<Tensor<4>> {
        Ok(self.cache.of_slot(self.cache.k_t()?, self.slot, Axis::Columns))
    }

    /// Transposed keys as codes.
    ///
    /// # Errors
    /// As [`LayerCache::quantized_kt`].
    pub fn quantized_kt(&self) -> Result<QuantizedKt> {
        Ok(self.cache.codes_of(self.cache.quantized_kt()?, self.slot))
    }

    /// Sum of all values, `[1, kv_heads, value_dim]`: see [`LayerCache::v_sum`].
    ///
    /// # Errors
    /// As [`LayerCache::v_sum`].
    pub fn v_sum(&self) -> Result<Tensor<3>> {
        Ok(self.cache.v_sum()?.narrow(0, self.slot, 1))
    }

    /// What appending one token writes: `k`, `v` and the copies kept.
    pub fn append_part(&self) -> Part {
        let rows = self.key_rows(1) + self.value_rows(1);
        self.cache
            .kept
            .forms()
            .fold(rows, |part, form| part + self.kt_part(self.key_rows(1).elements as usize, form))
    }

    /// `elements` components of the transposed keys in one form, scales included.
    pub fn kt_part(&self, elements: usize, form: KtFormat) -> Part {
        let mut part = Part::new(elements, 1);
        part.bytes = form.bytes(elements, self.cache.config.dtype) as u64;
        part
    }

    /// What keeping the sum of values up to date reads and writes per token.
    pub fn mean_value_part(&self) -> Part {
        match self.cache.kept.mean_value {
            true => Part::new(2 * self.value_rows(1).elements as usize, size_of::<f32>()),
            false => Part::default(),
        }
    }

    /// So many keys per KV head.
    pub fn key_rows(&self, count: usize) -> Part {
        let AttentionShape { kv_heads, head_dim, .. } = self.cache.config.layer.shape;
        Part::new(count.saturating_mul(kv_heads * head_dim), self.element_size())
    }

    /// So many values per KV head.
    pub fn value_rows(&self, count: usize) -> Part {
        let layer = self.cache.config.layer;
        Part::new(count.saturating_mul(layer.shape.kv_heads * layer.value_dim()), self.element_size())
    }
}
