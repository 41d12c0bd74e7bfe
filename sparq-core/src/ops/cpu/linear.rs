//! A linear layer, for few tokens a matrix-vector product that reads each weight once. A token's outputs are the
//! same bits whether it comes alone or beside others: both products add up in the same order.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    Element,
    attend::pad_rows,
    rows::dots,
    simd::{I8_UNIT, LANES, Lanes, Simd, with_simd},
    split::PARALLEL_ABOVE,
    tiles::product,
};

/// Up to this many tokens the product is bound by reading the weights; above, tiles of a matrix product
/// are faster.
const FEW_TOKENS: usize = 4;

/// Weights per task: enough to pay for handing the task out.
const TASK_WEIGHTS: usize = 1 << 17;

/// Rows of weights that are read at a time.
const ROWS: usize = 4;

/// Bytes between what is read and what is brought into the cache. Rows shorter than a page end before the
/// processor finds out that the next ones follow: it brings in a third of what memory can give by itself.
const AHEAD: usize = 16 << 10;

/// Bytes of a page: rows from here on are found by the processor, and more is slower.
const PAGE: usize = 4 << 10;

thread_local! {
    /// The tokens, filled up to whole vectors.
    static TOKENS: RefCell<Vec<Lanes>> = RefCell::default();
}

/// `x · weightᵀ`: `x: [tokens, inputs]`, `weight: [outputs, inputs]`; returns `[tokens, outputs]`.
pub(in crate::ops) fn linear<E: Element>(x: &[f32], weight: &[E], inputs: usize) -> Vec<f32> {
    let (tokens, outputs) = (x.len() / inputs, weight.len() / inputs);
    if tokens > FEW_TOKENS {
        return transpose(&product(x, weight, inputs), outputs, tokens);
    }
    let mut padded = TOKENS.take();
    pad_rows(x, inputs, 1.0, &mut padded);
    // `[outputs, tokens]`: each task writes its own rows.
    let mut transposed = vec![0.0; outputs * tokens];
    let rows = (TASK_WEIGHTS / inputs).max(1).next_multiple_of(ROWS);
    let task = |(out, weight): (&mut [f32], &[E])| with_simd!(s => task(s, &padded, weight, inputs, out));
    match weight.len() > PARALLEL_ABOVE {
        true => transposed.par_chunks_mut(rows * tokens).zip(weight.par_chunks(rows * inputs)).for_each(task),
        false => task((&mut transposed, weight)),
    }
    TOKENS.set(padded);
    if tokens == 1 {
        return transposed;
    }
    (0..tokens).flat_map(|t| transposed[t..].iter().step_by(tokens).copied()).collect()
}

/// [`linear`] with a weight of codes `[outputs, inputs filled up to a multiple of 4]` and scales
/// `[outputs]`.
pub(in crate::ops) fn linear_quantized(x: &[f32], words: &[i32], scales: &[f32], inputs: usize) -> Vec<f32> {
    let per_row = inputs.next_multiple_of(4);
    let codes = bytemuck::cast_slice(words);
    let mut y = match per_row == inputs {
        true => linear::<i8>(x, codes, inputs),
        false => {
            let mut filled = vec![0.0; x.len() / inputs * per_row];
            for (filled, x) in filled.chunks_exact_mut(per_row).zip(x.chunks_exact(inputs)) {
                filled[..inputs].copy_from_slice(x);
            }
            linear::<i8>(&filled, codes, per_row)
        }
    };
    for y in y.chunks_exact_mut(scales.len()) {
        y.iter_mut().zip(scales).for_each(|(y, scale)| *y *= scale * I8_UNIT);
    }
    y
}

/// `[rows, columns]` to `[columns, rows]`, in squares that fit the cache.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    transposed.par_chunks_mut(SIDE * rows).enumerate().for_each(|(band, out)| {
        for first in (0..rows).step_by(SIDE) {
            for (j, out) in out.chunks_exact_mut(rows).enumerate() {
                for i in first..rows.min(first + SIDE) {
                    out[i] = values[i * columns + band * SIDE + j];
                }
            }
        }
    });
    transposed
}

/// `out: [rows, tokens]` for some rows of weights.
#[inline(always)]
fn task<S: Simd, E: Element>(s: S, x: &[Lanes], weight: &[E], inputs: usize, out: &mut [f32]) {
    let stride = inputs.div_ceil(LANES);
    let tokens = x.len() / stride;
    let rows = weight.len() / inputs;
    let row = |i: usize| &weight[i * inputs..(i + 1) * inputs];
    let distance = match inputs * size_of::<E>() < PAGE {
        true => AHEAD / size_of::<E>(),
        false => weight.len(),
    };
    let mut i = 0;
    while i + ROWS <= rows {
        let four = [row(i), row(i + 1), row(i + 2), row(i + 3)];
        let mut ahead = weight.get(i * inputs + distance..).unwrap_or_default();
        for t in 0..tokens {
            let found = dots::<S, E, ROWS, 1>(s, four, &x[t * stride..], stride, ahead);
            ahead = &[];
            for (j, [y]) in found.into_iter().enumerate() {
                out[(i + j) * tokens + t] = y;
            }
        }
        i += ROWS;
    }
    for i in i..rows {
        for t in 0..tokens {
            out[i * tokens + t] = dots::<S, E, 1, 1>(s, [row(i)], &x[t * stride..], stride, &[])[0][0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tokens_in_the_right_places() {
        let x = [1.0, 0.0, 0.0, 1.0, 2.0, 2.0]; // [3, 2]
        let weight = [1.0f32, 10.0, 2.0, 20.0]; // [2, 2]
        assert_eq!(linear(&x, &weight, 2), [1.0, 2.0, 10.0, 20.0, 22.0, 44.0]);
    }

    /// The outputs of a token, to the bit, for any number of tokens beside it.
    fn is_alike<E: Element>(inputs: usize, outputs: usize) {
        let numbers = |count: usize, seed: f32| (0..count).map(move |i| ((i as f32 + 1.0) * seed).sin());
        let weight: Vec<E> = numbers(outputs * inputs, 1.9).map(E::narrow).collect();
        for tokens in [2, 3, 4, 5, 6, 7, 8, 9, 37, 130] {
            let x: Vec<f32> = numbers(tokens * inputs, 0.7).collect();
            let together = linear(&x, &weight, inputs);
            for (t, (x, together)) in x.chunks(inputs).zip(together.chunks(outputs)).enumerate() {
                let alone = linear(x, &weight, inputs);
                let differs = alone.iter().zip(together).position(|(a, b)| a.to_bits() != b.to_bits());
                assert_eq!(differs, None, "token {t} of {tokens}, {outputs} × {inputs}");
                let exact = |row: &[E]| row.iter().zip(x).map(|(w, x)| w.wide() * x).sum::<f32>();
                for (y, row) in together.iter().zip(weight.chunks(inputs)) {
                    assert!((y - exact(row)).abs() <= 1e-4 * exact(row).abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn a_token_is_the_same_beside_others() {
        for (inputs, outputs) in [(50, 131), (16, 5), (7, 33), (1100, 35)] {
            is_alike::<f32>(inputs, outputs);
            is_alike::<half::f16>(inputs, outputs);
            is_alike::<half::bf16>(inputs, outputs);
        }
    }

    #[test]
    fn a_token_is_the_same_beside_others_under_codes() {
        let (inputs, outputs) = (70, 45);
        let code = |i: usize| (i * 37 % 255) as u8 as i8;
        let words: Vec<i32> = (0..outputs * 18)
            .map(|i| i32::from_le_bytes([0, 1, 2, 3].map(|j| code(4 * i + j) as u8)))
            .collect();
        let scales: Vec<f32> = (0..outputs).map(|i| 1e-3 * (i + 1) as f32).collect();
        let x: Vec<f32> = (0..37 * inputs).map(|i| (i as f32 * 0.7).sin()).collect();
        let together = linear_quantized(&x, &words, &scales, inputs);
        for (x, together) in x.chunks(inputs).zip(together.chunks(outputs)) {
            assert_eq!(linear_quantized(x, &words, &scales, inputs), together);
        }
    }
}
