//! SparQ, step 1: which components of the queries count, and by how much.

use cubecl::{cube, prelude::*};

use super::{
    block::{across, across_keys},
    scores::ScorePlan,
};

/// Units per query head that add up its magnitudes, where they exchange values directly.
const SUMMERS: usize = 16;
/// Units that compare one magnitude with the others, likewise.
const COUNTERS: usize = 2;
/// Magnitudes that a unit compares its own with at a time.
const LOADS: usize = 8;

/// `i1` and `q[i1] / τ`: the `rank` components where the group's `Σ|q|` is largest, the first of equal
/// ones, and each head's weights for them, or the sum of these over the group.
#[cube]
pub(super) fn choose(
    q: &[f32],
    first: usize,
    magnitudes: &mut Shared<[u32]>,
    components: &mut Shared<[u32]>,
    weights: &mut Shared<[f32]>,
    factor: f32,
    #[comptime] plan: ScorePlan,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(plan.units);
    let d = comptime!(plan.head_dim);
    let rank = comptime!(plan.rank);
    let lanes = comptime!(plan.block().lanes());
    let mut c = unit;
    while c < d {
        let mut magnitude = 0.0f32;
        #[unroll]
        for h in 0..plan.group {
            magnitude += f32::abs(q[first + h * d + c]);
        }
        // Their bits order as they do.
        magnitudes[c] = u32::reinterpret(magnitude);
        c += units;
    }
    sync_cube();
    let counters = comptime!(if lanes >= COUNTERS && units >= d * COUNTERS { COUNTERS } else { 1 });
    let at_once = comptime!(units / counters);
    for turn in 0..comptime!(d.div_ceil(at_once)) {
        let c = turn * at_once + unit / counters;
        let own = magnitudes[usize::min(c, comptime!(d - 1))];
        let mut before = 0u32;
        for run in 0..comptime!(d.div_ceil(counters * LOADS)) {
            let other = (run * counters + unit % counters) * LOADS;
            // Of equal ones, those of earlier runs come before.
            let reach = select(other + LOADS <= c, own, own + 1u32);
            #[unroll]
            for u in 0..LOADS {
                let magnitude = magnitudes[usize::min(other + u, comptime!(d - 1))];
                before += select(magnitude >= reach && other + u < d, 1u32, 0u32);
            }
        }
        let mut before = across_keys(before, false, counters);
        // And of its own run the earlier ones.
        #[unroll]
        for u in 0..LOADS {
            let other = c / LOADS * LOADS + u;
            let equal = magnitudes[usize::min(other, comptime!(d - 1))] == own;
            before += select(equal && other < c, 1u32, 0u32);
        }
        if c < d && before < comptime!(rank as u32) {
            components[before as usize] = c as u32;
        }
    }
    sync_cube();
    let mut inverses = Shared::<[f32]>::new_slice(plan.group);
    let summers = comptime!(lanes.min(SUMMERS));
    let at_once = comptime!(units / summers);
    for turn in 0..comptime!(plan.group.div_ceil(at_once)) {
        let head = turn * at_once + unit / summers;
        let row = first + usize::min(head, comptime!(plan.group - 1)) * d;
        let mut all = 0.0f32;
        for turn in 0..comptime!(d.div_ceil(summers * LOADS)) {
            #[unroll]
            for u in 0..LOADS {
                let c = (turn * LOADS + u) * summers + unit % summers;
                let magnitude = f32::abs(q[row + usize::min(c, comptime!(d - 1))]);
                all += select(c < d, magnitude, 0.0f32);
            }
        }
        let mut kept = 0.0f32;
        for turn in 0..comptime!(rank.div_ceil(summers)) {
            let j = turn * summers + unit % summers;
            let component = components[usize::min(j, comptime!(rank - 1))] as usize;
            kept += select(j < rank, f32::abs(q[row + component]), 0.0f32);
        }
        let all = across(all, false, summers);
        let kept = across(kept, false, summers);
        if unit % summers == 0 && head < plan.group {
            // τ² ≥ r ≥ 1 but for a query of zeros, whose scores are all zero.
            let squared = comptime!(d as f32) * kept / f32::max(all, 1.2e-38f32);
            inverses[head] = factor / f32::sqrt(f32::max(squared, 1.0f32));
        }
    }
    sync_cube();
    let mut i = unit;
    while i < comptime!(plan.rows() * rank) {
        let component = components[i % rank] as usize;
        let mut weight = 0.0f32;
        #[unroll]
        for h in 0..comptime!(if plan.per_head { 1 } else { plan.group }) {
            let head = i / rank + h;
            weight += q[first + head * d + component] * inverses[head];
        }
        weights[i] = weight;
        i += units;
    }
    sync_cube();
}
