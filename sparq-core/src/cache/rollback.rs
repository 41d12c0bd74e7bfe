//! Going back: forgetting tokens, and marks to return to.

use std::ops::Range;

use burn::tensor::Tensor;

use super::{CacheExtras, LayerCache};
use crate::{
    config::AttentionShape,
    error::{Error, Result},
    index::{self, IndexDtype},
    ops,
    spans::{AppendPlan, NewTokens},
};

/// A point that a cache can go back to, as often as wanted: see [`LayerCache::rewind`].
#[derive(Debug, Clone)]
pub struct CacheMark {
    lens: Vec<usize>,
    extras: CacheExtras,
    v_sum: Option<Tensor<3>>,
}

impl LayerCache {
    /// Forgets all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.lens.fill(0);
        self.v_sum = self.v_sum.take().map(|sum| sum.zeros_like());
    }

    /// Forgets what each sequence holds from position `len` on, and keeps the memory. Shorter
    /// sequences stay as they are.
    ///
    /// # Errors
    /// As [`LayerCache::truncate_sequence`].
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        self.cut(0..self.config.batch, len)
    }

    /// Forgets what one sequence holds from position `len` on, and keeps the memory: the cache is as if those
    /// tokens had never been there, to the bit. What it costs does not depend on what is left.
    ///
    /// # Errors
    /// [`Error::Shape`] for a sequence that is not there.
    pub fn truncate_sequence(&mut self, sequence: usize, len: usize) -> Result<()> {
        match sequence < self.config.batch {
            true => self.cut(sequence..sequence + 1, len),
            false => Err(Error::Shape {
                tensor: "sequence",
                axes: "[number below the batch]",
                found: vec![sequence],
                expected: vec![self.config.batch],
            }),
        }
    }

    fn cut(&mut self, sequences: Range<usize>, len: usize) -> Result<()> {
        let longer: Vec<usize> = sequences.filter(|&sequence| self.lens[sequence] > len).collect();
        if longer.is_empty() {
            return Ok(());
        }
        longer.iter().for_each(|&sequence| self.lens[sequence] = len);
        self.renew_last_codes()?;
        match self.extras.mean_value {
            true => longer.into_iter().try_for_each(|sequence| self.renew_sum(sequence)),
            false => Ok(()),
        }
    }

    /// Makes the codes of the last block of each sequence anew, after tokens went: its scales may be
    /// those of keys that are gone.
    fn renew_last_codes(&mut self) -> Result<()> {
        if let Some((codes, k)) = self.quantized.take().zip(self.k.clone()) {
            let rest: Vec<usize> = self.lens.iter().map(|held| held % index::BLOCK).collect();
            let firsts: Vec<usize> = self.lens.iter().zip(&rest).map(|(held, rest)| held - rest).collect();
            let plan = AppendPlan::new(&NewTokens::ragged(index::BLOCK, &rest)?, &firsts);
            self.quantized = Some(ops::append_quantized(codes, k, &plan));
        }
        Ok(())
    }

    /// The point that the cache is at.
    pub fn mark(&self) -> CacheMark {
        CacheMark { lens: self.lens.clone(), extras: self.extras, v_sum: own(&self.v_sum) }
    }

    /// Goes back to a mark of this cache and keeps only `extras` up to date from there on. What was
    /// there at the mark is there again, to the bit; the memory stays. Transposed keys in a form that
    /// is not there are made from the keys, the same as if they had been kept all along, in the place
    /// of those in another form.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where the cache did not sum the values up to the mark,
    /// [`Error::UnsupportedIndex`] where the device cannot hold the form of the keys.
    pub fn rewind(&mut self, mark: &CacheMark, extras: CacheExtras) -> Result<()> {
        if extras.k_index {
            crate::device::require_index(&self.device, extras.index)?;
        }
        if extras.mean_value && !mark.extras.mean_value {
            return Err(Error::MissingInCache { missing: "the sum of values" });
        }
        self.lens.clone_from(&mark.lens);
        self.v_sum = own(&mark.v_sum);
        self.extras = extras;
        if self.capacity > 0 {
            // The memory may have grown while no sum was kept.
            self.grow_sums(self.capacity);
        }
        if extras.k_index && !self.holds_index(extras.index) {
            return self.make_index();
        }
        self.renew_last_codes()
    }

    /// Whether the transposed keys are there in this form. What is there is kept up to date, also where
    /// the method that runs does not ask for it.
    fn holds_index(&self, form: IndexDtype) -> bool {
        match (form.bits(), &self.quantized) {
            (None, _) => self.k_index.is_some(),
            (Some(bits), Some(codes)) => {
                index::bits(codes.words.shape().num_elements(), codes.scales.shape().num_elements()) == bits
            }
            (Some(_), None) => false,
        }
    }

    /// Makes the transposed keys from the keys, in the form of the extras, and drops other forms.
    fn make_index(&mut self) -> Result<()> {
        (self.k_index, self.quantized) = (None, None);
        // Before the first append they grow with the keys.
        let Some(k) = &self.k else { return Ok(()) };
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let batch = self.config.batch;
        let Some(bits) = self.extras.index.bits() else {
            let columns = [batch, kv_heads, head_dim, self.capacity];
            let empty = Tensor::zeros(columns, (&self.device, self.config.dtype));
            let all = columns.map(|size| 0..size);
            self.k_index = Some(empty.slice_assign(all, k.clone().swap_dims(2, 3)));
            return Ok(());
        };
        let k = k.clone();
        self.grow_quantized(self.capacity, 0, bits);
        if let Some(codes) = self.quantized.take() {
            let width = self.lens.iter().copied().max().unwrap_or(0);
            let plan = AppendPlan::new(&NewTokens::ragged(width, &self.lens)?, &vec![0; batch]);
            self.quantized = Some(ops::append_quantized(codes, k, &plan));
        }
        Ok(())
    }
}

/// A copy in memory of its own: a second handle would turn the next write in place into a copy.
fn own(sum: &Option<Tensor<3>>) -> Option<Tensor<3>> {
    sum.as_ref().map(|sum| sum.clone().mul_scalar(1.0))
}
