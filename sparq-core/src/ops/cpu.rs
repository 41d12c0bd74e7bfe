//! The operations over raw slices, for CPU backends.
//!
//! Every function takes contiguous slices in the layouts of [`crate::LayerCache`]. Queries and
//! results are f32; caches and weights are any [`Element`], widened in registers. Work is shared
//! between threads by sequence and KV head, and by position where there are few of them; buffers are
//! kept by each thread, so that a decode step allocates its outputs and nothing else.

mod append;
mod attend;
mod buckets;
mod dense;
mod element;
mod k_t;
mod linear;
pub(super) mod methods;
mod prefill;
mod products;
mod query;
mod rows;
mod simd;
mod sparq;
mod split;
mod sum;
pub(super) mod tensors;
mod tiles;
mod top_k;

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::spans::Place;

pub(super) use append::{
    Codes, Parts, accumulate, append_columns, append_quantized, append_rows, append_with_kt,
};
pub(super) use dense::decode_dense;
pub(super) use element::Element;
pub(super) use k_t::{KeysByComponent, Quantized};
pub(super) use linear::{linear, linear_quantized};
pub(super) use prefill::prefill;
pub(super) use sparq::{MASSES, SparqSlices, decode_sparq};
pub(super) use sum::sum;

/// Sizes of a layer and its cache buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) kv_heads: usize,
    /// Query heads per KV head.
    pub(super) group: usize,
    pub(super) head_dim: usize,
    /// Positions per sequence and KV head that the buffers hold, where the plan does not say.
    pub(super) capacity: usize,
}

impl Sizes {
    /// From the dimensions of the query `[batch, heads, 1, head_dim]` and of the key cache.
    pub(super) fn new(q: [usize; 4], k: [usize; 4]) -> Self {
        let [_, heads, _, head_dim] = q;
        let [_, kv_heads, capacity, _] = k;
        Self { kv_heads, group: heads / kv_heads, head_dim, capacity }
    }

    /// Elements of KV head `head` of a sequence that lies at `place`, in keys, values or transposed keys.
    fn of_head(&self, place: Place, head: usize) -> Range<usize> {
        let first = (place.first * self.kv_heads + head * place.capacity) * self.head_dim;
        first..first + place.capacity * self.head_dim
    }
}

/// Parts of `values` that do not overlap, in the order of `ranges`, to write to from several threads.
fn regions<'a, T>(mut values: &'a mut [T], ranges: &[Range<usize>]) -> Vec<&'a mut [T]> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_unstable_by_key(|&i| ranges[i].start);
    let mut parts: Vec<&'a mut [T]> = Vec::new();
    parts.resize_with(ranges.len(), Default::default);
    let mut at = 0;
    for i in order {
        let Range { start, end } = ranges[i];
        let (part, rest) = values.split_at_mut(start - at).1.split_at_mut(end - start);
        (parts[i], values, at) = (part, rest, end);
    }
    parts
}
