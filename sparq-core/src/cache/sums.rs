//! The sum of values, and what it was where each block of positions ended: going back costs a block.

use burn::tensor::{DType, Tensor};

use super::{BLOCK, LayerCache};
use crate::{
    config::AttentionShape,
    error::Result,
    ops,
    spans::{Append, AppendPlan, NewTokens},
};

impl LayerCache {
    /// Whether an append completes a block of positions in some sequence, so that the sum there is kept.
    pub(super) fn completes_block(plan: &AppendPlan) -> bool {
        plan.as_slice().iter().any(|append| (append.at + append.take) / BLOCK > append.at / BLOCK)
    }

    /// Adds the real rows of `v: [batch, kv_heads, width, head_dim]` to the sum, block after block of positions.
    pub(super) fn add_values(&mut self, v: &Tensor<4>, plan: &AppendPlan) {
        let Some(mut sum) = self.v_sum.take() else { return };
        let v = match self.config.dtype {
            DType::F32 => v.clone(),
            // As they are stored.
            dtype => v.clone().cast(dtype).cast(DType::F32),
        };
        let real = || plan.as_slice().iter().filter(|append| append.take > 0);
        let first = real().map(|append| append.at / BLOCK).min().unwrap_or(0);
        let end = real().map(|append| (append.at + append.take).div_ceil(BLOCK)).max().unwrap_or(0);
        for block in first..end {
            let part = plan.within(block * BLOCK..(block + 1) * BLOCK);
            sum = ops::accumulate(sum, v.clone(), &part);
            let completes =
                |append: &Append| append.take > 0 && append.at + append.take == (block + 1) * BLOCK;
            let completed = part.as_slice().iter().map(completes);
            for (sequence, _) in completed.enumerate().filter(|(_, completes)| *completes) {
                self.keep_sum(&sum, sequence, block);
            }
        }
        self.v_sum = Some(sum);
    }

    fn keep_sum(&mut self, sum: &Tensor<3>, sequence: usize, block: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let of_sequence = sum.clone().narrow(0, sequence, 1).unsqueeze_dim::<4>(2);
        let place = [sequence..sequence + 1, 0..kv_heads, block..block + 1, 0..head_dim];
        self.block_sums = self.block_sums.take().map(|sums| sums.slice_assign(place, of_sequence));
    }

    /// Makes the sum of a sequence what it was when it held as many tokens as now, to the bit: from the end of
    /// the last whole block, and the values behind it. Subtracting would keep the rounding of what went.
    pub(super) fn renew_sum(&mut self, sequence: usize) -> Result<()> {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let (len, one) = (self.lens[sequence], sequence..sequence + 1);
        let (block, rest) = (len / BLOCK, len % BLOCK);
        let (Some(sum), Some(sums), Some(v)) = (self.v_sum.take(), &self.block_sums, &self.v) else {
            return Ok(());
        };
        let mut renewed = match block.checked_sub(1) {
            Some(last) => {
                let place = [one.clone(), 0..kv_heads, last..block, 0..head_dim];
                // In memory of its own: what follows writes in place, and LibTorch's slices are views.
                sums.clone().slice(place).squeeze_dim::<3>(2).mul_scalar(1.0)
            }
            None => Tensor::zeros([1, kv_heads, head_dim], (&self.device, DType::F32)),
        };
        if rest > 0 {
            let rows = v.clone().slice([one.clone(), 0..kv_heads, block * BLOCK..len, 0..head_dim]);
            let plan = AppendPlan::new(&NewTokens::all(1, rest), &[0]);
            renewed = ops::accumulate(renewed, rows.cast(DType::F32), &plan);
        }
        self.v_sum = Some(sum.slice_assign([one, 0..kv_heads, 0..head_dim], renewed));
        Ok(())
    }

    /// Takes memory for the sums of `capacity` positions, where there is too little.
    pub(super) fn grow_sums(&mut self, capacity: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let options = (&self.device, DType::F32);
        let (batch, blocks) = (self.config.batch, capacity.div_ceil(BLOCK));
        if self.v_sum.is_none() {
            self.v_sum = Some(Tensor::zeros([batch, kv_heads, head_dim], options));
        }
        let held = self.block_sums.as_ref().map_or(0, |sums| sums.dims()[2]);
        if !self.extras.mean_value || held >= blocks {
            return;
        }
        let new = Tensor::zeros([batch, kv_heads, blocks, head_dim], options);
        self.block_sums = Some(match self.block_sums.take() {
            Some(old) => {
                let place = old.dims().map(|size| 0..size);
                new.slice_assign(place, old)
            }
            None => new,
        });
    }
}
