//! SparQ, step 1: which components of the queries count, and by how much.

use cubecl::{cube, prelude::*};

use super::scores::ScorePlan;

/// Units per query head that add up its magnitudes.
pub(super) const SUMMERS: usize = 16;

/// `i1` and `q[i1] / τ`: the `rank` components where the group's `Σ|q|` is largest, the first of equal
/// ones, and each head's weights for them, or the sum of these over the group.
#[cube]
pub(super) fn choose(
    q: &[f32],
    first: usize,
    magnitudes: &mut Shared<[f32]>,
    components: &mut Shared<[u32]>,
    weights: &mut Shared<[f32]>,
    #[comptime] plan: ScorePlan,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(plan.units);
    let d = comptime!(plan.head_dim);
    let rank = comptime!(plan.rank);
    let mut norms = Shared::<[f32]>::new_slice(comptime!(2 * SUMMERS * plan.group));
    let mut c = unit;
    while c < d {
        let mut magnitude = 0.0f32;
        #[unroll]
        for h in 0..plan.group {
            magnitude += f32::abs(q[first + h * d + c]);
        }
        magnitudes[c] = magnitude;
        c += units;
    }
    sync_cube();
    let mut c = unit;
    while c < d {
        let own = magnitudes[c];
        let mut larger = 0u32;
        for other in 0..d {
            let magnitude = magnitudes[other];
            let before = magnitude > own || (magnitude == own && other < c);
            larger += select(before, 1u32, 0u32);
        }
        if larger < comptime!(rank as u32) {
            components[larger as usize] = c as u32;
        }
        c += units;
    }
    sync_cube();
    let mut i = unit;
    while i < comptime!(plan.group * SUMMERS) {
        let row = first + i / SUMMERS * d;
        let mut all = 0.0f32;
        let mut c = i % SUMMERS;
        while c < d {
            all += f32::abs(q[row + c]);
            c += SUMMERS;
        }
        let mut kept = 0.0f32;
        let mut j = i % SUMMERS;
        while j < rank {
            kept += f32::abs(q[row + components[j] as usize]);
            j += SUMMERS;
        }
        norms[2 * i] = all;
        norms[2 * i + 1] = kept;
        i += units;
    }
    sync_cube();
    let mut inverses = Shared::<[f32]>::new_slice(plan.group);
    if unit < plan.group {
        let mut all = 0.0f32;
        let mut kept = 0.0f32;
        for s in 0..SUMMERS {
            all += norms[2 * (unit * SUMMERS + s)];
            kept += norms[2 * (unit * SUMMERS + s) + 1];
        }
        // τ² ≥ r ≥ 1 but for a query of zeros, whose scores are all zero.
        let squared = comptime!(d as f32) * kept / f32::max(all, 1.2e-38f32);
        inverses[unit] = 1.0f32 / f32::sqrt(f32::max(squared, 1.0f32));
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
