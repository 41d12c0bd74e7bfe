//! The operations over raw slices, for CPU backends: plain safe loops, one rayon task per
//! sequence and KV head.
//!
//! Every function takes contiguous slices in the layouts of [`crate::LayerCache`]. Queries and
//! results are f32; caches and weights are any [`Element`], widened a row at a time.

mod append;
mod attend;
mod dense;
mod element;
mod linear;
mod sparq;

pub(super) use append::{accumulate, append_columns, append_rows};
pub(super) use dense::decode_dense;
pub(super) use element::Element;
pub(super) use linear::{FEW_TOKENS, linear};
pub(super) use sparq::{SparqSlices, decode_sparq};

/// Elements read below which one thread is faster than handing work to others: at a few elements
/// per nanosecond, about the time that waking a thread takes.
const PARALLEL_ABOVE: usize = 1 << 17;

/// Sizes of a layer and its cache buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) kv_heads: usize,
    /// Query heads per KV head.
    pub(super) group: usize,
    pub(super) head_dim: usize,
    /// Positions per sequence and KV head that the buffers hold.
    pub(super) capacity: usize,
}

impl Sizes {
    /// Whether a step that reads this many positions per KV head is worth more than one thread.
    fn is_parallel(&self, positions: usize, heads: usize) -> bool {
        positions * heads * self.head_dim > PARALLEL_ABOVE
    }

    /// From the dimensions of the query `[batch, heads, 1, head_dim]` and of the key cache.
    pub(super) fn new(q: [usize; 4], k: [usize; 4]) -> Self {
        let [_, heads, _, head_dim] = q;
        let [_, kv_heads, capacity, _] = k;
        Self { kv_heads, group: heads / kv_heads, head_dim, capacity }
    }
}
