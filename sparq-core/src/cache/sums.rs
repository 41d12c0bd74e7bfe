//! The sums of values, and what they were where each block of positions ended: going back costs a block.

use burn::tensor::{DType, Tensor};

use super::{BLOCK, LayerCache, memory::Axis};
use crate::{
    error::Result,
    ops,
    spans::{Append, AppendPlan, NewTokens},
};

/// What is known of the sum of a sequence's values.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockSums {
    /// Tokens in the sum.
    pub(super) covered: usize,
    /// What it was behind each whole block of positions, `[1, kv_heads, value_dim]` each.
    blocks: Vec<Tensor<3>>,
}

impl BlockSums {
    /// Where nothing is known but the blocks before position `len`.
    pub(super) fn before(&self, len: usize) -> Self {
        let blocks = self.blocks[..(len / BLOCK).min(self.blocks.len())].to_vec();
        // More than any sequence holds: the sum is made anew.
        Self { covered: usize::MAX, blocks }
    }

    /// Forgets the values from position `len` on.
    pub(super) fn cut(&mut self, len: usize) {
        if self.covered > len {
            *self = self.before(len);
        }
    }
}

impl LayerCache {
    /// Whether an append completes a block of positions in some sequence, so that the sum there is kept.
    pub(super) fn completes_block(plan: &AppendPlan) -> bool {
        plan.as_slice().iter().any(|append| (append.at + append.take) / BLOCK > append.at / BLOCK)
    }

    /// Adds the real rows of `v: [batch, kv_heads, width, value_dim]` to the sums, block after block of positions.
    pub(super) fn add_values(&mut self, v: &Tensor<4>, plan: &AppendPlan) {
        let Some(mut sum) = self.v_sum.take() else { return };
        let v = match self.config.dtype {
            DType::F32 => v.clone(),
            // As they are stored.
            dtype => v.clone().cast(dtype),
        };
        let real = || plan.as_slice().iter().filter(|append| append.take > 0);
        let first = real().map(|append| append.at / BLOCK).min().unwrap_or(0);
        let end = real().map(|append| (append.at + append.take).div_ceil(BLOCK)).max().unwrap_or(0);
        for block in first..end {
            let part = plan.within(block * BLOCK..(block + 1) * BLOCK);
            sum = ops::accumulate(sum, v.clone(), &part);
            let completes =
                |append: &&Append| append.take > 0 && append.at + append.take == (block + 1) * BLOCK;
            for append in part.as_slice().iter().filter(completes) {
                // In memory of its own: what follows writes in place, and LibTorch's slices are views.
                let of_slot = sum.clone().narrow(0, append.slot, 1).mul_scalar(1.0);
                self.sums[append.slot].blocks.push(of_slot);
            }
        }
        self.v_sum = Some(sum);
    }

    /// Brings the sum of a sequence up to the tokens that it holds now, to the bit what it is where these came
    /// one after another: from the end of the last whole block that is known, and the values behind it.
    /// Subtracting would keep the rounding of what went.
    pub(super) fn renew_sum(&mut self, slot: usize) -> Result<()> {
        let (kv_heads, value_dim) = (self.config.layer.shape.kv_heads, self.config.layer.value_dim());
        let len = self.lens[slot];
        let covered = self.sums[slot].covered;
        let (Some(sum), Some(v)) = (self.v_sum.take(), &self.v) else { return Ok(()) };
        if covered == len {
            self.v_sum = Some(sum);
            return Ok(());
        }
        let v = self.of_slot(v.clone(), slot, Axis::Rows);
        let of_slot = [slot..slot + 1, 0..kv_heads, 0..value_dim];
        let sums = &mut self.sums[slot];
        sums.blocks.truncate(len / BLOCK);
        let (mut renewed, mut at) = match sums.blocks.last() {
            _ if covered < len => (sum.clone().slice(of_slot.clone()), covered),
            Some(block) => (block.clone(), sums.blocks.len() * BLOCK),
            None => (Tensor::zeros([1, kv_heads, value_dim], (&self.device, DType::F32)), 0),
        };
        // In memory of its own, as above.
        renewed = renewed.mul_scalar(1.0);
        while at < len {
            let end = len.min((at / BLOCK + 1) * BLOCK);
            let rows = v.clone().slice([0..1, 0..kv_heads, at..end, 0..value_dim]);
            let plan = AppendPlan::new(&NewTokens::all(1, end - at), &[0]);
            renewed = ops::accumulate(renewed, rows, &plan);
            if end.is_multiple_of(BLOCK) {
                sums.blocks.push(renewed.clone().mul_scalar(1.0));
            }
            at = end;
        }
        sums.covered = len;
        self.v_sum = Some(sum.slice_assign(of_slot, renewed));
        Ok(())
    }

    /// Takes memory for the sums, where there is none.
    pub(super) fn make_sums(&mut self) {
        let (kv_heads, value_dim) = (self.config.layer.shape.kv_heads, self.config.layer.value_dim());
        let shape = [self.config.batch, kv_heads, value_dim];
        self.v_sum.get_or_insert_with(|| Tensor::zeros(shape, (&self.device, DType::F32)));
    }
}
