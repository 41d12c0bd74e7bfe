//! The memory of a cache: how it grows, what it takes, what a step writes.

use burn::tensor::{DType, Tensor};

use super::{BLOCK, LayerCache};
use crate::{
    config::AttentionShape,
    error::{Error, Result},
    index::{self, QuantizedIndex},
    transfer::Part,
};

impl LayerCache {
    /// Makes room for `len` tokens per sequence, so that the appends up to there do not grow.
    ///
    /// # Errors
    /// [`Error::CacheFull`] past the maximum, [`Error::TooLarge`] where the device holds no tensor of
    /// that size.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        if len > self.config.max_len {
            return Err(Error::CacheFull { needed: len, max: self.config.max_len });
        }
        if len > self.capacity {
            let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
            let shape = |capacity| [self.config.batch, kv_heads, capacity, head_dim];
            self.limits.check("the key cache", &shape(len), self.config.dtype)?;
            // Whole blocks where the device takes them.
            let blocks = len.checked_next_multiple_of(BLOCK).unwrap_or(len).min(self.config.max_len);
            let fits = self.limits.check("the key cache", &shape(blocks), self.config.dtype).is_ok();
            self.grow(if fits { blocks } else { len });
        }
        Ok(())
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let rows = self.config.batch * kv_heads * head_dim;
        let index = match (self.extras.k_index, self.extras.index.bits()) {
            (false, _) => 0,
            (true, None) => rows * self.capacity * self.config.dtype.size(),
            (true, Some(bits)) => {
                let capacity = self.capacity.next_multiple_of(index::BLOCK);
                rows * (capacity * bits / 8 + capacity / index::BLOCK * DType::F32.size())
            }
        };
        2 * rows * self.capacity * self.config.dtype.size() + index
    }

    /// What appending one token to every sequence writes: `k`, `v` and the copies kept.
    pub(crate) fn append_part(&self) -> Part {
        let (elements, size) = (self.vector_elements(), self.config.dtype.size());
        let rows = Part::new(2 * elements, size);
        match self.extras.k_index {
            true => rows + self.index_part(elements),
            false => rows,
        }
    }

    /// `elements` components of the transposed keys, scales included.
    pub(crate) fn index_part(&self, elements: usize) -> Part {
        let mut part = Part::new(elements, 1);
        part.bytes = self.extras.index.bytes(elements, self.config.dtype) as u64;
        part
    }

    /// What keeping the sum of values up to date reads and writes per token.
    pub(crate) fn mean_value_part(&self) -> Part {
        match self.extras.mean_value {
            true => Part::new(2 * self.vector_elements(), DType::F32.size()),
            false => Part::default(),
        }
    }

    /// Elements of one vector per sequence and KV head.
    fn vector_elements(&self) -> usize {
        self.config.batch * self.config.layer.shape.kv_heads * self.config.layer.shape.head_dim
    }

    fn keeps_plain_index(&self) -> bool {
        self.extras.k_index && self.extras.index.bits().is_none()
    }

    fn grow(&mut self, capacity: usize) {
        self.drop_copies();
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let batch = self.config.batch;
        let options = (&self.device, self.config.dtype);
        let used = self.lens.iter().copied().max().unwrap_or(0);
        let rows = |old: Option<Tensor<4>>| {
            let new = Tensor::zeros([batch, kv_heads, capacity, head_dim], options);
            match old {
                Some(old) if used > 0 => {
                    let live = [0..batch, 0..kv_heads, 0..used, 0..head_dim];
                    new.slice_assign(live.clone(), old.slice(live))
                }
                _ => new,
            }
        };
        self.k = Some(rows(self.k.take()));
        self.v = Some(rows(self.v.take()));
        if self.keeps_plain_index() {
            let new = Tensor::zeros([batch, kv_heads, head_dim, capacity], options);
            self.k_index = Some(match self.k_index.take() {
                Some(old) if used > 0 => {
                    let live = [0..batch, 0..kv_heads, 0..head_dim, 0..used];
                    new.slice_assign(live.clone(), old.slice(live))
                }
                _ => new,
            });
        }
        if let Some(bits) = self.extras.index.bits().filter(|_| self.extras.k_index) {
            self.grow_quantized(capacity, used, bits);
        }
        self.grow_sums(capacity);
        self.capacity = capacity;
    }

    /// Gives copies of the keys back that nobody asks for any more.
    pub(crate) fn drop_copies(&mut self) {
        if !self.keeps_plain_index() {
            self.k_index = None;
        }
        if !self.extras.k_index || self.extras.index.bits().is_none() {
            self.quantized = None;
        }
    }

    pub(super) fn grow_quantized(&mut self, capacity: usize, used: usize, bits: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let batch = self.config.batch;
        let blocks = capacity.div_ceil(index::BLOCK);
        let words_per_block = index::BLOCK * bits / 32;
        let words = [batch, kv_heads, head_dim, blocks * words_per_block];
        let mut new = QuantizedIndex {
            words: Tensor::zeros(words, (&self.device, DType::I32)),
            scales: Tensor::zeros([batch, kv_heads, head_dim, blocks], (&self.device, DType::F32)),
        };
        if let Some(old) = self.quantized.take().filter(|_| used > 0) {
            let blocks = used.div_ceil(index::BLOCK);
            let live = |len| [0..batch, 0..kv_heads, 0..head_dim, 0..len];
            let words = live(blocks * words_per_block);
            new.words = new.words.slice_assign(words.clone(), old.words.slice(words));
            new.scales = new.scales.slice_assign(live(blocks), old.scales.slice(live(blocks)));
        }
        self.quantized = Some(new);
    }
}
