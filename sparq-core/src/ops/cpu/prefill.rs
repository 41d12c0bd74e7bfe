//! Causal attention of a prompt over slices: tiles of queries and keys, with the running maximum and sum
//! of each query (online softmax), so that memory does not grow with the square of the length.
//!
//! A query's output is the same bits whatever other queries come with it: tiles of keys begin at multiples of
//! their size, and a product adds up in one order for any number of rows.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    Element, Sizes,
    attend::{log_sum_exp, soft_cap},
    products::{Rows, add_products, pack_columns, pack_rows},
    simd::{LANES, Lanes, Simd, with_simd},
};
use crate::{
    ops::{AttendParams, oracle::MASKED},
    spans::Span,
};

/// Queries of a tile, those of all heads of the group together.
const QUERIES: usize = 128;

/// Keys of a tile: a multiple of [`LANES`].
const KEYS: usize = 256;

/// Buffers of a thread.
#[derive(Debug, Default)]
struct Tile {
    /// `[queries, head_dim]`, scaled.
    q: Vec<f32>,
    /// `[KEYS, head_dim]`, transposed.
    k: Vec<Lanes>,
    /// `[KEYS, head_dim]`, each row filled up to whole vectors.
    v: Vec<Lanes>,
    /// `[queries, KEYS]`
    logits: Vec<Lanes>,
    /// `[queries, head_dim]`, each row filled up to whole vectors.
    out: Vec<Lanes>,
    maxima: Vec<f32>,
    sums: Vec<f32>,
    spans: Vec<Span>,
}

thread_local! {
    static TILE: RefCell<Tile> = RefCell::default();
}

/// Inputs of a prefill: `q: [batch, heads, width, head_dim]` and the cache.
struct Problem<'a, E> {
    q: &'a [f32],
    k: &'a [E],
    v: &'a [E],
    params: &'a AttendParams,
    sizes: Sizes,
    /// Columns of a tile.
    columns: usize,
}

/// See [`crate::ops::prefill`]. Returns `[batch, heads, width, head_dim]`, padding as zero, and the log-sum-exp
/// `[batch, heads, width]`.
pub(in crate::ops) fn prefill<E: Element>(
    q: &[f32],
    k: &[E],
    v: &[E],
    params: &AttendParams,
    sizes: Sizes,
) -> (Vec<f32>, Vec<f32>) {
    let width = params.queries.width();
    let columns = (QUERIES / sizes.group).clamp(1, width.max(1));
    let problem = Problem { q, k, v, params, sizes, columns };
    let mut output = vec![0.0; q.len()];
    let mut log_sums = vec![0.0; q.len() / sizes.head_dim];
    // A tile's rows of all heads of the group do not lie together: every tile fills a buffer of its
    // own, and rows are copied to their places.
    let tiles = width.div_ceil(columns);
    let kv_heads = params.queries.as_slice().len() * sizes.kv_heads;
    let per_tile = columns * sizes.group * sizes.head_dim;
    let mut by_tile = vec![0.0; kv_heads * tiles * per_tile];
    let mut log_sums_by_tile = vec![0.0; kv_heads * tiles * columns * sizes.group];
    let rooms = by_tile
        .par_chunks_mut(per_tile.max(1))
        .zip(log_sums_by_tile.par_chunks_mut((columns * sizes.group).max(1)));
    rooms.enumerate().for_each(|(task, out)| {
        // Late tiles see the most keys: they come first.
        let (head, tile) = (task / tiles, tiles - 1 - task % tiles);
        TILE.with_borrow_mut(|buffers| with_simd!(s => problem.tile(s, head, tile, buffers, out)));
    });
    let tasks = by_tile.chunks(per_tile.max(1)).zip(log_sums_by_tile.chunks((columns * sizes.group).max(1)));
    for (task, (rows, of_rows)) in tasks.enumerate() {
        let (head, tile) = (task / tiles, tiles - 1 - task % tiles);
        let (first, count) = problem.columns_of(tile);
        for (g, (rows, of_rows)) in
            rows.chunks(columns * sizes.head_dim).zip(of_rows.chunks(columns)).enumerate()
        {
            let to = (head * sizes.group + g) * width + first;
            log_sums[to..to + count].copy_from_slice(&of_rows[..count]);
            let (to, len) = (to * sizes.head_dim, count * sizes.head_dim);
            output[to..to + len].copy_from_slice(&rows[..len]);
        }
    }
    (output, log_sums)
}

impl<E: Element> Problem<'_, E> {
    /// First column of a tile and their number.
    fn columns_of(&self, tile: usize) -> (usize, usize) {
        let first = tile * self.columns;
        (first, self.columns.min(self.params.queries.width() - first))
    }

    /// Fills `out: [group, columns, head_dim]` and the log-sum-exp `[group, columns]` for some columns of one
    /// KV head.
    #[inline(always)]
    fn tile<S: Simd>(
        &self,
        s: S,
        head: usize,
        tile: usize,
        buffers: &mut Tile,
        (out, log_sums): (&mut [f32], &mut [f32]),
    ) {
        let Sizes { kv_heads, group, head_dim, capacity } = self.sizes;
        let width = self.params.queries.width();
        let place = self.params.place(head / kv_heads, capacity);
        let memory = self.sizes.of_head(place, head % kv_heads).start;
        let (first, count) = self.columns_of(tile);
        let Tile { q, k, v, logits, out: sums_of_values, maxima, sums, spans } = buffers;

        spans.clear();
        let visible = |t| self.params.queries.visible(head / kv_heads, t, self.params.window);
        spans.extend((first..first + count).map(visible));
        let seen = spans.iter().filter(|span| !span.is_empty());
        let start = seen.clone().map(|span| span.start).min().unwrap_or(0);
        let end = seen.map(|span| span.end).max().unwrap_or(0);

        let rows = group * count;
        q.clear();
        for g in 0..group {
            let from = ((head * group + g) * width + first) * head_dim;
            q.extend(self.q[from..from + count * head_dim].iter().map(|x| x * self.params.scale));
        }
        let stride = head_dim.div_ceil(LANES);
        reset(sums_of_values, rows * stride, [0.0; LANES]);
        reset(maxima, rows, f32::NEG_INFINITY);
        reset(sums, rows, 0.0);

        for key in (start - start % KEYS..end).step_by(KEYS) {
            let keys = KEYS.min(end - key);
            // Keys of the tile that no query sees are zero, not what lies there.
            let unseen = start.saturating_sub(key);
            let at = memory + key * head_dim;
            let seen = at + unseen * head_dim..at + keys * head_dim;
            reset(k, KEYS / LANES * head_dim, [0.0; LANES]);
            pack_columns(s, &self.k[seen.clone()], head_dim, unseen, k);
            reset(v, KEYS * stride, [0.0; LANES]);
            pack_rows(s, &self.v[seen], head_dim, &mut v[unseen..], KEYS);
            reset(logits, rows * KEYS / LANES, [0.0; LANES]);
            let queries = Rows { values: q, stride: head_dim, depth: head_dim };
            let k = &k[..keys.div_ceil(LANES) * head_dim];
            add_products(s, queries, (k, head_dim), logits, KEYS / LANES);
            for row in 0..rows {
                let logits = &mut logits[row * (KEYS / LANES)..][..KEYS / LANES];
                if let Some(cap) = self.params.softcap {
                    soft_cap(s, logits, cap);
                }
                let span = spans[row % count];
                let flat = logits.as_flattened_mut();
                flat[..span.start.saturating_sub(key).min(keys)].fill(f32::NEG_INFINITY);
                flat[span.end.saturating_sub(key).min(keys)..].fill(f32::NEG_INFINITY);
                if span.is_empty() || span.end <= key || span.start >= key + keys {
                    flat.fill(0.0);
                    continue;
                }
                let before = maxima[row];
                log_sum_exp::<S, true>(s, logits, &mut maxima[row], &mut sums[row]);
                let shrink = (before - maxima[row]).exp();
                if shrink < 1.0 {
                    for x in &mut sums_of_values[row * stride..(row + 1) * stride] {
                        s.store(s.mul(s.load(x), s.splat(shrink)), x);
                    }
                }
            }
            let weights = Rows { values: logits.as_flattened(), stride: KEYS, depth: keys };
            add_products(s, weights, (v, KEYS), sums_of_values, stride);
        }
        for (row, from) in sums_of_values.chunks_exact(stride).enumerate() {
            let to = row / count * self.columns + row % count;
            // Where all scores are minus infinity the sum is zero, and nothing is a number.
            let (share, log_sum) = match spans[row % count].is_empty() {
                true => (0.0, MASKED),
                false => (1.0 / sums[row], maxima[row] + sums[row].ln()),
            };
            log_sums[to] = log_sum;
            let to = to * head_dim;
            out[to..to + head_dim].iter_mut().zip(from.as_flattened()).for_each(|(y, x)| *y = x * share);
        }
    }
}

fn reset<T: Copy>(values: &mut Vec<T>, len: usize, value: T) {
    values.clear();
    values.resize(len, value);
}
