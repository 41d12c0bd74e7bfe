//! The transposed keys that step 1 reads: `rank` of the `head_dim` rows of each KV head.

use std::ops::Range;

use super::{
    Element, Sizes,
    rows::{PASS, Weights, add_weighted},
    simd::{I4_UNIT, I8_UNIT, LANES, Lanes, Simd},
};
use crate::{k_t::BLOCK as SCALED, spans::AppendPlan};

/// Positions scored at a time: the sums stay in the first-level cache while the rows pass by, and a
/// row's share is long enough for the processor to see a stream in it.
pub(super) const BLOCK: usize = 2048;

/// Products of weights with components of the keys.
pub(in crate::ops) trait KeysByComponent: Copy + Send + Sync {
    /// Positions are scored from a multiple of this on.
    const ALIGN: usize;

    /// Adds `Σ weights[row, i] · key[components[i]]` of `count` positions of a KV head from `first` on
    /// to `scores`, for each row of `weights: [rows, rank]`; the scores of a row lie `stride` vectors
    /// apart.
    fn add_scores<S: Simd>(
        self,
        s: S,
        place: Positions<'_>,
        components: &[u32],
        weights: &[f32],
        scores: &mut [Lanes],
        stride: usize,
    );
}

/// Which positions of which KV head.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Positions<'a> {
    /// Where its sequence lies.
    pub(super) queries: &'a AppendPlan,
    /// KV head, counted through the batch.
    pub(super) head: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) sizes: Sizes,
}

impl Positions<'_> {
    /// Positions per row of transposed keys that are filled up to a multiple of `of`, and the elements of
    /// the head.
    fn memory(&self, of: usize) -> (usize, Range<usize>) {
        let kv_heads = self.sizes.kv_heads;
        let place = self.queries.place(self.head / kv_heads, self.sizes.capacity.next_multiple_of(of));
        (place.capacity, self.sizes.of_head(place, self.head % kv_heads))
    }
}

/// `[batch, kv_heads, head_dim, capacity]` as it is.
impl<E: Element> KeysByComponent for &[E] {
    // Whole vectors, as buckets take them.
    const ALIGN: usize = LANES;

    #[inline(always)]
    fn add_scores<S: Simd>(
        self,
        s: S,
        place: Positions<'_>,
        components: &[u32],
        weights: &[f32],
        scores: &mut [Lanes],
        stride: usize,
    ) {
        let (capacity, of_head) = place.memory(1);
        let k_t = &self[of_head];
        let row = |i: usize| &k_t[components[i] as usize * capacity + place.first..][..place.count];
        let rank = components.len();
        let weights = Weights { values: weights, stride: rank, heads: weights.len() / rank };
        let prefetch = |next: Range<usize>| {
            for next in next {
                s.prefetch(&row(next)[..place.count.min(BEGINNING / size_of::<E>())]);
            }
        };
        let mut i = 0;
        // Each row is a stream of its own; there must be registers for their weights.
        while S::ROOMY && i + 2 * PASS <= rank {
            prefetch(i + 2 * PASS..rank.min(i + 4 * PASS));
            let rows =
                [row(i), row(i + 1), row(i + 2), row(i + 3), row(i + 4), row(i + 5), row(i + 6), row(i + 7)];
            add_weighted(s, rows, weights, i, scores, stride);
            i += 2 * PASS;
        }
        while i + PASS <= rank {
            prefetch(i + PASS..rank.min(i + 2 * PASS));
            let rows = [row(i), row(i + 1), row(i + 2), row(i + 3)];
            add_weighted(s, rows, weights, i, scores, stride);
            i += PASS;
        }
        for i in i..rank {
            add_weighted(s, [row(i)], weights, i, scores, stride);
        }
    }
}

/// Transposed keys as codes of `BITS` bits, see [`crate::k_t::QuantizedKt`].
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Quantized<'a, const BITS: usize> {
    /// `[batch, kv_heads, head_dim, capacity · BITS / 8]`
    codes: &'a [u8],
    /// `[batch, kv_heads, head_dim, capacity / BLOCK]`
    scales: &'a [f32],
}

impl<'a, const BITS: usize> Quantized<'a, BITS> {
    /// From words and scales.
    pub(in crate::ops) fn new(words: &'a [i32], scales: &'a [f32]) -> Self {
        Self { codes: bytemuck::cast_slice(words), scales }
    }
}

/// Bytes of a row that are prefetched while others are read: the processor sees the stream from there.
const BEGINNING: usize = 512;

/// Vectors of a block of scales.
const VECTORS: usize = SCALED / LANES;

impl<const BITS: usize> KeysByComponent for Quantized<'_, BITS> {
    const ALIGN: usize = SCALED;

    #[inline(always)]
    fn add_scores<S: Simd>(
        self,
        s: S,
        place: Positions<'_>,
        components: &[u32],
        weights: &[f32],
        scores: &mut [Lanes],
        stride: usize,
    ) {
        // Room for all positions of the cache, in whole blocks.
        let (capacity, of_head) = place.memory(SCALED);
        let (blocks, of_head) = (capacity / SCALED, of_head.start / SCALED);
        let bytes = SCALED * BITS / 8;
        let first = place.first / SCALED;
        let count = (place.first + place.count).div_ceil(SCALED) - first;
        let row = |i: usize| {
            let from = of_head + components[i] as usize * blocks + first;
            Row {
                codes: &self.codes[from * bytes..(from + count) * bytes],
                scales: &self.scales[from..from + count],
            }
        };
        let rank = components.len();
        let weights = Weights { values: weights, stride: rank, heads: weights.len() / rank };
        let vectors = place.count.div_ceil(LANES);
        let mut i = 0;
        while i + PASS <= rank {
            let rows = [row(i), row(i + 1), row(i + 2), row(i + 3)];
            let mut ahead: [&[u8]; PASS] = [&[]; PASS];
            for (ahead, next) in ahead.iter_mut().zip(i + PASS..rank) {
                *ahead = row(next).codes;
            }
            add_codes::<S, BITS, PASS>(s, rows, ahead, weights, i, vectors, scores, stride);
            i += PASS;
        }
        for i in i..rank {
            add_codes::<S, BITS, 1>(s, [row(i)], [&[]], weights, i, vectors, scores, stride);
        }
    }
}

/// Codes of a component for some blocks, and a scale for each.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    codes: &'a [u8],
    scales: &'a [f32],
}

/// [`add_weighted`] for rows of codes; those `ahead` are prefetched on the way.
#[allow(clippy::too_many_arguments)] // two sets of rows
#[inline(always)]
fn add_codes<S: Simd, const BITS: usize, const ROWS: usize>(
    s: S,
    rows: [Row<'_>; ROWS],
    ahead: [&[u8]; ROWS],
    weights: Weights<'_>,
    first: usize,
    vectors: usize,
    scores: &mut [Lanes],
    stride: usize,
) {
    let bytes = SCALED * BITS / 8;
    let unit = if BITS == 8 { I8_UNIT } else { I4_UNIT };
    for block in 0..rows[0].scales.len() {
        let mut codes: [&[u8]; ROWS] = [&[]; ROWS];
        for (codes, row) in codes.iter_mut().zip(&rows) {
            *codes = &row.codes[block * bytes..(block + 1) * bytes];
        }
        for ahead in ahead {
            if let Some(line) = ahead.get(block * bytes..(block + 1) * bytes) {
                s.prefetch(line);
            }
        }
        for head in 0..weights.heads {
            let mut scaled = [s.splat(0.0); ROWS];
            for (i, scaled) in scaled.iter_mut().enumerate() {
                let weight = weights.values[head * weights.stride + first + i];
                *scaled = s.splat(weight * rows[i].scales[block] * unit);
            }
            let here = (vectors - block * VECTORS).min(VECTORS);
            let scores = &mut scores[head * stride + block * VECTORS..][..here];
            for (j, score) in scores.iter_mut().enumerate() {
                let mut v = s.load(score);
                for (codes, scaled) in codes.iter().zip(&scaled) {
                    v = s.mul_add(load::<S, BITS>(s, codes, j), *scaled, v);
                }
                s.store(v, score);
            }
        }
    }
}

/// Vector `i` of codes, each over the unit of its bits.
#[inline(always)]
fn load<S: Simd, const BITS: usize>(s: S, codes: &[u8], i: usize) -> S::V {
    match BITS {
        8 => s.load_i8(bytemuck::cast_ref(&codes.as_chunks::<LANES>().0[i])),
        _ => s.load_i4(&codes.as_chunks::<{ LANES / 2 }>().0[i]),
    }
}
