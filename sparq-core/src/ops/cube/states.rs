//! What the chunks of step 1 leave beside scores: maxima and sums of exponentials, best scores.

use cubecl::{cube, prelude::*};

use super::{
    block::{self, Block},
    scores::{GROUP, HEADER, ScorePlan, base_of, candidates_end},
    team::{LOWEST, is_overflow, soft_cap},
};

/// Maximum and sum of exponentials of the cube's live logits, capped.
#[cube]
pub(super) fn softmax_state<N: Size>(
    logits: Vector<f32, N>,
    first: u32,
    start: u32,
    end: u32,
    cap: f32,
    scratch: &mut Shared<[f32]>,
    #[comptime] plan: ScorePlan,
) -> (f32, f32) {
    let mut capped = Array::<f32>::new(plan.vector);
    let mut maximum = LOWEST.runtime();
    #[unroll]
    for e in 0..plan.vector {
        let position = first + e as u32;
        let live = position >= start && position < end;
        let logit = select(live, soft_cap(logits.extract(e), cap, plan.capped), LOWEST);
        capped[e] = logit;
        maximum = f32::max(maximum, logit);
    }
    let maximum = block::reduce(maximum, scratch, true, comptime!(plan.block()));
    let mut sum = 0.0f32;
    #[unroll]
    for e in 0..plan.vector {
        let live = capped[e] > LOWEST;
        sum += select(live, f32::exp(capped[e] - maximum), 0.0f32);
    }
    (maximum, block::reduce(sum, scratch, false, comptime!(plan.block())))
}

/// Scores by which positions are chosen, those that overflowed as the largest number: attention over the
/// chosen positions shows what they come to.
#[cube]
pub(super) fn overflow_first<N: Size>(scores: Vector<f32, N>, #[comptime] plan: ScorePlan) -> Vector<f32, N> {
    let mut finite = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for e in 0..plan.vector {
        let score = scores.extract(e);
        finite.insert(e, select(is_overflow(score), f32::MAX, score));
    }
    finite
}

/// The best of a unit's scores that are chosen among.
#[cube]
pub(super) fn best_candidate<N: Size>(
    scores: Vector<f32, N>,
    first: u32,
    start: u32,
    end: u32,
    #[comptime] plan: ScorePlan,
) -> f32 {
    let mut best = f32::MIN.runtime();
    #[unroll]
    for e in 0..plan.vector {
        let position = first + e as u32;
        let candidate = position >= start && position < end;
        best = f32::max(best, select(candidate, scores.extract(e), f32::MIN));
    }
    best
}

/// Writes the best score of every [`GROUP`] positions of a chunk.
#[cube]
pub(super) fn write_best(
    best: f32,
    stats: &mut [f32],
    first: usize,
    chunk: u32,
    scratch: &mut Shared<[f32]>,
    #[comptime] plan: ScorePlan,
) {
    let unit = UNIT_POS as usize;
    let per_group = comptime!(GROUP / plan.vector);
    let groups = comptime!(plan.units / per_group);
    sync_cube();
    scratch[unit] = best;
    sync_cube();
    if unit < groups {
        let mut best = scratch[unit * per_group];
        #[unroll]
        for i in 1..per_group {
            best = f32::max(best, scratch[unit * per_group + i]);
        }
        stats[first + HEADER + chunk as usize * groups + unit] = best;
    }
}

/// Maximum and sum of exponentials of head `head` over all chunks, on every unit of the cube.
#[cube]
pub(super) fn merge_state(
    stats: &[f32],
    first: usize,
    head: usize,
    chunks: usize,
    scratch: &mut Shared<[f32]>,
    #[comptime] block: Block,
    #[comptime] group: usize,
) -> (f32, f32) {
    let units = comptime!(block.units);
    let mut maximum = LOWEST.runtime();
    let mut chunk = UNIT_POS as usize;
    while chunk < chunks {
        maximum = f32::max(maximum, stats[first + (chunk * group + head) * 2]);
        chunk += units;
    }
    let maximum = block::reduce(maximum, scratch, true, block);
    let mut sum = 0.0f32;
    let mut chunk = UNIT_POS as usize;
    while chunk < chunks {
        let entry = first + (chunk * group + head) * 2;
        sum += stats[entry + 1] * f32::exp(stats[entry] - maximum);
        chunk += units;
    }
    (maximum, block::reduce(sum, scratch, false, block))
}

/// The other rule for groups: scores that are sums of softmax scores. They need all logits first, so
/// they take a launch of their own.
#[cube(launch_unchecked)]
pub(super) fn softmax_scores<N: Size>(
    scores: &mut [Vector<f32, N>],
    stats: &mut [f32],
    local: u32,
    stride: u32,
    words: u32,
    rows: u32,
    cap: f32,
    #[comptime] plan: ScorePlan,
) {
    let unit = UNIT_POS as usize;
    let kv_head = CUBE_POS_Y as usize;
    let place = CUBE_POS_X as usize * plan.units + unit;
    let start = u32::cast_from(stats[kv_head * words as usize]);
    let end = u32::cast_from(stats[kv_head * words as usize + 1]);
    let first = base_of(start) + (place * plan.vector) as u32;
    let states = kv_head * words as usize + HEADER + stride as usize * plan.vector / GROUP;
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(plan.block().scratch()));
    let mut total = Vector::<f32, N>::new(0.0f32);
    for h in 0..plan.group {
        let (maximum, sum) = merge_state(
            &*stats,
            states,
            h,
            CUBE_COUNT_X as usize,
            &mut scratch,
            comptime!(plan.block()),
            plan.group,
        );
        let head = kv_head * plan.group + h;
        let logits = scores[(rows as usize + head) * stride as usize + place];
        let mut weights = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for e in 0..plan.vector {
            weights.insert(e, f32::exp(soft_cap(logits.extract(e), cap, plan.capped) - maximum) / sum);
        }
        total += weights;
    }
    let total = overflow_first::<N>(total, plan);
    scores[kv_head * stride as usize + place] = total;
    let best = best_candidate::<N>(total, first, start, candidates_end(start, end, local), plan);
    write_best(best, stats, kv_head * words as usize, CUBE_POS_X, &mut scratch, plan);
}
