//! Second launch of a split attention: merges the parts by their log-sum-exp, and mixes in the mean
//! value.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, prelude::*};

use super::{
    bind,
    block::{self, Block},
    empty,
    limits::Team,
    spans::{Table, cached_head, span},
    team::{LOWEST, is_overflow, log_sum, merged, nan_where},
};

/// Parts whose weights are in shared memory at a time.
const PARTS: usize = 256;
/// Parts that a unit loads at a time.
const LOADS: usize = 8;

/// What the mean value is mixed from.
#[derive(Debug)]
pub(super) enum Mean<'a> {
    /// It is not.
    None,
    /// `α · y + (1 − α) · v̄`.
    Of {
        /// Sum of all values, `[slots, kv_heads, head_dim]`.
        v_sum: &'a CubeTensor,
        /// Live positions and slots.
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

/// Writes vector `c` of one part, of the head at `slot`; after [`super::team::merge_outputs`].
#[cube]
pub(super) fn write_partial<N: Size>(
    out: &mut [Vector<f32, N>],
    merge: &Shared<[Vector<f32, N>]>,
    slot: usize,
    c: usize,
    head: usize,
    state: (f32, f32),
    #[comptime] team: Team,
) {
    let vectors = comptime!(team.vectors());
    let part = head * CUBE_COUNT_X as usize + CUBE_POS_X as usize;
    let row = part * comptime!(team.vectors() + tail(team.vector));
    out[row + c] = merged::<N>(merge, slot, c, team);
    if c == 0 {
        let (maximum, sum) = state;
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

/// `1 / sum`, zero for the sum of nothing. NaN stays NaN.
#[cube]
pub(super) fn inverse(sum: f32) -> f32 {
    let inverse = select(sum > 0.0f32, 1.0f32 / f32::max(sum, 1e-37f32), 0.0f32);
    nan_where(is_overflow(sum), inverse)
}

/// Merges `splits` parts of each head of `output: [batch, heads, width, head_dim]`. Each head's log-sum-exp
/// goes into the last of its `masses`, of which α is the first.
pub(super) fn launch(
    partial: &CubeTensor,
    output: &CubeTensor,
    masses: &CubeTensor,
    splits: usize,
    team: &Team,
    mean: &Mean<'_>,
) {
    let heads = output.meta.shape().num_elements() / team.head_dim;
    let per_head = masses.meta.shape().num_elements() / heads;
    let per_sequence = output.meta.shape()[1];
    let (v_sum, table, kv_heads) = match mean {
        Mean::None => (partial, None, 1),
        Mean::Of { v_sum, table, kv_heads } => (*v_sum, Some(*table), *kv_heads),
    };
    let [reach, end, _] = table.map(Table::words).unwrap_or_default();
    let alike = table.is_none_or(|table| table.alike);
    #[allow(unsafe_code)]
    // SAFETY: one unit per component of `output`, reads within `partial`, made by `partials`.
    unsafe {
        merge::launch_unchecked(
            &output.client,
            CubeCount::Static(heads as u32, 1, 1),
            CubeDim::new_1d(merge_units(team) as u32),
            bind(partial),
            bind(v_sum),
            bind(masses),
            table.map_or_else(|| bind(partial), |table| table.argument(partial)),
            bind(output),
            reach,
            end,
            splits as u32,
            per_sequence as u32,
            (per_sequence / kv_heads) as u32,
            per_head,
            table.is_some(),
            alike,
            *team,
        );
    }
}

/// Units that merge a head: a power of two that the device has.
const fn merge_units(team: &Team) -> usize {
    if team.units() < PARTS { team.units() } else { PARTS }
}

/// One cube per query head. Units share out the components, and the parts where there are more units.
#[cube(launch_unchecked)]
fn merge(
    partial: &[f32],
    v_sum: &[f32],
    masses: &mut [f32],
    table: &[u32],
    out: &mut [f32],
    reach: u32,
    end: u32,
    splits: u32,
    heads: u32,
    group: u32,
    #[comptime] per_head: usize,
    #[comptime] mean: bool,
    #[comptime] alike: bool,
    #[comptime] team: Team,
) {
    let unit = UNIT_POS as usize;
    let head = CUBE_POS_X as usize;
    let d = comptime!(team.head_dim);
    let units = comptime!(merge_units(&team));
    let block = comptime!(Block::new(units, team.plane));
    // Units side by side at a component, and components per unit.
    let sides = comptime!((units / d.next_power_of_two()).clamp(1, PARTS / LOADS));
    let columns = comptime!(units / sides);
    let per_unit = comptime!(d.div_ceil(columns));
    let row = comptime!((team.vectors() + tail(team.vector)) * team.vector);
    let second = comptime!(d + if team.vector >= 2 { 1 } else { team.vector });
    let splits = splits as usize;
    let first = head * splits;
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block.scratch()));
    let mut weights = Shared::<[f32]>::new_slice(PARTS);

    let mut maximum = LOWEST.runtime();
    let mut s = unit;
    while s < splits {
        maximum = f32::max(maximum, partial[(first + s) * row + d]);
        s += units;
    }
    let maximum = block::reduce(maximum, &mut scratch, true, block);

    let column = unit % columns;
    let side = unit / columns;
    let mut outputs = Array::<f32>::new(per_unit);
    #[unroll]
    for i in 0..per_unit {
        outputs[i] = 0.0f32;
    }
    let mut sum = 0.0f32;
    for chunk in 0..splits.div_ceil(PARTS) {
        sync_cube();
        #[unroll]
        for i in 0..comptime!(PARTS / units) {
            let slot = unit + comptime!(i * units);
            let s = chunk * PARTS + slot;
            let part = (first + usize::min(s, splits - 1)) * row;
            let weight = select(s < splits, f32::exp(partial[part + d] - maximum), 0.0f32);
            weights[slot] = weight;
            sum += weight * partial[part + second];
        }
        sync_cube();
        let count = usize::min(splits - chunk * PARTS, PARTS);
        for turn in 0..count.div_ceil(comptime!(LOADS * sides)) {
            #[unroll]
            for u in 0..LOADS {
                // Beyond the last part the weight is zero, and the last part is read again.
                let slot = (turn * LOADS + u) * sides + side;
                let s = usize::min(chunk * PARTS + slot, splits - 1);
                let weight = weights[slot];
                #[unroll]
                for i in 0..per_unit {
                    let c = usize::min(column + comptime!(i * columns), comptime!(d - 1).runtime());
                    outputs[i] = outputs[i] + weight * partial[(first + s) * row + c];
                }
            }
        }
    }
    let sum = block::reduce(sum, &mut scratch, false, block);
    #[unroll]
    for i in 0..per_unit {
        let c = column + comptime!(i * columns);
        let mut output = outputs[i];
        if comptime!(sides > 1) {
            sync_cube();
            scratch[unit] = output;
            sync_cube();
            output = 0.0f32;
            for other in 0..sides {
                output += scratch[other * columns + column];
            }
        }
        if side == 0 && c < d {
            let mut y = output * inverse(sum);
            if comptime!(mean) {
                let b = head / heads as usize;
                let (start, end) = span(table, b, reach, end, alike);
                // The sum is over all values: it says nothing about those that a window leaves.
                if start == 0u32 {
                    let alpha = masses[head * per_head];
                    let kv_heads = heads / group;
                    let kv_head = cached_head(table, CUBE_POS_X / group, kv_heads, alike) as usize;
                    let of_all = v_sum[kv_head * d + c] / f32::cast_from(u32::max(end, 1u32));
                    y = alpha * y + (1.0f32 - alpha) * of_all;
                }
            }
            out[head * d + c] = y;
        }
    }
    if unit == 0 {
        masses[head * per_head + comptime!(per_head - 1)] = log_sum(maximum, sum);
    }
}
