//! A linear layer for few tokens: a matrix-vector product that reads each weight once.

use rayon::prelude::*;

use super::{
    Element, PARALLEL_ABOVE,
    element::{dot, vectorised},
};

/// Up to this many tokens the product is bound by reading the weights; above, a real matrix
/// product is faster.
pub(in crate::ops) const FEW_TOKENS: usize = 4;

/// Weights per task: enough to pay for handing the task out.
const TASK_WEIGHTS: usize = 1 << 15;

/// `x · weightᵀ`: `x: [tokens, inputs]`, `weight: [outputs, inputs]`; returns `[tokens, outputs]`.
pub(in crate::ops) fn linear<E: Element>(x: &[f32], weight: &[E], inputs: usize) -> Vec<f32> {
    let (tokens, outputs) = (x.len() / inputs, weight.len() / inputs);
    // `[outputs, tokens]`: each task writes its own rows.
    let mut transposed = vec![0.0; outputs * tokens];
    let rows = (TASK_WEIGHTS / inputs).max(1);
    let task = |buffer: &mut Vec<f32>, (out, weight): (&mut [f32], &[E])| {
        vectorised(|| {
            for (out, row) in out.chunks_exact_mut(tokens).zip(weight.chunks_exact(inputs)) {
                let row = E::widen(row, buffer);
                for (y, x) in out.iter_mut().zip(x.chunks_exact(inputs)) {
                    *y = dot(row, x);
                }
            }
        });
    };
    match weight.len() > PARALLEL_ABOVE {
        true => transposed
            .par_chunks_mut(rows * tokens)
            .zip(weight.par_chunks(rows * inputs))
            .for_each_init(|| vec![0.0; inputs], task),
        false => task(&mut vec![0.0; inputs], (&mut transposed, weight)),
    }
    if tokens == 1 {
        return transposed;
    }
    (0..tokens).flat_map(|t| transposed[t..].iter().step_by(tokens).copied()).collect()
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
}
