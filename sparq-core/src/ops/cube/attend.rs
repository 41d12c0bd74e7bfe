//! SparQ, step 2 and 3, the kernel: choice, exact attention over the chosen positions and the mean value.

use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    block::{self, Block},
    combine,
    limits::Team,
    scores::{GROUP, HEADER, ScorePlan, base_of, candidates_end},
    shortlist,
    sparq::MASSES,
    states::merge_state,
    team::{self, ROWS, soft_cap},
    top_k::{self, Place, Source, Workspace},
};

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AttendPlan {
    pub(super) scores: ScorePlan,
    pub(super) team: Team,
    pub(super) block: Block,
    /// Groups that the first of the exact rounds picks at most, where no short list is tried.
    pub(super) list: usize,
    /// Groups of positions are chosen among first.
    pub(super) two_rounds: bool,
    /// Largest values for the floor of the short list that is tried before the exact rounds; 0 where
    /// none is tried.
    pub(super) tops: usize,
    /// A branch of the whole cube may have barriers in it.
    pub(super) branches: bool,
    /// Positions per cube.
    pub(super) tile: usize,
    /// Several cubes share the positions.
    pub(super) split: bool,
    pub(super) mean: bool,
}

impl AttendPlan {
    /// Entries of the list of groups; the short list puts what it chose there too.
    const fn list(&self) -> usize {
        if self.short() { shortlist::CANDIDATES } else { self.list }
    }

    const fn candidates(&self) -> usize {
        if self.short() { shortlist::CANDIDATES } else { 0 }
    }

    const fn short(&self) -> bool {
        self.tops > 0
    }

    /// Elements of the shared buffer through which teams without planes add up.
    const fn exchange(&self) -> usize {
        if self.team.planes() { 1 } else { self.team.units() }
    }

    /// Bytes of shared memory that a cube takes.
    pub(super) const fn shared(&self) -> usize {
        let (block, team) = (&self.block, &self.team);
        // Bins, sums, pairs and what was found; the scratch of reductions; masses, rows and what merges.
        let choice = block.units + block.scratch() + 5 + self.list() + 2 * self.candidates() + 3;
        let rows = team.heads + self.tile + self.exchange() + team.states() + team.teams * team.head_dim;
        4 * (choice + block.scratch() + rows)
    }

    const fn source(&self) -> Source {
        if self.two_rounds { Source::Listed } else { Source::All }
    }
}

/// Where a head's scores lie and which of its positions are chosen among.
#[derive(CubeType)]
struct Selection {
    place: Place,
    base: u32,
    want: u32,
    first_group: usize,
    groups: u32,
    kv_head: usize,
    first_head: usize,
    /// First rank of this cube's share.
    lowest: u32,
    /// This cube writes the positions.
    writes: bool,
    kept: u32,
    stride: u32,
    rows: u32,
    cap: f32,
}

/// What softmax over all positions comes to, by head of the cube, and the chosen positions' part of it.
#[derive(CubeType)]
struct Masses {
    maxima: Array<f32>,
    sums: Array<f32>,
    of_chosen: Array<f32>,
}

/// One cube per KV head, tile of its query heads, and share of the positions.
#[cube(launch_unchecked)]
pub(super) fn attend<F: Float, N: Size>(
    q: &[Vector<f32, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    v_sum: &[f32],
    scores: &[f32],
    stats: &[f32],
    out: &mut [Vector<f32, N>],
    positions: &mut [i32],
    masses_out: &mut [f32],
    top_k: u32,
    local: u32,
    kept: u32,
    capacity: u32,
    stride: u32,
    words: u32,
    chunks: u32,
    rows: u32,
    cap: f32,
    scale: f32,
    #[comptime] plan: AttendPlan,
    #[define(F)] _dtype: ElemType,
) {
    let team = comptime!(plan.team);
    let group = comptime!(plan.scores.group);
    let tiles = comptime!((group / team.heads) as u32);
    let kv_head = (CUBE_POS_Y / tiles) as usize;
    let first_head = CUBE_POS_Y as usize * team.heads;
    let block = comptime!(plan.block);
    let units = comptime!(block.units);
    let vectors = comptime!(team.vectors());
    let start = u32::cast_from(stats[kv_head * words as usize]);
    let end = u32::cast_from(stats[kv_head * words as usize + 1]);
    let mut cached_head = kv_head as u32;
    if comptime!(!plan.scores.alike) {
        cached_head = u32::cast_from(stats[(kv_head + 1) * words as usize - 1]);
    }
    let base = base_of(start);
    let candidates = candidates_end(start, end, local);
    let want = u32::min(top_k - u32::min(local, top_k), candidates - start);

    let mut scratch = Shared::<[f32]>::new_slice(comptime!(block.scratch()));
    let mut masses = Masses {
        maxima: Array::<f32>::new(team.heads),
        sums: Array::<f32>::new(team.heads),
        of_chosen: Array::<f32>::new(team.heads),
    };
    if comptime!(plan.scores.per_head) {
        let states = kv_head * words as usize + HEADER + stride as usize / GROUP;
        #[unroll]
        for h in 0..team.heads {
            let head = first_head + h - kv_head * group;
            let (maximum, sum) =
                merge_state(stats, states, head, chunks as usize, &mut scratch, block, group);
            masses.maxima[h] = maximum;
            masses.sums[h] = sum;
            masses.of_chosen[h] = 0.0f32;
        }
    }

    // The choice.
    let mut work = Workspace::new(block, comptime!(plan.list()), comptime!(plan.candidates()));
    let mut chosen = Shared::<[u32]>::new_slice(plan.tile);
    let choice = Selection {
        place: Place {
            first: kv_head * stride as usize,
            start: start - base,
            end: candidates - base,
            floor: 1u32.runtime(),
            count: candidates - start,
        },
        base,
        want,
        first_group: top_k::groups_at(kv_head, words),
        groups: (candidates - base).div_ceil(comptime!(GROUP as u32)),
        kv_head,
        first_head,
        lowest: CUBE_POS_X * comptime!(plan.tile as u32),
        writes: CUBE_POS_X == 0u32 && CUBE_POS_Y % tiles == 0u32,
        kept,
        stride,
        rows,
        cap,
    };
    if comptime!(plan.short()) {
        let done = shortlist::choose(
            want,
            base,
            &choice.place,
            choice.first_group,
            choice.groups,
            scores,
            stats,
            &mut work,
            &mut chosen,
            block,
            plan.tops,
            comptime!(plan.source()),
        );
        let listed = select(done, want, 0u32);
        let mut rank = UNIT_POS;
        while rank < listed {
            let position = chosen[rank as usize];
            note(rank, position - base, &choice, scores, positions, &mut masses, plan);
            rank += comptime!(units as u32);
        }
        // Elsewhere once more over nothing: a barrier must not hang on what was found.
        let count = select(done, 0u32, choice.place.count);
        let groups = select(done, 0u32, choice.groups);
        if comptime!(plan.branches) {
            if !done {
                exact(
                    count,
                    groups,
                    &choice,
                    scores,
                    stats,
                    positions,
                    &mut work,
                    &mut chosen,
                    &mut masses,
                    plan,
                );
            }
        } else {
            exact(
                count,
                groups,
                &choice,
                scores,
                stats,
                positions,
                &mut work,
                &mut chosen,
                &mut masses,
                plan,
            );
        }
    } else {
        let (count, groups) = (choice.place.count, choice.groups);
        exact(count, groups, &choice, scores, stats, positions, &mut work, &mut chosen, &mut masses, plan);
    }
    // The local window is always read.
    let lowest = choice.lowest;
    let mut position = candidates + UNIT_POS;
    while position < end {
        let rank = want + position - candidates;
        if rank >= lowest && rank < lowest + comptime!(plan.tile as u32) {
            chosen[(rank - lowest) as usize] = position;
        }
        note(rank, position - base, &choice, scores, positions, &mut masses, plan);
        position += comptime!(units as u32);
    }
    let held = want + end - candidates;
    if choice.writes {
        let mut rank = held + UNIT_POS;
        while rank < kept {
            positions[kv_head * kept as usize + rank as usize] = -1i32;
            rank += comptime!(units as u32);
        }
    }
    let mut alphas = Shared::<[f32]>::new_slice(team.heads);
    if comptime!(plan.scores.per_head) {
        #[unroll]
        for h in 0..team.heads {
            let alpha = block::reduce(masses.of_chosen[h], &mut scratch, false, block);
            if UNIT_POS == 0u32 {
                alphas[h] = alpha;
                if CUBE_POS_X == 0u32 {
                    let to = (first_head + h) * MASSES;
                    masses_out[to] = alpha;
                    masses_out[to + 1] = team::log_sum(masses.maxima[h], masses.sums[h]);
                }
            }
        }
    }
    sync_cube();

    // Exact attention over this cube's share.
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange()));
    let mut states = Shared::<[f32]>::new_slice(comptime!(team.states()));
    let mut merge = Shared::<[Vector<f32, N>]>::new_slice(comptime!(team.teams * vectors));
    let mut online = team::start::<N>(q, first_head, scale, team);
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
            rows[u] = (cached_head * capacity + position) * comptime!(vectors as u32);
        }
        let sight = team::Sight::all();
        let capped = comptime!(plan.scores.capped);
        team::feed::<F, N>(&mut online, k, v, &rows, live, cap, &mut exchange, &sight, capped, false, team);
    }

    team::merge_states::<N>(&mut online, &mut states, team);
    let (slot, c) = (UNIT_POS as usize / vectors, UNIT_POS as usize % vectors);
    #[unroll]
    for turn in 0..comptime!(team.heads.div_ceil(team.merged_heads())) {
        let first = comptime!(turn * team.merged_heads());
        team::merge_outputs::<N>(&online, &mut merge, first, team);
        if slot < comptime!(team.merged_heads().min(team.heads - first)) {
            let state = team::merged_state(&states, first + slot, team);
            let head = first_head + first + slot;
            if comptime!(plan.split) {
                combine::write_partial::<N>(out, &merge, slot, c, head, state, team);
            } else {
                let mut y = team::merged::<N>(&merge, slot, c, team) * Vector::new(combine::inverse(state.1));
                if comptime!(plan.mean) {
                    // The sum is over all values: it says nothing about those that a window leaves.
                    if start == 0u32 {
                        let mut mean = Vector::<f32, N>::new(0.0f32);
                        #[unroll]
                        for e in 0..team.vector {
                            mean.insert(e, v_sum[(cached_head as usize * vectors + c) * team.vector + e]);
                        }
                        let alpha = alphas[first + slot];
                        let rest = (1.0f32 - alpha) / f32::cast_from(end);
                        y = y * Vector::new(alpha) + mean * Vector::new(rest);
                    }
                }
                out[head * vectors + c] = y;
                if c == 0 {
                    masses_out[head * MASSES + 2] = team::log_sum(state.0, state.1);
                }
            }
        }
    }
}

/// Chooses by the exact rounds among `count` positions in `groups` groups. All units of the cube must
/// come here.
#[cube]
fn exact(
    count: u32,
    groups: u32,
    choice: &Selection,
    scores: &[f32],
    stats: &[f32],
    positions: &mut [i32],
    work: &mut Workspace,
    chosen: &mut Shared<[u32]>,
    masses: &mut Masses,
    #[comptime] plan: AttendPlan,
) {
    let block = comptime!(plan.block);
    let source = comptime!(plan.source());
    let want = choice.want;
    let all = want >= count;
    let mut count = count;
    let mut floor = 1u32.runtime();
    if comptime!(plan.two_rounds) {
        let (picked, least) =
            top_k::pick_groups(want, choice.first_group, groups, scores, stats, work, block);
        count = picked * comptime!(GROUP as u32);
        floor = least;
    }
    let place =
        Place { first: choice.place.first, start: choice.place.start, end: choice.place.end, floor, count };
    let (above, ties) = top_k::threshold(want, all, &place, scores, stats, work, block, source);
    let (larger, equal) = top_k::rank_before(above, &place, scores, stats, work, block, source);
    let mut larger = larger;
    let mut equal = equal;
    let share = place.count.div_ceil(comptime!(block.units as u32));
    let from = u32::min(UNIT_POS * share, place.count);
    let to = u32::min(from + share, place.count);
    for i in from..to {
        let key = top_k::key(i, &place, scores, stats, &work.list, source);
        if top_k::kept(key, above, ties, equal) {
            let rank = larger + u32::min(equal, ties);
            let offset = top_k::position(i, &place, &work.list, source);
            if rank >= choice.lowest && rank < choice.lowest + comptime!(plan.tile as u32) {
                chosen[(rank - choice.lowest) as usize] = choice.base + offset;
            }
            note(rank, offset, choice, scores, positions, masses, plan);
        }
        larger += select(key > above, 1u32, 0u32);
        equal += select(key == above && key > 0u32, 1u32, 0u32);
    }
}

/// Writes down a chosen position, counted from the base, and adds its approximate softmax scores.
#[cube]
fn note(
    rank: u32,
    offset: u32,
    choice: &Selection,
    scores: &[f32],
    positions: &mut [i32],
    masses: &mut Masses,
    #[comptime] plan: AttendPlan,
) {
    if choice.writes {
        positions[choice.kv_head * choice.kept as usize + rank as usize] =
            i32::cast_from(choice.base + offset);
    }
    if comptime!(plan.scores.per_head) {
        #[unroll]
        for h in 0..plan.team.heads {
            // The logits of a group's heads lie behind the scores; a single head's are the scores.
            let row = if comptime!(plan.scores.keep_logits) {
                choice.rows as usize + choice.first_head + h
            } else {
                choice.kv_head
            };
            let logit = scores[row * choice.stride as usize + offset as usize];
            let logit = soft_cap(logit, choice.cap, plan.scores.capped);
            masses.of_chosen[h] += f32::exp(logit - masses.maxima[h]) / masses.sums[h];
        }
    }
}
