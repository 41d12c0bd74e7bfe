//! SparQ, step 1: approximate scores of all positions from `r` rows of the transposed keys.
//!
//! One cube takes a chunk of positions of one KV head. It chooses the `r` components by itself, reads
//! its part of their rows once for the whole group of query heads, and leaves scores, the best score
//! of every [`GROUP`] positions, and where α is wanted each head's maximum and sum of exponentials.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    block, elem, empty, f32s,
    limits::Limits,
    spans::{Table, word},
    team::{LOWEST, soft_cap},
};
use crate::{config::GroupScores, ops::SparqStep};

/// Positions that share one entry of the table of best scores.
pub(super) const GROUP: usize = 32;
/// Query heads whose logits one unit holds at a time.
const HEADS: usize = 8;
/// Rows of the index that a unit loads at a time.
const LOADS: usize = 8;
/// Units per query head that add up its magnitudes.
const SUMMERS: usize = 16;
/// Words before the table of best scores: start and end of the live positions.
pub(super) const HEADER: usize = 2;

/// Where the scores of a step lie. Known when a kernel is compiled, but for the sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScorePlan {
    head_dim: usize,
    /// Query heads per KV head.
    pub(super) group: usize,
    rank: usize,
    units: usize,
    vector: usize,
    /// The group's heads are scored one by one, for α or for the sum of softmax scores.
    pub(super) per_head: bool,
    /// The logits of each head are kept behind the scores.
    pub(super) keep_logits: bool,
    /// The scores select by sums of softmax scores.
    pub(super) softmax: bool,
    /// The sequences of the batch are alike.
    pub(super) alike: bool,
    /// There is a soft cap.
    pub(super) capped: bool,
}

impl ScorePlan {
    const fn rows(&self) -> usize {
        if self.per_head { self.group } else { 1 }
    }

    const fn chunk(&self) -> usize {
        self.units * self.vector
    }
}

/// Scores of a step on the device.
#[derive(Debug)]
pub(super) struct Scores {
    /// `[batch · kv_heads, stride]`, and behind it each query head's logits
    /// `[batch · heads, stride]` where they are kept.
    pub(super) scores: CubeTensor,
    /// Per KV head: start, end, best score of each [`GROUP`] positions, then each chunk's maximum and
    /// sum of exponentials per query head.
    pub(super) stats: CubeTensor,
    /// Positions per row of scores, counted from the start of a group of positions.
    pub(super) stride: usize,
    /// Words per KV head in `stats`.
    pub(super) words: usize,
    /// Chunks of positions per KV head.
    pub(super) chunks: usize,
    /// What is there.
    pub(super) plan: ScorePlan,
}

/// Launches step 1; `None` where the kernel does not cover the problem.
pub(super) fn launch(
    q: &CubeTensor,
    index: &CubeTensor,
    step: &SparqStep,
    table: &Table,
    limits: &Limits,
) -> Option<Scores> {
    let [batch, heads, _, head_dim] = q.meta.shape().dims();
    let [_, kv_heads, _, capacity] = index.meta.shape().dims();
    let (config, group) = (&step.config, heads / kv_heads);
    let softmax = config.group_scores == GroupScores::Softmax;
    let per_head = softmax || step.retained_mass || config.mean_value;
    // Short rows are a matter of latency: narrower loads put more units to work.
    let positions = batch * kv_heads * step.spans.max_len();
    let mut vector = limits.vector(capacity, index.dtype).min(GROUP);
    while vector > 2 && positions / vector < limits.busy * 32 {
        vector /= 2;
    }
    // Large cubes where they still fill the device.
    let wide = positions / vector >= limits.busy * limits.units / 2;
    let plan = ScorePlan {
        head_dim,
        group,
        rank: config.rank,
        units: if wide { limits.units } else { limits.units.min(128) },
        vector,
        per_head,
        keep_logits: per_head && (softmax || group > 1),
        softmax,
        alike: table.shared.is_some(),
        capped: step.softcap.is_some(),
    };
    let shared = 4 * (head_dim + config.rank * (1 + plan.rows()) + 2 * SUMMERS * group + 2 * plan.units);
    if batch * kv_heads > limits.cubes_y || shared > 12 * 1024 {
        return None;
    }
    let longest = step.spans.as_slice().iter().map(|span| span.end - span.start / GROUP * GROUP).max()?;
    let chunks = longest.div_ceil(plan.chunk());
    let stride = chunks * plan.chunk();
    let words = HEADER + stride / GROUP + if per_head { chunks * group * 2 } else { 0 };
    let rows = batch * kv_heads + if plan.keep_logits { batch * heads } else { 0 };
    let scores = Scores {
        scores: empty(q, Shape::new([rows, stride]), DType::F32),
        stats: empty(q, Shape::new([batch * kv_heads, words]), DType::F32),
        stride,
        words,
        chunks,
        plan,
    };
    let [start, end, _] = table.words();
    let count = CubeCount::Static(chunks as u32, (batch * kv_heads) as u32, 1);
    #[allow(unsafe_code)]
    // SAFETY: reads stay below the capacity, writes within the buffers made above.
    unsafe {
        score::launch_unchecked(
            &q.client,
            count.clone(),
            CubeDim::new_1d(plan.units as u32),
            vector,
            f32s(q),
            index.clone().into_buffer_arg(),
            table.argument(q),
            f32s(&scores.scores),
            f32s(&scores.stats),
            start,
            end,
            config.local_window as u32,
            (capacity / vector) as u32,
            (stride / vector) as u32,
            words as u32,
            (batch * kv_heads) as u32,
            kv_heads as u32,
            step.softcap.unwrap_or(1.0),
            plan,
            elem(index.dtype),
        );
        if softmax {
            softmax_scores::launch_unchecked(
                &q.client,
                count,
                CubeDim::new_1d(plan.units as u32),
                vector,
                f32s(&scores.scores),
                f32s(&scores.stats),
                config.local_window as u32,
                (stride / vector) as u32,
                words as u32,
                (batch * kv_heads) as u32,
                step.softcap.unwrap_or(1.0),
                plan,
            );
        }
    }
    Some(scores)
}

/// Where a cube's positions begin, from the start of the live ones.
#[cube]
pub(super) fn base_of(start: u32) -> u32 {
    start / comptime!(GROUP as u32) * comptime!(GROUP as u32)
}

/// End of the positions that are chosen among: the last `local` live ones are read in any case.
#[cube]
pub(super) fn candidates_end(start: u32, end: u32, local: u32) -> u32 {
    end - u32::min(local, end - start)
}

#[cube(launch_unchecked)]
fn score<F: Float, N: Size>(
    q: &[f32],
    index: &[Vector<F, N>],
    table: &[u32],
    scores: &mut [Vector<f32, N>],
    stats: &mut [f32],
    start: u32,
    end: u32,
    local: u32,
    capacity: u32,
    stride: u32,
    words: u32,
    rows: u32,
    kv_heads: u32,
    cap: f32,
    #[comptime] plan: ScorePlan,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let units = comptime!(plan.units);
    let d = comptime!(plan.head_dim);
    let rank = comptime!(plan.rank);
    let kv_head = CUBE_POS_Y as usize;
    let b = kv_head / kv_heads as usize;
    let start = word(table, b, start, 0usize, plan.alike);
    let end = word(table, b, end, 1usize, plan.alike);

    let mut magnitudes = Shared::<[f32]>::new_slice(d);
    let mut components = Shared::<[u32]>::new_slice(rank);
    let mut weights = Shared::<[f32]>::new_slice(comptime!(plan.rows() * rank));
    choose(q, kv_head * comptime!(plan.group * d), &mut magnitudes, &mut components, &mut weights, plan);

    let base = base_of(start);
    let place = CUBE_POS_X as usize * units + unit;
    let first = base + (place * plan.vector) as u32;
    // A unit beyond the rows reads their last vector; its scores are not used.
    let column = u32::min(first / comptime!(plan.vector as u32), capacity - 1u32) as usize;
    let row = kv_head * d;
    let mut total = Vector::<f32, N>::new(0.0f32);
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block::scratch(units)));
    #[unroll]
    for tile in 0..comptime!(plan.rows().div_ceil(HEADS)) {
        let heads = comptime!(HEADS.min(plan.rows() - tile * HEADS));
        let mut logits = Array::<Vector<f32, N>>::new(heads);
        #[unroll]
        for h in 0..heads {
            logits[h] = Vector::new(0.0f32);
        }
        for turn in 0..comptime!(rank / LOADS) {
            let mut keys = Array::<Vector<F, N>>::new(LOADS);
            #[unroll]
            for u in 0..LOADS {
                let component = components[turn * LOADS + u] as usize;
                keys[u] = index[(row + component) * capacity as usize + column];
            }
            #[unroll]
            for u in 0..LOADS {
                let key = Vector::<f32, N>::cast_from(keys[u]);
                #[unroll]
                for h in 0..heads {
                    let weight = weights[comptime!((tile * HEADS + h) * rank) + turn * LOADS + u];
                    logits[h] += key * Vector::new(weight);
                }
            }
        }
        #[unroll]
        for j in comptime!(rank / LOADS * LOADS)..rank {
            let key = Vector::<f32, N>::cast_from(
                index[(row + components[j] as usize) * capacity as usize + column],
            );
            #[unroll]
            for h in 0..heads {
                logits[h] += key * Vector::new(weights[comptime!((tile * HEADS + h) * rank + j)]);
            }
        }
        #[unroll]
        for h in 0..heads {
            let head = comptime!(tile * HEADS + h);
            total += logits[h];
            if comptime!(plan.keep_logits) {
                let head = kv_head * plan.group + head;
                scores[(rows as usize + head) * stride as usize + place] = logits[h];
            }
            if comptime!(plan.per_head) {
                let (maximum, sum) =
                    softmax_state::<N>(logits[h], first, start, end, cap, &mut scratch, plan);
                if unit == 0 {
                    let entry = kv_head * words as usize
                        + HEADER
                        + stride as usize * plan.vector / GROUP
                        + (CUBE_POS_X as usize * plan.group + head) * 2;
                    stats[entry] = maximum;
                    stats[entry + 1] = sum;
                }
            }
        }
    }
    if comptime!(!plan.softmax) {
        scores[kv_head * stride as usize + place] = total;
        let best = best_candidate::<N>(total, first, start, candidates_end(start, end, local), plan);
        write_best(best, stats, kv_head * words as usize, &mut scratch, plan);
    }
    if place == 0 {
        stats[kv_head * words as usize] = f32::cast_from(start);
        stats[kv_head * words as usize + 1] = f32::cast_from(end);
    }
}

/// `i1` and `q[i1] / τ`: the `rank` components where the group's `Σ|q|` is largest, the first of equal
/// ones, and each head's weights for them, or the sum of these over the group.
#[cube]
fn choose(
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
    let mut i = unit;
    while i < comptime!(plan.rows() * rank) {
        let component = components[i % rank] as usize;
        let mut weight = 0.0f32;
        #[unroll]
        for h in 0..comptime!(if plan.per_head { 1 } else { plan.group }) {
            let head = i / rank + h;
            let mut all = 0.0f32;
            let mut kept = 0.0f32;
            for s in 0..SUMMERS {
                all += norms[2 * (head * SUMMERS + s)];
                kept += norms[2 * (head * SUMMERS + s) + 1];
            }
            // τ² ≥ r ≥ 1 but for a query of zeros, whose scores are all zero.
            let squared = comptime!(d as f32) * kept / f32::max(all, 1.2e-38f32);
            weight += q[first + head * d + component] / f32::sqrt(f32::max(squared, 1.0f32));
        }
        weights[i] = weight;
        i += units;
    }
    sync_cube();
}

/// Maximum and sum of exponentials of the cube's live logits, capped.
#[cube]
fn softmax_state<N: Size>(
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
    let maximum = block::reduce(maximum, scratch, true, plan.units);
    let mut sum = 0.0f32;
    #[unroll]
    for e in 0..plan.vector {
        let live = capped[e] > LOWEST;
        sum += select(live, f32::exp(capped[e] - maximum), 0.0f32);
    }
    (maximum, block::reduce(sum, scratch, false, plan.units))
}

/// The best of a unit's scores that are chosen among.
#[cube]
fn best_candidate<N: Size>(
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

/// Writes the best score of every [`GROUP`] positions of this cube.
#[cube]
fn write_best(
    best: f32,
    stats: &mut [f32],
    first: usize,
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
        stats[first + HEADER + CUBE_POS_X as usize * groups + unit] = best;
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
    #[comptime] units: usize,
    #[comptime] group: usize,
) -> (f32, f32) {
    let mut maximum = LOWEST.runtime();
    let mut chunk = UNIT_POS as usize;
    while chunk < chunks {
        maximum = f32::max(maximum, stats[first + (chunk * group + head) * 2]);
        chunk += units;
    }
    let maximum = block::reduce(maximum, scratch, true, units);
    let mut sum = 0.0f32;
    let mut chunk = UNIT_POS as usize;
    while chunk < chunks {
        let entry = first + (chunk * group + head) * 2;
        sum += stats[entry + 1] * f32::exp(stats[entry] - maximum);
        chunk += units;
    }
    (maximum, block::reduce(sum, scratch, false, units))
}

/// The other rule for groups: scores that are sums of softmax scores. They need all logits first, so
/// they take a launch of their own.
#[cube(launch_unchecked)]
fn softmax_scores<N: Size>(
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
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block::scratch(plan.units)));
    let mut total = Vector::<f32, N>::new(0.0f32);
    for h in 0..plan.group {
        let (maximum, sum) =
            merge_state(&*stats, states, h, CUBE_COUNT_X as usize, &mut scratch, plan.units, plan.group);
        let head = kv_head * plan.group + h;
        let logits = scores[(rows as usize + head) * stride as usize + place];
        let mut weights = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for e in 0..plan.vector {
            weights.insert(e, f32::exp(soft_cap(logits.extract(e), cap, plan.capped) - maximum) / sum);
        }
        total += weights;
    }
    scores[kv_head * stride as usize + place] = total;
    let best = best_candidate::<N>(total, first, start, candidates_end(start, end, local), plan);
    write_best(best, stats, kv_head * words as usize, &mut scratch, plan);
}
