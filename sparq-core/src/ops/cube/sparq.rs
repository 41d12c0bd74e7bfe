//! SparQ, step 2 and 3: choice, exact attention over the chosen positions and the mean value, in one
//! launch, or in two where more than [`TILE`] positions are chosen.

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    block,
    choice::{self, LIST, Place, Source, Workspace},
    combine::{self, Mean},
    elem, empty, f32s,
    limits::{Limits, Team},
    scores::{self, GROUP, HEADER, ScorePlan, base_of, candidates_end, merge_state},
    spans::Table,
    team::{self, ROWS, soft_cap},
};
use crate::{ops::SparqStep, spans::Span};

/// Positions that one cube attends to; where there are more, several cubes choose alike and share.
const TILE: usize = 256;

/// What the second launch is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct AttendPlan {
    scores: ScorePlan,
    team: Team,
    /// Groups that the first round picks at most; 0 without a first round.
    list: usize,
    /// Positions per cube.
    tile: usize,
    /// Several cubes share the positions.
    split: bool,
    mean: bool,
}

/// See [`crate::ops::decode_sparq`]; `None` where the kernels do not cover the problem.
pub(super) fn decode(
    q: &CubeTensor,
    k: &CubeTensor,
    k_index: &CubeTensor,
    v: &CubeTensor,
    v_sum: &CubeTensor,
    step: &SparqStep,
) -> Option<(CubeTensor, CubeTensor, CubeTensor)> {
    let [batch, heads, _, head_dim] = q.shape().dims();
    let [_, kv_heads, capacity, _] = k.shape().dims();
    let config = &step.config;
    let limits = Limits::new(&q.client, 9)?;
    let team = limits.team(head_dim, heads / kv_heads, k.dtype)?;
    let tiles = heads / kv_heads / team.heads;
    let floats = q.dtype == DType::F32 && v_sum.dtype == DType::F32;
    let empty_span = step.spans.as_slice().iter().any(Span::is_empty);
    if !floats || empty_span || batch * kv_heads * tiles > limits.cubes_y {
        return None;
    }
    let table = Table::of_spans(&step.spans);
    let scores = scores::launch(q, k_index, step, &table, &limits)?;

    let kept = config.top_k.min(step.spans.max_end());
    let splits = kept.div_ceil(TILE);
    // The first round pays where it leaves few positions to the second.
    let two_rounds = config.top_k <= LIST && config.top_k * GROUP * 2 <= step.spans.max_len();
    let plan = AttendPlan {
        scores: scores.plan,
        team,
        list: if two_rounds { config.top_k } else { 0 },
        tile: kept.div_ceil(splits).next_multiple_of(team.teams * ROWS),
        split: splits > 1,
        mean: config.mean_value,
    };
    let splits = kept.div_ceil(plan.tile);
    let output = empty(q, Shape::new([batch, heads, 1, head_dim]), DType::F32);
    let positions = empty(q, Shape::new([batch, kv_heads, kept]), DType::I32);
    let mass = empty(q, Shape::new([batch, heads]), DType::F32);
    let partial = plan.split.then(|| combine::partials(q, batch * heads, splits, &team));
    #[allow(unsafe_code)]
    // SAFETY: positions come from `0..end`; every output was made for this launch.
    unsafe {
        attend::launch_unchecked(
            &q.client,
            CubeCount::Static(splits as u32, (batch * kv_heads * tiles) as u32, 1),
            CubeDim::new_1d(team.units() as u32),
            team.vector,
            f32s(q),
            k.clone().into_buffer_arg(),
            v.clone().into_buffer_arg(),
            f32s(v_sum),
            f32s(&scores.scores),
            f32s(&scores.stats),
            f32s(partial.as_ref().unwrap_or(&output)),
            positions.clone().into_buffer_arg(),
            f32s(&mass),
            config.top_k as u32,
            config.local_window as u32,
            kept as u32,
            capacity as u32,
            scores.stride as u32,
            scores.words as u32,
            scores.chunks as u32,
            (batch * kv_heads) as u32,
            step.softcap.unwrap_or(1.0),
            plan,
            elem(k.dtype),
        );
    }
    if let Some(partial) = partial {
        let mean = match config.mean_value {
            true => Mean::Of { v_sum, mass: &mass, table: &table, kv_heads },
            false => Mean::None,
        };
        combine::launch(&partial, &output, splits, &team, &mean);
    }
    Some((output, positions, mass))
}

/// One cube per KV head, tile of its query heads, and share of the positions.
#[cube(launch_unchecked)]
fn attend<F: Float, N: Size>(
    q: &[Vector<f32, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    v_sum: &[f32],
    scores: &[f32],
    stats: &[f32],
    out: &mut [Vector<f32, N>],
    positions: &mut [i32],
    mass: &mut [f32],
    top_k: u32,
    local: u32,
    kept: u32,
    capacity: u32,
    stride: u32,
    words: u32,
    chunks: u32,
    rows: u32,
    cap: f32,
    #[comptime] plan: AttendPlan,
    #[define(F)] _dtype: ElemType,
) {
    let team = comptime!(plan.team);
    let group = comptime!(plan.scores.group);
    let tiles = comptime!((group / team.heads) as u32);
    let kv_head = (CUBE_POS_Y / tiles) as usize;
    let first_head = CUBE_POS_Y as usize * team.heads;
    let units = comptime!(team.units());
    let vectors = comptime!(team.vectors());
    let start = u32::cast_from(stats[kv_head * words as usize]);
    let end = u32::cast_from(stats[kv_head * words as usize + 1]);
    let base = base_of(start);
    let candidates = candidates_end(start, end, local);
    let want = u32::min(top_k - u32::min(local, top_k), candidates - start);

    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block::scratch(units)));
    let mut maxima = Array::<f32>::new(team.heads);
    let mut sums = Array::<f32>::new(team.heads);
    let mut masses = Array::<f32>::new(team.heads);
    if comptime!(plan.scores.per_head) {
        let states = kv_head * words as usize + HEADER + stride as usize / GROUP;
        #[unroll]
        for h in 0..team.heads {
            let head = first_head + h - kv_head * group;
            let (maximum, sum) =
                merge_state(stats, states, head, chunks as usize, &mut scratch, units, group);
            maxima[h] = maximum;
            sums[h] = sum;
            masses[h] = 0.0f32;
        }
    }

    // The choice.
    let mut work = Workspace::new(units, plan.list);
    let mut count = candidates - start;
    let mut floor = 1u32.runtime();
    let all = want >= count;
    let source = comptime!(if plan.list > 0 { Source::Listed } else { Source::All });
    if comptime!(plan.list > 0) {
        let groups = (candidates - base).div_ceil(comptime!(GROUP as u32));
        let first = choice::groups_at(kv_head, words);
        let (picked, least) = choice::pick_groups(want, first, groups, scores, stats, &mut work, units);
        count = picked * comptime!(GROUP as u32);
        floor = least;
    }
    let place =
        Place { first: kv_head * stride as usize, start: start - base, end: candidates - base, floor, count };
    let (above, ties) = choice::threshold(want, all, &place, scores, stats, &mut work, units, source);
    let (larger, equal) = choice::rank_before(above, &place, scores, stats, &mut work, units, source);
    let mut larger = larger;
    let mut equal = equal;

    let mut chosen = Shared::<[u32]>::new_slice(plan.tile);
    let lowest = CUBE_POS_X * comptime!(plan.tile as u32);
    let writes = CUBE_POS_X == 0u32 && CUBE_POS_Y % tiles == 0u32;
    let share = place.count.div_ceil(comptime!(units as u32));
    let from = u32::min(UNIT_POS * share, place.count);
    let to = u32::min(from + share, place.count);
    for i in from..to {
        let key = choice::score_key(i, &place, scores, stats, &work, source);
        if choice::kept(key, above, ties, equal) {
            let rank = larger + u32::min(equal, ties);
            let offset = choice::position(i, &place, &work.list, source);
            if rank >= lowest && rank < lowest + comptime!(plan.tile as u32) {
                chosen[(rank - lowest) as usize] = base + offset;
            }
            if writes {
                positions[kv_head * kept as usize + rank as usize] = i32::cast_from(base + offset);
            }
            add_masses(
                offset,
                kv_head,
                first_head,
                scores,
                &maxima,
                &sums,
                &mut masses,
                stride,
                rows,
                cap,
                plan,
            );
        }
        larger += select(key > above, 1u32, 0u32);
        equal += select(key == above && key > 0u32, 1u32, 0u32);
    }
    // The local window is always read.
    let mut position = candidates + UNIT_POS;
    while position < end {
        let rank = want + position - candidates;
        if rank >= lowest && rank < lowest + comptime!(plan.tile as u32) {
            chosen[(rank - lowest) as usize] = position;
        }
        if writes {
            positions[kv_head * kept as usize + rank as usize] = i32::cast_from(position);
        }
        add_masses(
            position - base,
            kv_head,
            first_head,
            scores,
            &maxima,
            &sums,
            &mut masses,
            stride,
            rows,
            cap,
            plan,
        );
        position += comptime!(units as u32);
    }
    let held = want + end - candidates;
    if writes {
        let mut rank = held + UNIT_POS;
        while rank < kept {
            positions[kv_head * kept as usize + rank as usize] = -1i32;
            rank += comptime!(units as u32);
        }
    }
    if comptime!(plan.scores.per_head) {
        #[unroll]
        for h in 0..team.heads {
            let alpha = block::reduce(masses[h], &mut scratch, false, units);
            masses[h] = alpha;
            if UNIT_POS == 0u32 && CUBE_POS_X == 0u32 {
                mass[first_head + h] = alpha;
            }
        }
    }
    sync_cube();

    // Exact attention over this cube's share.
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(if team.planes { 1 } else { team.units() }));
    let mut states = Shared::<[f32]>::new_slice(comptime!(2 * team.teams));
    let mut merge = Shared::<[Vector<f32, N>]>::new_slice(comptime!(team.teams * vectors));
    let mut online = team::start::<N>(q, first_head, team);
    let mine = u32::min(u32::max(held, lowest) - lowest, comptime!(plan.tile as u32));
    let own = UNIT_POS / team.lanes as u32;
    for turn in 0..comptime!(plan.tile / (team.teams * ROWS)) {
        let first = (turn as u32 * comptime!(team.teams as u32) + own) * comptime!(ROWS as u32);
        let live = u32::max(mine, first) - first;
        let mut rows = Array::<u32>::new(ROWS);
        #[unroll]
        for u in 0..ROWS {
            let slot = u32::min(first + u as u32, u32::max(mine, 1u32) - 1u32);
            let position = select(mine > 0u32, u32::min(chosen[slot as usize], end - 1u32), start);
            rows[u] = (kv_head as u32 * capacity + position) * comptime!(vectors as u32);
        }
        team::feed::<F, N>(&mut online, k, v, &rows, live, cap, &mut exchange, plan.scores.capped, team);
    }

    let c = UNIT_POS as usize;
    #[unroll]
    for h in 0..team.heads {
        let (maximum, sum) = team::merge_head::<N>(&online, &mut states, &mut merge, h, team);
        let head = first_head + h;
        if comptime!(plan.split) {
            combine::write_partial::<N>(
                out,
                &merge,
                head,
                CUBE_POS_X as usize,
                CUBE_COUNT_X as usize,
                maximum,
                sum,
                team,
            );
        } else {
            if c < vectors {
                let mut y = team::merged::<N>(&merge, c, team) * Vector::new(combine::inverse(sum));
                if comptime!(plan.mean) {
                    // The sum is over all values: it says nothing about those that a window leaves.
                    if start == 0u32 {
                        let mut mean = Vector::<f32, N>::new(0.0f32);
                        #[unroll]
                        for e in 0..team.vector {
                            mean.insert(e, v_sum[(kv_head * vectors + c) * team.vector + e]);
                        }
                        let rest = (1.0f32 - masses[h]) / f32::cast_from(end);
                        y = y * Vector::new(masses[h]) + mean * Vector::new(rest);
                    }
                }
                out[head * vectors + c] = y;
            }
        }
    }
}

/// Adds a chosen position's approximate softmax scores.
#[cube]
fn add_masses(
    offset: u32,
    kv_head: usize,
    first_head: usize,
    scores: &[f32],
    maxima: &Array<f32>,
    sums: &Array<f32>,
    masses: &mut Array<f32>,
    stride: u32,
    rows: u32,
    cap: f32,
    #[comptime] plan: AttendPlan,
) {
    if comptime!(plan.scores.per_head) {
        #[unroll]
        for h in 0..plan.team.heads {
            // The logits of a group's heads lie behind the scores; a single head's are the scores.
            let row =
                if comptime!(plan.scores.keep_logits) { rows as usize + first_head + h } else { kv_head };
            let logit = soft_cap(scores[row * stride as usize + offset as usize], cap, plan.scores.capped);
            masses[h] += f32::exp(logit - maxima[h]) / sums[h];
        }
    }
}
