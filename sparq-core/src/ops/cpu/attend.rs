//! Softmax attention over a stream of positions, one pass, for the query heads of one KV head.
#![allow(clippy::needless_range_loop)] // of fixed length, over several arrays at once

use std::cell::RefCell;

use super::{
    Element,
    rows::{PASS, Weights, add_in_columns, add_weighted, dots},
    simd::{LANES, Lanes, Simd, with_simd},
};
use crate::ops::oracle::MASKED;

/// Positions whose logits are held at a time.
const BLOCK: usize = 64;

/// Positions ahead of the current one whose rows are prefetched, where they lie apart.
const AHEAD: usize = 8;

/// Streams that a run of positions is gone through in: a processor brings a stream by itself, but only some
/// lines of it at a time, so that one or two do not fill the memory's bandwidth.
const STREAMS: usize = 4;

/// What a pass over positions leaves for each query head: a weighted sum of values, the largest logit
/// and the sum of weights. Passes over parts of the positions are merged by [`Partial::merge`].
#[derive(Debug, Default, Clone)]
pub(super) struct Partial {
    /// `[group, head_dim]`, each head filled up to whole vectors.
    pub(super) out: Vec<Lanes>,
    maxima: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    /// Buffers of the thread that works on a part.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Buffers of a pass.
#[derive(Debug, Default)]
struct Buffers {
    /// `[group, head_dim]`, scaled, each head filled up to whole vectors.
    queries: Vec<Lanes>,
    /// `[group, BLOCK]`
    logits: Vec<Lanes>,
}

/// Keys and values `[capacity, head_dim]` of one KV head.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValues<'a, E> {
    pub(super) k: &'a [E],
    pub(super) v: &'a [E],
    pub(super) head_dim: usize,
    pub(super) softcap: Option<f32>,
    /// What products are multiplied by.
    pub(super) scale: f32,
}

/// Positions to attend to, in any order.
pub(super) trait Positions: Copy {
    /// Whether their rows lie apart, so that a processor does not expect them.
    const APART: bool;
    fn len(self) -> usize;
    fn get(self, i: usize) -> usize;
}

/// `start..end`, by turns from each of the streams.
impl Positions for (usize, usize) {
    const APART: bool = false;
    #[inline(always)]
    fn len(self) -> usize {
        self.1 - self.0
    }
    #[inline(always)]
    fn get(self, i: usize) -> usize {
        let each = (self.1 - self.0) / STREAMS;
        match i < each * STREAMS {
            true => self.0 + i % STREAMS * each + i / STREAMS,
            false => self.0 + i,
        }
    }
}

impl Positions for &[u32] {
    const APART: bool = true;
    #[inline(always)]
    fn len(self) -> usize {
        <[u32]>::len(self)
    }
    #[inline(always)]
    fn get(self, i: usize) -> usize {
        self[i] as usize
    }
}

impl<E: Element> KeyValues<'_, E> {
    #[inline(always)]
    fn key(&self, position: usize) -> &[E] {
        &self.k[position * self.head_dim..][..self.head_dim]
    }

    #[inline(always)]
    fn value(&self, position: usize) -> &[E] {
        &self.v[position * self.head_dim..][..self.head_dim]
    }
}

/// Exact attention of queries `q: [group, head_dim]` over `positions`, with the running maximum and sum
/// of each head (online softmax).
pub(super) fn attend<E: Element, P: Positions>(
    q: &[f32],
    kv: &KeyValues<'_, E>,
    positions: P,
    partial: &mut Partial,
) {
    BUFFERS.with_borrow_mut(|buffers| {
        with_simd!(s => attend_on(s, q, kv, positions, buffers, partial));
    });
}

#[inline(always)]
fn attend_on<S: Simd, E: Element, P: Positions>(
    s: S,
    q: &[f32],
    kv: &KeyValues<'_, E>,
    positions: P,
    buffers: &mut Buffers,
    partial: &mut Partial,
) {
    let group = q.len() / kv.head_dim;
    let stride = kv.head_dim.div_ceil(LANES);
    pad_rows(q, kv.head_dim, kv.scale, &mut buffers.queries);
    buffers.logits.resize(group * BLOCK / LANES, [0.0; LANES]);
    partial.clear(group, stride);
    for first in (0..positions.len()).step_by(BLOCK) {
        let count = BLOCK.min(positions.len() - first);
        let keys = Keys { kv, positions, queries: &buffers.queries, stride };
        let logits = buffers.logits.as_flattened_mut();
        match (group, S::ROOMY) {
            (1, false) => keys.logits::<S, 4, 1>(s, first, count, logits),
            (1, true) => keys.logits::<S, 8, 1>(s, first, count, logits),
            (2 | 3, false) => keys.logits::<S, 2, 2>(s, first, count, logits),
            (2 | 3, true) => keys.logits::<S, 4, 2>(s, first, count, logits),
            (_, false) => keys.logits::<S, 1, 4>(s, first, count, logits),
            (_, true) => keys.logits::<S, 4, 4>(s, first, count, logits),
        }
        let logits = &mut buffers.logits[..];
        for head in 0..group {
            let logits = &mut logits[head * (BLOCK / LANES)..][..BLOCK / LANES];
            if let Some(cap) = kv.softcap {
                soft_cap(s, logits, cap);
            }
            logits.as_flattened_mut()[count..].fill(f32::NEG_INFINITY);
            partial.weigh(s, head, logits);
        }
        let weights = Weights { values: logits.as_flattened(), stride: BLOCK, heads: group };
        let value = |i: usize| kv.value(positions.get(first + i));
        let out = &mut partial.out[..];
        if group > 1 {
            add_to_group(s, value, count, weights, out, stride);
            continue;
        }
        let mut i = 0;
        while i + PASS <= count {
            let rows = [value(i), value(i + 1), value(i + 2), value(i + 3)];
            add_weighted::<S, E, PASS>(s, rows, weights, i, out, stride);
            i += PASS;
        }
        for i in i..count {
            add_weighted(s, [value(i)], weights, i, out, stride);
        }
    }
}

/// Adds `count` weighted values to the sums of all heads of a group, four heads at a time.
#[inline(always)]
fn add_to_group<'a, S: Simd, E: Element>(
    s: S,
    value: impl Fn(usize) -> &'a [E] + Copy,
    count: usize,
    weights: Weights<'_>,
    out: &mut [Lanes],
    stride: usize,
) {
    let mut head = 0;
    while head < weights.heads {
        let of_heads = Weights { values: &weights.values[head * weights.stride..], ..weights };
        let out = &mut out[head * stride..];
        match weights.heads - head {
            1 => add_in_columns::<S, E, 1>(s, value, count, of_heads, out, stride),
            2 => add_in_columns::<S, E, 2>(s, value, count, of_heads, out, stride),
            3 => add_in_columns::<S, E, 3>(s, value, count, of_heads, out, stride),
            _ => add_in_columns::<S, E, 4>(s, value, count, of_heads, out, stride),
        }
        head += 4;
    }
}

/// The keys of the positions, and the queries that they are multiplied with.
struct Keys<'a, E, P> {
    kv: &'a KeyValues<'a, E>,
    positions: P,
    queries: &'a [Lanes],
    stride: usize,
}

impl<E: Element, P: Positions> Keys<'_, E, P> {
    /// Logits of all heads for `count` keys from the `first` on: `ROWS` keys and `HEADS` heads at a
    /// time while there are as many.
    #[inline(always)]
    fn logits<S: Simd, const ROWS: usize, const HEADS: usize>(
        &self,
        s: S,
        first: usize,
        count: usize,
        logits: &mut [f32],
    ) {
        let mut i = 0;
        while i + ROWS <= count {
            self.logits_of::<S, ROWS, HEADS>(s, first + i, i, logits);
            i += ROWS;
        }
        if ROWS > 1 {
            for i in i..count {
                self.logits_of::<S, 1, HEADS>(s, first + i, i, logits);
            }
        }
    }

    #[inline(always)]
    fn logits_of<S: Simd, const ROWS: usize, const HEADS: usize>(
        &self,
        s: S,
        first: usize,
        to: usize,
        logits: &mut [f32],
    ) {
        let group = self.queries.len() / self.stride;
        for i in first..first + ROWS {
            if P::APART {
                s.prefetch(self.kv.value(self.positions.get(i)));
                if i + AHEAD < self.positions.len() {
                    s.prefetch(self.kv.key(self.positions.get(i + AHEAD)));
                }
            }
        }
        let mut rows: [&[E]; ROWS] = [&[]; ROWS];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = self.kv.key(self.positions.get(first + i));
        }
        let mut head = 0;
        while head + HEADS <= group {
            let queries = &self.queries[head * self.stride..];
            let found = dots::<S, E, ROWS, HEADS>(s, rows, queries, self.stride, &[]);
            for i in 0..ROWS {
                for h in 0..HEADS {
                    logits[(head + h) * BLOCK + to + i] = found[i][h];
                }
            }
            head += HEADS;
        }
        if HEADS > 1 {
            for head in head..group {
                let found =
                    dots::<S, E, ROWS, 1>(s, rows, &self.queries[head * self.stride..], self.stride, &[]);
                for i in 0..ROWS {
                    logits[head * BLOCK + to + i] = found[i][0];
                }
            }
        }
    }
}

/// Caps logits.
#[inline(always)]
pub(super) fn soft_cap<S: Simd>(s: S, logits: &mut [Lanes], cap: f32) {
    for x in logits {
        s.store(s.soft_cap(s.load(x), cap), x);
    }
}

/// Copies rows, each multiplied by `scale` and filled up with zeros to whole vectors.
pub(super) fn pad_rows(rows: &[f32], len: usize, scale: f32, padded: &mut Vec<Lanes>) {
    let stride = len.div_ceil(LANES);
    padded.clear();
    padded.resize(rows.len() / len * stride, [0.0; LANES]);
    for (padded, row) in padded.chunks_exact_mut(stride).zip(rows.chunks_exact(len)) {
        for (padded, x) in padded.as_flattened_mut().iter_mut().zip(row) {
            *padded = x * scale;
        }
    }
}

/// Adds logits to a running maximum and a sum of weights relative to it; leaves the weights in their
/// place where they are to be kept.
///
/// Minus infinity has no weight. Logits that overflowed upwards or are not numbers make a sum that is
/// not a number; where all are minus infinity it is zero, and the maximum is the least number there is.
#[inline(always)]
pub(super) fn log_sum_exp<S: Simd, const KEEP: bool>(
    s: S,
    logits: &mut [Lanes],
    maximum: &mut f32,
    sum: &mut f32,
) {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for x in &*logits {
        largest = s.max(largest, s.load(x));
    }
    let before = *maximum;
    // Never infinite itself: what follows would not be a number for masked logits either.
    *maximum = before.max(s.largest(largest)).max(f32::MIN);
    let minus_maximum = s.splat(-*maximum);
    let mut added = s.splat(0.0);
    for x in logits {
        let weight = s.exp(s.add(s.load(x), minus_maximum));
        added = s.add(added, weight);
        if KEEP {
            s.store(weight, x);
        }
    }
    *sum = *sum * (before - *maximum).exp() + s.sum(added); // times 0 for the first block
}

impl Partial {
    fn clear(&mut self, group: usize, stride: usize) {
        self.out.clear();
        self.out.resize(group * stride, [0.0; LANES]);
        self.maxima.clear();
        self.maxima.resize(group, f32::NEG_INFINITY);
        self.sums.clear();
        self.sums.resize(group, 0.0);
    }

    /// Turns logits into weights relative to the running maximum, which they may raise.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, s: S, head: usize, logits: &mut [Lanes]) {
        let before = self.maxima[head];
        log_sum_exp::<S, true>(s, logits, &mut self.maxima[head], &mut self.sums[head]);
        let shrink = (before - self.maxima[head]).exp(); // 0 for the first block
        if shrink < 1.0 {
            let stride = self.out.len() / self.maxima.len();
            for x in &mut self.out[head * stride..(head + 1) * stride] {
                s.store(s.mul(s.load(x), s.splat(shrink)), x);
            }
        }
    }

    /// Writes the attention output `[group, head_dim]` over all positions that `parts` have seen, and hands
    /// each head's log-sum-exp to `log_sum_exp`. A head that saw none is left at zero, with [`MASKED`]; one
    /// that saw only logits of minus infinity, or any that overflowed upwards, becomes NaN.
    pub(super) fn merge<'a>(
        parts: impl Iterator<Item = &'a Self> + Clone,
        head_dim: usize,
        out: &mut [f32],
        mut log_sum_exp: impl FnMut(usize, f32),
    ) {
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.fill(0.0);
            let maximum = parts.clone().map(|part| part.maxima[head]).fold(f32::NEG_INFINITY, f32::max);
            if maximum == f32::NEG_INFINITY {
                log_sum_exp(head, MASKED);
                continue;
            }
            let share = |part: &Self| (part.maxima[head] - maximum).exp();
            // Zero where all logits are minus infinity: no weight is a number then.
            let sum: f32 = parts.clone().map(|part| share(part) * part.sums[head]).sum();
            log_sum_exp(head, maximum + sum.ln());
            for part in parts.clone() {
                let stride = part.out.len() / part.maxima.len();
                let weight = share(part) / sum;
                let from = part.out[head * stride..(head + 1) * stride].as_flattened();
                out.iter_mut().zip(from).for_each(|(y, x)| *y += weight * x);
            }
        }
    }
}
