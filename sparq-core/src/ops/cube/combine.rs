//! Second launch of a split attention: merges the parts by their log-sum-exp, and mixes in the mean
//! value.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, prelude::*};

use super::{
    empty, f32s,
    limits::Team,
    spans::{Table, word},
    team::merged,
};

/// What the mean value is mixed from.
#[derive(Debug)]
pub(super) enum Mean<'a> {
    /// It is not.
    None,
    /// `α · y + (1 − α) · v̄`.
    Of {
        /// Sum of all values, `[batch, kv_heads, head_dim]`.
        v_sum: &'a CubeTensor,
        /// α, `[batch, heads]`.
        mass: &'a CubeTensor,
        /// Live positions.
        table: &'a Table,
        /// Sizes.
        kv_heads: usize,
    },
}

/// Vectors behind each part's output that hold its maximum and its sum of weights.
const fn tail(vector: usize) -> usize {
    if vector >= 2 { 1 } else { 2 }
}

/// Room for the parts of `heads` outputs: `[heads, splits, vectors + tail]` vectors.
pub(super) fn partials(like: &CubeTensor, heads: usize, splits: usize, team: &Team) -> CubeTensor {
    let row = (team.vectors() + tail(team.vector)) * team.vector;
    empty(like, Shape::new([heads, splits, row]), DType::F32)
}

/// Writes one part; after [`super::team::merge_head`].
#[cube]
pub(super) fn write_partial<N: Size>(
    out: &mut [Vector<f32, N>],
    merge: &Shared<[Vector<f32, N>]>,
    head: usize,
    split: usize,
    splits: usize,
    maximum: f32,
    sum: f32,
    #[comptime] team: Team,
) {
    let vectors = comptime!(team.vectors());
    let row = (head * splits + split) * comptime!(team.vectors() + tail(team.vector));
    let c = UNIT_POS as usize;
    if c < vectors {
        out[row + c] = merged::<N>(merge, c, team);
    }
    if c == 0 {
        if comptime!(team.vector >= 2) {
            let mut state = Vector::<f32, N>::new(maximum);
            state.insert(1usize, sum);
            out[row + vectors] = state;
        } else {
            out[row + vectors] = Vector::new(maximum);
            out[row + vectors + 1] = Vector::new(sum);
        }
    }
}

/// `1 / sum`, zero for the sum of nothing.
#[cube]
pub(super) fn inverse(sum: f32) -> f32 {
    select(sum > 0.0f32, 1.0f32 / f32::max(sum, 1e-37f32), 0.0f32)
}

/// Merges `splits` parts of each head of `output: [batch, heads, 1, head_dim]`.
pub(super) fn launch(partial: &CubeTensor, output: &CubeTensor, splits: usize, team: &Team, mean: &Mean<'_>) {
    let heads = output.meta.shape().num_elements() / team.head_dim;
    let per_sequence = output.meta.shape()[1];
    let (v_sum, mass, table, kv_heads) = match mean {
        Mean::None => (partial, partial, None, 1),
        Mean::Of { v_sum, mass, table, kv_heads } => (*v_sum, *mass, Some(*table), *kv_heads),
    };
    let [start, end, _] = table.map(Table::words).unwrap_or_default();
    let alike = table.is_none_or(|table| table.shared.is_some());
    #[allow(unsafe_code)]
    // SAFETY: one unit per component of `output`, reads within `partial`, made by `partials`.
    unsafe {
        merge::launch_unchecked(
            &output.client,
            CubeCount::Static(heads as u32, 1, 1),
            CubeDim::new_1d(team.head_dim.next_multiple_of(32).min(256) as u32),
            f32s(partial),
            f32s(v_sum),
            f32s(mass),
            table.map_or_else(|| f32s(partial), |table| table.argument(partial)),
            f32s(output),
            start,
            end,
            splits as u32,
            per_sequence as u32,
            (per_sequence / kv_heads) as u32,
            table.is_some(),
            alike,
            *team,
        );
    }
}

/// One cube per query head.
#[cube(launch_unchecked)]
fn merge(
    partial: &[f32],
    v_sum: &[f32],
    mass: &[f32],
    table: &[u32],
    out: &mut [f32],
    start: u32,
    end: u32,
    splits: u32,
    heads: u32,
    group: u32,
    #[comptime] mean: bool,
    #[comptime] alike: bool,
    #[comptime] team: Team,
) {
    let head = CUBE_POS_X as usize;
    let d = comptime!(team.head_dim);
    let row = comptime!((team.vectors() + tail(team.vector)) * team.vector);
    let second = comptime!(d + if team.vector >= 2 { 1 } else { team.vector });
    let first = head * splits as usize;
    let mut maximum = partial[first * row + d];
    for s in 1..splits as usize {
        maximum = f32::max(maximum, partial[(first + s) * row + d]);
    }
    let mut c = UNIT_POS as usize;
    while c < d {
        let mut sum = 0.0f32;
        let mut output = 0.0f32;
        for s in 0..splits as usize {
            let part = (first + s) * row;
            let weight = f32::exp(partial[part + d] - maximum);
            sum += weight * partial[part + second];
            output += weight * partial[part + c];
        }
        let mut y = output * inverse(sum);
        if comptime!(mean) {
            let b = head / heads as usize;
            let start = word(table, b, start, 0usize, alike);
            let end = word(table, b, end, 1usize, alike);
            // The sum is over all values: it says nothing about those that a window leaves.
            if start == 0u32 {
                let alpha = mass[head];
                let of_all = v_sum[head / group as usize * d + c] / f32::cast_from(u32::max(end, 1u32));
                y = alpha * y + (1.0f32 - alpha) * of_all;
            }
        }
        out[head * d + c] = y;
        c += CUBE_DIM_X as usize;
    }
}
