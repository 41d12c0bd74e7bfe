//! Matrix products in f32 on one thread: each element is a sum in the order of its factors, so its bits depend
//! neither on the number of rows nor on that of columns.
#![allow(clippy::needless_range_loop)] // of fixed length, over several arrays at once

use super::{
    Element,
    element::tail,
    simd::{LANES, Lanes, Simd},
};

/// Rows that are multiplied at a time: twelve registers of sums where a vector takes two.
const ROWS: usize = 6;

/// `[rows, depth]`, rows `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) depth: usize,
}

/// `out += a · b`, for `b` of `[vectors, depth]`: the vectors of a column of vectors lie together, `height` apart
/// from the next column's. Rows of `out` are `stride` vectors apart.
#[inline(always)]
pub(super) fn add_products<S: Simd>(
    s: S,
    a: Rows<'_>,
    (b, height): (&[Lanes], usize),
    out: &mut [Lanes],
    stride: usize,
) {
    let mut first = 0;
    for out in out.chunks_mut(ROWS * stride) {
        let a = Rows { values: &a.values[first * a.stride..], ..a };
        match (out.len() / stride, S::ROOMY) {
            (6, true) => of_rows::<S, 6, 4>(s, a, b, height, out, stride),
            (6, false) => of_rows::<S, 6, 1>(s, a, b, height, out, stride),
            (5, _) => of_rows::<S, 5, 1>(s, a, b, height, out, stride),
            (4, _) => of_rows::<S, 4, 1>(s, a, b, height, out, stride),
            (3, _) => of_rows::<S, 3, 1>(s, a, b, height, out, stride),
            (2, _) => of_rows::<S, 2, 2>(s, a, b, height, out, stride),
            _ => of_rows::<S, 1, 4>(s, a, b, height, out, stride),
        }
        first += ROWS;
    }
}

#[inline(always)]
fn of_rows<S: Simd, const R: usize, const C: usize>(
    s: S,
    a: Rows<'_>,
    b: &[Lanes],
    height: usize,
    out: &mut [Lanes],
    stride: usize,
) {
    let mut of_row: [&[f32]; R] = [&[]; R];
    for i in 0..R {
        of_row[i] = &a.values[i * a.stride..][..a.depth];
    }
    let vectors = b.len() / height;
    let mut column = 0;
    while column + C <= vectors {
        block::<S, R, C>(s, of_row, &b[column * height..], height, &mut out[column..], stride);
        column += C;
    }
    for column in column..vectors {
        block::<S, R, 1>(s, of_row, &b[column * height..], height, &mut out[column..], stride);
    }
}

/// `R` rows by `C` vectors, whose sums stay in registers.
#[inline(always)]
fn block<S: Simd, const R: usize, const C: usize>(
    s: S,
    a: [&[f32]; R],
    b: &[Lanes],
    height: usize,
    out: &mut [Lanes],
    stride: usize,
) {
    let depth = a[0].len();
    let mut columns: [&[Lanes]; C] = [&[]; C];
    for j in 0..C {
        columns[j] = &b[j * height..][..depth];
    }
    let mut sums = [[s.splat(0.0); C]; R];
    for i in 0..R {
        for j in 0..C {
            sums[i][j] = s.load(&out[i * stride + j]);
        }
    }
    for k in 0..depth {
        let mut x = [s.splat(0.0); C];
        for j in 0..C {
            x[j] = s.load(&columns[j][k]);
        }
        for i in 0..R {
            let factor = s.splat(a[i][k]);
            for j in 0..C {
                sums[i][j] = s.mul_add(factor, x[j], sums[i][j]);
            }
        }
    }
    for i in 0..R {
        for j in 0..C {
            s.store(sums[i][j], &mut out[i * stride + j]);
        }
    }
}

/// Rows of `len` values as columns of vectors, `height` of them apart: `to[c · height + i]` holds values
/// `16 · c..` of row `i`, filled up with zeros.
#[inline(always)]
pub(super) fn pack_rows<S: Simd, E: Element>(s: S, rows: &[E], len: usize, to: &mut [Lanes], height: usize) {
    for (i, row) in rows.chunks_exact(len).enumerate() {
        let (blocks, _) = row.as_chunks::<LANES>();
        for (c, block) in blocks.iter().enumerate() {
            s.store(E::load(s, block), &mut to[c * height + i]);
        }
        if let Some(block) = tail(row) {
            s.store(E::load(s, &block), &mut to[blocks.len() * height + i]);
        }
    }
}

/// Rows of `len` values as columns, from column number `first` on: `to[c · len + i]` holds value `i` of rows
/// `16 · c..`.
#[inline(always)]
pub(super) fn pack_columns<S: Simd, E: Element>(
    s: S,
    rows: &[E],
    len: usize,
    first: usize,
    to: &mut [Lanes],
) {
    for (row, number) in rows.chunks_exact(len).zip(first..) {
        let (to, lane) = (&mut to[number / LANES * len..][..len], number % LANES);
        let (blocks, rest) = row.as_chunks::<LANES>();
        for (to, block) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(blocks) {
            let mut wide = [0.0; LANES];
            s.store(E::load(s, block), &mut wide);
            for i in 0..LANES {
                to[i][lane] = wide[i];
            }
        }
        for (to, x) in to[blocks.len() * LANES..].iter_mut().zip(rest) {
            to[lane] = x.wide();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::with_simd;

    fn numbers(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + 1.0) * seed).sin()).collect()
    }

    #[test]
    fn an_element_is_the_same_in_any_product() {
        let (depth, columns) = (19, 70usize);
        let vectors = columns.div_ceil(LANES);
        let (a, b) = (numbers(14 * depth, 0.7), numbers(depth * columns, 1.3));
        let mut by_column = vec![[0.0; LANES]; vectors * depth];
        let transposed: Vec<f32> = (0..columns)
            .flat_map(|j| (0..depth).map(move |i| (i, j)))
            .map(|(i, j)| b[i * columns + j])
            .collect();
        let mut packed = vec![[0.0; LANES]; vectors * depth];
        with_simd!(s => pack_rows(s, &b, columns, &mut packed, depth));
        with_simd!(s => pack_columns(s, &transposed, depth, 0, &mut by_column));
        assert_eq!(packed, by_column);
        for rows in 1..=14 {
            let a = Rows { values: &a[..rows * depth], stride: depth, depth };
            let mut out = vec![[0.0; LANES]; rows * vectors];
            with_simd!(s => add_products(s, a, (&packed, depth), &mut out, vectors));
            for (i, row) in out.chunks(vectors).enumerate() {
                let alone = Rows { values: &a.values[i * depth..][..depth], ..a };
                let mut one = vec![[0.0; LANES]; vectors];
                with_simd!(s => add_products(s, alone, (&packed, depth), &mut one, vectors));
                assert_eq!(row, one, "row {i} of {rows}");
                for (j, y) in one.as_flattened()[..columns].iter().enumerate() {
                    let exact: f32 = (0..depth).map(|k| alone.values[k] * b[k * columns + j]).sum();
                    assert!((y - exact).abs() < 1e-4);
                }
            }
        }
    }
}
