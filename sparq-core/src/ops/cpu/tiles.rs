//! Products of many tokens with rows of weights, with the sums of [`super::rows::dots`]: each output is one
//! vector of sums over the inputs in their order, whose lanes are added up at the end. So a token's outputs are
//! the same bits whether it comes alone or beside others.
//!
//! A vector may fill several registers. Its parts are gone through one after the other: a tile of outputs whose
//! sums stay in registers is larger then, and less is read for each product.
#![allow(clippy::needless_range_loop)] // of fixed length, over several arrays at once

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    Element,
    element::tail,
    simd::{LANES, Lanes, Simd, with_simd},
};

/// Tokens of a tile.
const TOKENS: usize = 3;

/// Rows of weights of a task, which are converted once.
const PANEL: usize = 32;

/// Tiles of tokens that a panel is multiplied with at a time.
const BLOCK: usize = 16;

/// Vectors of a row that are multiplied at a time, so that what is read again stays in the first-level cache.
const DEPTH: usize = 64;

/// Buffers of a thread.
#[derive(Debug, Default)]
struct Buffers {
    /// Rows of weights in the layout of [`pack`].
    weights: Vec<Lanes>,
    /// `[strips, tiles, rows of a strip, TOKENS]`
    sums: Vec<Lanes>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
    /// Tokens in the layout of [`pack`].
    static PACKED: RefCell<Vec<Lanes>> = RefCell::default();
}

/// `weight · xᵀ`: `x: [tokens, inputs]`, `weight: [outputs, inputs]`; returns `[outputs, tokens]`.
pub(super) fn product<E: Element>(x: &[f32], weight: &[E], inputs: usize) -> Vec<f32> {
    let (tokens, outputs) = (x.len() / inputs, weight.len() / inputs);
    let per_tile = TOKENS * inputs.div_ceil(LANES);
    // Taken out while others work: a thread that waits for them may be given another product.
    let mut packed = PACKED.take();
    packed.resize(tokens.div_ceil(TOKENS) * per_tile, [0.0; LANES]);
    let tiles = packed.par_chunks_mut(per_tile).zip(x.par_chunks(TOKENS * inputs));
    tiles.for_each(|(tile, x)| with_simd!(s => pack::<_, f32, TOKENS>(s, x, inputs, tile)));
    let mut out = vec![0.0; outputs * tokens];
    let panels = out.par_chunks_mut(PANEL * tokens).zip(weight.par_chunks(PANEL * inputs));
    panels.for_each(|(out, weight)| {
        BUFFERS.with_borrow_mut(|buffers| with_simd!(s => panel(s, weight, &packed, inputs, buffers, out)));
    });
    PACKED.set(packed);
    out
}

/// Up to `WIDTH` rows as `[parts of a vector, vectors, WIDTH]`, filled up with zeros.
#[inline(always)]
fn pack<S: Simd, E: Element, const WIDTH: usize>(s: S, rows: &[E], inputs: usize, to: &mut [Lanes]) {
    let (whole, vectors) = (inputs / LANES, inputs.div_ceil(LANES));
    let count = rows.len() / inputs;
    let to = bytemuck::cast_slice_mut::<Lanes, S::Values>(to).as_chunks_mut::<WIDTH>().0;
    if count == WIDTH {
        let mut blocks: [&[[E; LANES]]; WIDTH] = [&[]; WIDTH];
        for i in 0..WIDTH {
            blocks[i] = &rows[i * inputs..].as_chunks().0[..whole];
        }
        for j in 0..whole {
            for i in 0..WIDTH {
                put(s, &blocks[i][j], to, vectors, i, j);
            }
        }
    } else {
        to.fill(bytemuck::Zeroable::zeroed());
        for (i, row) in rows.chunks_exact(inputs).enumerate() {
            for (j, block) in row.as_chunks().0.iter().enumerate() {
                put(s, block, to, vectors, i, j);
            }
        }
    }
    for (i, row) in rows.chunks_exact(inputs).enumerate() {
        if let Some(block) = tail(row) {
            put(s, &block, to, vectors, i, whole);
        }
    }
}

/// Vector `j` of row `i`.
#[inline(always)]
fn put<S: Simd, E: Element, const WIDTH: usize>(
    s: S,
    block: &[E; LANES],
    to: &mut [[S::Values; WIDTH]],
    vectors: usize,
    i: usize,
    j: usize,
) {
    let mut lanes = [0.0; LANES];
    s.store(E::load(s, block), &mut lanes);
    let values = bytemuck::cast_slice::<f32, S::Values>(&lanes);
    for part in 0..size_of::<Lanes>() / size_of::<S::Values>() {
        to[part * vectors + j][i] = values[part];
    }
}

/// `out: [rows, tokens]` for a panel of weights.
#[inline(always)]
fn panel<S: Simd, E: Element>(
    s: S,
    weight: &[E],
    x: &[Lanes],
    inputs: usize,
    buffers: &mut Buffers,
    out: &mut [f32],
) {
    match S::MANY_PARTS {
        true => in_strips::<S, E, 8>(s, weight, x, inputs, buffers, out),
        false => in_strips::<S, E, 4>(s, weight, x, inputs, buffers, out),
    }
}

#[inline(always)]
fn in_strips<S: Simd, E: Element, const ROWS: usize>(
    s: S,
    weight: &[E],
    x: &[Lanes],
    inputs: usize,
    buffers: &mut Buffers,
    out: &mut [f32],
) {
    let rows = weight.len() / inputs;
    let tokens = out.len() / rows;
    let vectors = inputs.div_ceil(LANES);
    let parts = size_of::<Lanes>() / size_of::<S::Values>();
    let Buffers { weights, sums } = buffers;
    weights.resize(rows.div_ceil(ROWS) * ROWS * vectors, [0.0; LANES]);
    for (strip, rows) in weights.chunks_exact_mut(ROWS * vectors).zip(weight.chunks(ROWS * inputs)) {
        pack::<S, E, ROWS>(s, rows, inputs, strip);
    }
    for (block, x) in x.chunks(BLOCK * TOKENS * vectors).enumerate() {
        let tiles = x.len() / (TOKENS * vectors);
        sums.resize(rows.div_ceil(ROWS) * tiles * ROWS * TOKENS, [0.0; LANES]);
        for first in (0..vectors).step_by(DEPTH) {
            let depth = DEPTH.min(vectors - first);
            for part in 0..parts {
                let at = part * vectors + first;
                let mut sums = sums.chunks_exact_mut(ROWS * TOKENS);
                for w in weights.chunks_exact(ROWS * vectors) {
                    let w = &bytemuck::cast_slice::<Lanes, S::Values>(w)[at * ROWS..(at + depth) * ROWS];
                    for x in x.chunks_exact(TOKENS * vectors) {
                        let x =
                            &bytemuck::cast_slice::<Lanes, S::Values>(x)[at * TOKENS..(at + depth) * TOKENS];
                        let Some(sums) = sums.next() else { return };
                        let sums = bytemuck::cast_slice_mut::<Lanes, S::Values>(sums);
                        tile::<S, ROWS>(s, w, x, &mut sums[part..], first == 0);
                    }
                }
            }
        }
        for (strip, sums) in sums.chunks_exact(tiles * ROWS * TOKENS).enumerate() {
            for (tile, sums) in sums.chunks_exact(ROWS * TOKENS).enumerate() {
                let first = (block * BLOCK + tile) * TOKENS;
                add_up::<S, ROWS>(s, sums, &mut out[strip * ROWS * tokens..], tokens, first);
            }
        }
    }
}

/// Adds products to one part of the sums of a tile, which lie a vector apart.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize>(
    s: S,
    w: &[S::Values],
    x: &[S::Values],
    to: &mut [S::Values],
    is_first: bool,
) {
    let parts = size_of::<Lanes>() / size_of::<S::Values>();
    let mut sums = [[s.zero_part(); TOKENS]; ROWS];
    if !is_first {
        for i in 0..ROWS {
            for t in 0..TOKENS {
                sums[i][t] = s.load_part(&to[(i * TOKENS + t) * parts]);
            }
        }
    }
    for (w, x) in w.as_chunks::<ROWS>().0.iter().zip(x.as_chunks::<TOKENS>().0) {
        let mut tokens = [s.zero_part(); TOKENS];
        for t in 0..TOKENS {
            tokens[t] = s.load_part(&x[t]);
        }
        for i in 0..ROWS {
            let w = s.load_part(&w[i]);
            for t in 0..TOKENS {
                sums[i][t] = s.mul_add_part(w, tokens[t], sums[i][t]);
            }
        }
    }
    for i in 0..ROWS {
        for t in 0..TOKENS {
            s.store_part(sums[i][t], &mut to[(i * TOKENS + t) * parts]);
        }
    }
}

/// Adds up the lanes of a tile's sums `[ROWS, TOKENS]` into rows of `tokens` outputs, those of the tile from
/// the `first` on, as far as there are any.
#[inline(always)]
fn add_up<S: Simd, const ROWS: usize>(s: S, sums: &[Lanes], out: &mut [f32], tokens: usize, first: usize) {
    let mut found = [[0.0; TOKENS]; ROWS];
    let to = found.as_flattened_mut().as_chunks_mut::<4>().0;
    for (to, [a, b, c, d]) in to.iter_mut().zip(sums.as_chunks().0) {
        *to = s.sum4([s.load(a), s.load(b), s.load(c), s.load(d)]);
    }
    let count = TOKENS.min(tokens - first);
    for (out, found) in out.chunks_exact_mut(tokens).zip(&found) {
        out[first..first + count].copy_from_slice(&found[..count]);
    }
}
