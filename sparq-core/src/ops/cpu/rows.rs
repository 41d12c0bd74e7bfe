//! The two products that attention is made of: rows with queries, and weights with rows.
//!
//! Loops over vectors are written out here and in all kernels: a closure that a library function calls
//! (`from_fn`, `map`) is compiled without the processor's vector instructions.
#![allow(clippy::needless_range_loop)] // of fixed length, over several arrays at once

use super::{
    Element,
    element::tail,
    simd::{LANES, Lanes, Simd},
};

/// Rows that [`add_weighted`] adds in one pass over the sums.
pub(super) const PASS: usize = 4;

/// Scalar products of rows of one length with `HEADS` queries, each `stride` vectors apart in `queries`
/// and filled up with zeros. What is read later, `ahead`, is brought into the cache on the way, as much of it
/// as is read.
#[inline(always)]
pub(super) fn dots<S: Simd, E: Element, const ROWS: usize, const HEADS: usize>(
    s: S,
    rows: [&[E]; ROWS],
    queries: &[Lanes],
    stride: usize,
    ahead: &[E],
) -> [[f32; HEADS]; ROWS] {
    let count = rows[0].len() / LANES;
    let mut blocks: [&[[E; LANES]]; ROWS] = [&[]; ROWS];
    for row in 0..ROWS {
        blocks[row] = &rows[row].as_chunks().0[..count];
    }
    let mut whole: [&[Lanes]; HEADS] = [&[]; HEADS];
    for head in 0..HEADS {
        whole[head] = &queries[head * stride..][..count];
    }
    let mut sums = [[s.splat(0.0); HEADS]; ROWS];
    let ahead = ahead.as_chunks::<LANES>().0;
    for j in 0..count {
        if let Some(blocks) = ahead.get(j * ROWS..(j + 1) * ROWS) {
            s.prefetch(blocks);
        }
        let mut x = [s.splat(0.0); ROWS];
        for row in 0..ROWS {
            x[row] = E::load(s, &blocks[row][j]);
        }
        for head in 0..HEADS {
            let q = s.load(&whole[head][j]);
            for row in 0..ROWS {
                sums[row][head] = s.mul_add(x[row], q, sums[row][head]);
            }
        }
    }
    if count < stride {
        for row in 0..ROWS {
            let Some(block) = tail(rows[row]) else { continue };
            let x = E::load(s, &block);
            for head in 0..HEADS {
                let q = s.load(&queries[head * stride + count]);
                sums[row][head] = s.mul_add(x, q, sums[row][head]);
            }
        }
    }
    let mut found = [[0.0; HEADS]; ROWS];
    let (fours, others) = sums.as_flattened().as_chunks::<4>();
    let (to_fours, to_others) = found.as_flattened_mut().as_chunks_mut::<4>();
    for (to, four) in to_fours.iter_mut().zip(fours) {
        *to = s.sum4(*four);
    }
    for (to, v) in to_others.iter_mut().zip(others) {
        *to = s.sum(*v);
    }
    found
}

/// A weight for each head and row: those of a head lie together, `stride` apart from the next head's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) heads: usize,
}

/// `sums[head] += Σ weights[head, first + i] · rows[i]` for rows of one length; the sums of a head lie
/// `stride` vectors apart.
#[inline(always)]
pub(super) fn add_weighted<S: Simd, E: Element, const ROWS: usize>(
    s: S,
    rows: [&[E]; ROWS],
    weights: Weights<'_>,
    first: usize,
    sums: &mut [Lanes],
    stride: usize,
) {
    let len = rows[0].len();
    let count = len / LANES;
    let mut blocks: [&[[E; LANES]]; ROWS] = [&[]; ROWS];
    for i in 0..ROWS {
        blocks[i] = &rows[i].as_chunks().0[..count];
    }
    if weights.heads == 1 {
        // The weights stay in registers.
        let mut w = [s.splat(0.0); ROWS];
        for i in 0..ROWS {
            w[i] = s.splat(weights.values[first + i]);
        }
        for (j, sum) in sums[..count].iter_mut().enumerate() {
            let mut v = s.load(sum);
            for i in 0..ROWS {
                v = s.mul_add(w[i], E::load(s, &blocks[i][j]), v);
            }
            s.store(v, sum);
        }
    } else {
        for j in 0..count {
            let mut x = [s.splat(0.0); ROWS];
            for i in 0..ROWS {
                x[i] = E::load(s, &blocks[i][j]);
            }
            add_block(s, &x, weights, first, &mut sums[j..], stride);
        }
    }
    if count * LANES < len {
        let mut x = [s.splat(0.0); ROWS];
        for i in 0..ROWS {
            if let Some(block) = tail(rows[i]) {
                x[i] = E::load(s, &block);
            }
        }
        add_block(s, &x, weights, first, &mut sums[count..], stride);
    }
}

/// One vector of [`add_weighted`].
#[inline(always)]
fn add_block<S: Simd, const ROWS: usize>(
    s: S,
    x: &[S::V; ROWS],
    weights: Weights<'_>,
    first: usize,
    sums: &mut [Lanes],
    stride: usize,
) {
    for head in 0..weights.heads {
        let of_head = &weights.values[head * weights.stride + first..][..ROWS];
        let sum = &mut sums[head * stride];
        let mut v = s.load(sum);
        for i in 0..ROWS {
            v = s.mul_add(s.splat(of_head[i]), x[i], v);
        }
        s.store(v, sum);
    }
}

/// [`add_weighted`] for `count` rows and `HEADS` heads whose sums stay in registers, for rows that are in the
/// cache.
#[inline(always)]
pub(super) fn add_in_columns<'a, S: Simd, E: Element, const HEADS: usize>(
    s: S,
    row: impl Fn(usize) -> &'a [E] + Copy,
    count: usize,
    weights: Weights<'_>,
    sums: &mut [Lanes],
    stride: usize,
) {
    let mut of_head: [&[f32]; HEADS] = [&[]; HEADS];
    for head in 0..HEADS {
        of_head[head] = &weights.values[head * weights.stride..][..count];
    }
    let whole = if count > 0 { row(0).len() / LANES } else { 0 };
    let mut j = 0;
    while S::ROOMY && j + WIDE <= whole {
        add_columns::<S, E, HEADS, WIDE>(s, row, of_head, sums, stride, j);
        j += WIDE;
    }
    for j in j..whole {
        add_columns::<S, E, HEADS, 1>(s, row, of_head, sums, stride, j);
    }
    if whole < stride {
        add_tails::<S, E, HEADS>(s, row, of_head, sums, stride);
    }
}

/// Vectors of a row that [`add_in_columns`] adds at a time where there are registers for them.
const WIDE: usize = 4;

/// `COLUMNS` whole vectors of a row's length from number `first` on. There is no call and no way out in the loop
/// over the rows: all sums would be put into memory and taken back for it.
#[inline(always)]
fn add_columns<'a, S: Simd, E: Element, const HEADS: usize, const COLUMNS: usize>(
    s: S,
    row: impl Fn(usize) -> &'a [E],
    weights: [&[f32]; HEADS],
    sums: &mut [Lanes],
    stride: usize,
    first: usize,
) {
    let mut v = [[s.splat(0.0); COLUMNS]; HEADS];
    for head in 0..HEADS {
        for j in 0..COLUMNS {
            v[head][j] = s.load(&sums[head * stride + first + j]);
        }
    }
    for i in 0..weights[0].len() {
        let blocks = row(i).as_chunks::<LANES>().0;
        let Some(blocks) = blocks.get(first..).and_then(<[_]>::first_chunk::<COLUMNS>) else { break };
        let mut x = [s.splat(0.0); COLUMNS];
        for j in 0..COLUMNS {
            x[j] = E::load(s, &blocks[j]);
        }
        for head in 0..HEADS {
            let weight = s.splat(weights[head][i]);
            for j in 0..COLUMNS {
                v[head][j] = s.mul_add(weight, x[j], v[head][j]);
            }
        }
    }
    for head in 0..HEADS {
        for j in 0..COLUMNS {
            s.store(v[head][j], &mut sums[head * stride + first + j]);
        }
    }
}

/// The part of a row's length behind its last whole vector.
#[inline(always)]
fn add_tails<'a, S: Simd, E: Element, const HEADS: usize>(
    s: S,
    row: impl Fn(usize) -> &'a [E],
    weights: [&[f32]; HEADS],
    sums: &mut [Lanes],
    stride: usize,
) {
    for i in 0..weights[0].len() {
        let Some(block) = tail(row(i)) else { return };
        let x = E::load(s, &block);
        for head in 0..HEADS {
            let sum = &mut sums[head * stride + stride - 1];
            s.store(s.mul_add(s.splat(weights[head][i]), x, s.load(sum)), sum);
        }
    }
}
