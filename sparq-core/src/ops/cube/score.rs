//! SparQ, step 1, the kernels: over the transposed keys as they are stored, or over codes of them.

use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    components::choose,
    scores::{GROUP, HEADER, ScorePlan, base_of, candidates_end},
    spans::{cached_head, span},
    states::{best_candidate, overflow_first, softmax_state, write_best},
};
use crate::k_t::BLOCK;

/// Query heads whose logits one unit holds at a time.
const HEADS: usize = 8;

/// Sizes of a launch and what lies where.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Sizes {
    /// As many of the last positions are live, and
    pub(super) reach: u32,
    /// what is beyond the ruler's beginning of their end, where the sequences are alike.
    pub(super) end: u32,
    /// Positions at the end that are read in any case.
    pub(super) local: u32,
    /// Loads per row of the transposed keys.
    pub(super) row: u32,
    /// Vectors per row of scores.
    pub(super) stride: u32,
    /// Words per KV head in the statistics.
    pub(super) words: u32,
    /// KV heads of all sequences.
    pub(super) rows: u32,
    /// KV heads of a sequence.
    pub(super) kv_heads: u32,
    /// Chunks of positions per KV head.
    pub(super) chunks: u32,
    /// Chunks that a cube scores.
    pub(super) runs: u32,
    /// Soft cap on the logits.
    pub(super) cap: f32,
    /// The layer's scale times √d.
    pub(super) factor: f32,
}

/// Scores from transposed keys `[slots, kv_heads, head_dim, capacity]`.
#[cube(launch_unchecked)]
pub(super) fn score<F: Float, N: Size>(
    q: &[f32],
    k_t: &[Vector<F, N>],
    table: &[u32],
    scores: &mut [Vector<f32, N>],
    stats: &mut [f32],
    sizes: Sizes,
    #[comptime] plan: ScorePlan,
    #[define(F)] _dtype: ElemType,
) {
    // There are no scales: nothing reads what stands for them.
    score_with::<F, N, N>(q, k_t, q, table, scores, stats, &sizes, plan);
}

/// Scores from codes `[slots, kv_heads, head_dim, capacity / n]`, with a scale for every [`BLOCK`]
/// positions.
#[cube(launch_unchecked)]
pub(super) fn score_codes<M: Size, N: Size>(
    q: &[f32],
    codes: &[Vector<u32, M>],
    scales: &[f32],
    table: &[u32],
    scores: &mut [Vector<f32, N>],
    stats: &mut [f32],
    sizes: Sizes,
    #[comptime] plan: ScorePlan,
) {
    score_with::<u32, M, N>(q, codes, scales, table, scores, stats, &sizes, plan);
}

#[cube]
fn score_with<F: Numeric, M: Size, N: Size>(
    q: &[f32],
    k_t: &[Vector<F, M>],
    scales: &[f32],
    table: &[u32],
    scores: &mut [Vector<f32, N>],
    stats: &mut [f32],
    sizes: &Sizes,
    #[comptime] plan: ScorePlan,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(plan.units);
    let d = comptime!(plan.head_dim);
    let rank = comptime!(plan.rank);
    let kv_head = CUBE_POS_Y as usize;
    let b = kv_head / sizes.kv_heads as usize;
    let (start, end) = span(table, b, sizes.reach, sizes.end, plan.alike);
    let cached_head = cached_head(table, kv_head as u32, sizes.kv_heads, plan.alike) as usize;
    let words = sizes.words as usize;
    let stride = sizes.stride as usize;

    let mut magnitudes = Shared::<[u32]>::new_slice(d);
    let mut components = Shared::<[u32]>::new_slice(rank);
    let mut weights = Shared::<[f32]>::new_slice(comptime!(plan.rows() * rank));
    let first = kv_head * comptime!(plan.group * d);
    choose(q, first, &mut magnitudes, &mut components, &mut weights, sizes.factor, plan);

    let base = base_of(start);
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(plan.block().scratch()));
    let first_chunk = CUBE_POS_X * sizes.runs;
    for run in 0..u32::min(sizes.runs, sizes.chunks - first_chunk) {
        let chunk = first_chunk + run;
        let place = chunk as usize * units + unit;
        let first = base + (place * plan.vector) as u32;
        let column = column_of(first, cached_head * d, sizes.row, plan);
        let mut total = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for tile in 0..comptime!(plan.rows().div_ceil(HEADS)) {
            let heads = comptime!(HEADS.min(plan.rows() - tile * HEADS));
            let mut logits = Array::<Vector<f32, N>>::new(heads);
            #[unroll]
            for h in 0..heads {
                logits[h] = Vector::new(0.0f32);
            }
            let first_weight = comptime!(tile * HEADS * rank);
            let turns = comptime!(rank / plan.loads);
            for turn in 0..turns {
                add_rows::<F, M, N>(
                    &mut logits,
                    k_t,
                    scales,
                    &components,
                    &weights,
                    &column,
                    turn * plan.loads,
                    first_weight,
                    plan.loads,
                    heads,
                    plan,
                );
            }
            let rest = comptime!(rank % plan.loads);
            if comptime!(rest > 0) {
                add_rows::<F, M, N>(
                    &mut logits,
                    k_t,
                    scales,
                    &components,
                    &weights,
                    &column,
                    comptime!(rank - rest).runtime(),
                    first_weight,
                    rest,
                    heads,
                    plan,
                );
            }
            #[unroll]
            for h in 0..heads {
                let head = comptime!(tile * HEADS + h);
                total += logits[h];
                if comptime!(plan.keep_logits) {
                    let head = kv_head * plan.group + head;
                    scores[(sizes.rows as usize + head) * stride + place] = logits[h];
                }
                if comptime!(plan.per_head) {
                    let (maximum, sum) =
                        softmax_state::<N>(logits[h], first, start, end, sizes.cap, &mut scratch, plan);
                    if unit == 0 {
                        let entry = kv_head * words
                            + HEADER
                            + stride * plan.vector / GROUP
                            + (chunk as usize * plan.group + head) * 2;
                        stats[entry] = maximum;
                        stats[entry + 1] = sum;
                    }
                }
            }
        }
        if comptime!(!plan.softmax) {
            let total = overflow_first::<N>(total, plan);
            scores[kv_head * stride + place] = total;
            let candidates = candidates_end(start, end, sizes.local);
            let best = best_candidate::<N>(total, first, start, candidates, plan);
            write_best(best, stats, kv_head * words, chunk, &mut scratch, plan);
        }
        if place == 0 {
            stats[kv_head * words] = f32::cast_from(start);
            stats[kv_head * words + 1] = f32::cast_from(end);
            if comptime!(!plan.alike) {
                stats[kv_head * words + words - 1] = f32::cast_from(cached_head as u32);
            }
        }
    }
}

/// Where a unit's positions lie in the rows of the transposed keys.
#[derive(CubeType)]
struct Column {
    /// First row of the KV head.
    row: usize,
    /// Loads per row.
    length: usize,
    /// The unit's load in each row.
    load: usize,
    /// The first bit of its positions in that load, for codes.
    bit: u32,
    /// Its scale in each row of scales, and how many there are.
    scale: usize,
    scales: usize,
}

/// The column of positions from `first` on. Beyond the rows it is their last load: a unit there reads
/// what nobody uses.
#[cube]
fn column_of(first: u32, row: usize, length: u32, #[comptime] plan: ScorePlan) -> Column {
    let per_load = comptime!(plan.per_load() as u32);
    let load = u32::min(first / per_load, length - 1u32) as usize;
    let per_scale = comptime!((BLOCK / plan.per_load()).max(1));
    Column {
        row,
        length: length as usize,
        load,
        bit: first % per_load * comptime!(plan.bits as u32),
        scale: load / per_scale,
        scales: length as usize / per_scale,
    }
}

/// Adds `count` components of the unit's keys, from number `first` on, to its logits of `heads` heads,
/// whose weights begin at `first_weight`.
#[cube]
fn add_rows<F: Numeric, M: Size, N: Size>(
    logits: &mut Array<Vector<f32, N>>,
    k_t: &[Vector<F, M>],
    scales: &[f32],
    components: &Shared<[u32]>,
    weights: &Shared<[f32]>,
    column: &Column,
    first: usize,
    #[comptime] first_weight: usize,
    #[comptime] count: usize,
    #[comptime] heads: usize,
    #[comptime] plan: ScorePlan,
) {
    let mut keys = Array::<Vector<F, M>>::new(count);
    let mut steps = Array::<f32>::new(count);
    #[unroll]
    for u in 0..count {
        let row = column.row + components[first + u] as usize;
        keys[u] = k_t[row * column.length + column.load];
        if comptime!(plan.bits > 0) {
            steps[u] = scales[row * column.scales + column.scale];
        }
    }
    #[unroll]
    for u in 0..count {
        let key = widened::<F, M, N>(keys[u], column.bit, plan);
        #[unroll]
        for h in 0..heads {
            let mut weight = weights[comptime!(first_weight + h * plan.rank) + first + u];
            if comptime!(plan.bits > 0) {
                weight *= steps[u];
            }
            logits[h] += key * Vector::new(weight);
        }
    }
}

/// What a unit loaded, in f32; of codes those from `bit` on, without their scale.
#[cube]
fn widened<F: Numeric, M: Size, N: Size>(
    load: Vector<F, M>,
    bit: u32,
    #[comptime] plan: ScorePlan,
) -> Vector<f32, N> {
    let mut values = Vector::<f32, N>::new(0.0f32);
    if comptime!(plan.bits == 0) {
        values = Vector::<f32, N>::cast_from(load);
    } else {
        let half = comptime!(1u32 << (plan.bits - 1));
        let codes = u32::cast_from(load.extract(0usize)) >> bit;
        #[unroll]
        for e in 0..plan.vector {
            let code = (codes >> comptime!((e * plan.bits) as u32)) & comptime!((1u32 << plan.bits) - 1);
            // Two's complement, counted from the least: 2²³ plus that is a float whose last bits are it.
            let float = f32::reinterpret((code ^ half) | 0x4b00_0000u32);
            values.insert(e, float - comptime!((8_388_608 + half) as f32));
        }
    }
    values
}
