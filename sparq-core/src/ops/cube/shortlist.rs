//! SparQ, step 2, the choice of few positions: the same result as [`super::choice`], in fewer passes.
//!
//! A key is looked for that at least `want` values reach and hardly more, the floor: over the best scores
//! of the groups of positions where there are many, else over the positions. It is the largest that
//! `want` of the largest values of some units reach, each of which has a share of the values. Whatever
//! reaches the floor goes on a short list in shared memory, where each candidate counts those before it.
//! That needs no exact threshold, and no order among the units. Where more reach the floor than the list
//! holds, by ties above all, the caller turns to the exact rounds.

use cubecl::{cube, prelude::*};

use super::{
    block::{self, Block},
    scores::GROUP,
    top_k::{Place, Source, Workspace, key, position},
};

/// Candidates, and groups, that a list holds.
pub(super) const CANDIDATES: usize = 512;
/// The most positions that are chosen so: the list keeps room for more candidates than that.
const MOST: usize = 256;
/// Values that a unit loads at a time.
const LOADS: usize = 4;
/// Units that count for one candidate together, where they exchange values directly.
const COUNTERS: usize = 4;

/// Whether `want` positions are chosen so with a floor among `tops` largest values: the least of hardly
/// more than `want` would be reached by more values than the list holds.
pub(super) const fn covers(want: usize, tops: usize) -> bool {
    want <= MOST && want + want / 3 <= tops
}

/// Largest values among which the floor of `want` values is looked for, of a cube of `units`: few, since each
/// is compared with all others.
pub(super) const fn tops(want: usize, units: usize) -> usize {
    let mut tops = units;
    while covers(want, tops / 2) && tops / 2 * (tops / 2) >= LOADS * units {
        tops /= 2;
    }
    tops
}

/// A key that at least `want` of the `place.count` values reach; 1 where no such key is found. All units of
/// the cube must come here.
#[cube]
fn floor_of(
    want: u32,
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    #[comptime] block: Block,
    #[comptime] tops: usize,
    #[comptime] source: Source,
) -> u32 {
    let units = comptime!(block.units as u32);
    let unit = UNIT_POS;
    let mut own = 0u32;
    for turn in 0..place.count.div_ceil(comptime!((block.units * LOADS) as u32)) {
        let first = turn * comptime!((block.units * LOADS) as u32) + unit;
        #[unroll]
        for u in 0..LOADS {
            own = u32::max(
                own,
                key_at(first + comptime!(u as u32) * units, place, scores, stats, &work.list, source),
            );
        }
    }
    // The largest of the units that share a top, and then how many tops reach it: each of them counts in
    // a part of the tops.
    let shared_by = comptime!(block.units / tops);
    let slot = unit % comptime!(tops as u32);
    work.sums[unit as usize] = own;
    sync_cube();
    let mut top = own;
    #[unroll]
    for other in 1..shared_by {
        let at = (unit + comptime!((other * tops) as u32)) % units;
        top = u32::max(top, work.sums[at as usize]);
    }
    if unit < comptime!(tops as u32) {
        work.keys[slot as usize] = top;
    }
    sync_cube();
    let part = comptime!(tops / shared_by);
    let first = unit / comptime!(tops as u32) * comptime!(part as u32);
    let mut reached = 0u32;
    for turn in 0..comptime!(part / LOADS) {
        #[unroll]
        for u in 0..LOADS {
            let other = work.keys[(first + turn as u32 * comptime!(LOADS as u32)) as usize + u];
            reached += select(other >= top, 1u32, 0u32);
        }
    }
    if comptime!(shared_by > 1) {
        work.sums[unit as usize] = reached;
        sync_cube();
        reached = 0u32;
        #[unroll]
        for other in 0..shared_by {
            reached += work.sums[slot as usize + comptime!(other * tops)];
        }
    }
    let floor = block::largest(select(reached >= want, top, 0u32), &mut work.sums, block);
    u32::max(floor, 1u32)
}

/// [`key`], 0 beyond the last value.
#[cube]
fn key_at(
    i: u32,
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    list: &Shared<[u32]>,
    #[comptime] source: Source,
) -> u32 {
    let within = u32::min(i, place.count - 1u32);
    select(i < place.count, key(within, place, scores, stats, list, source), 0u32)
}

/// Puts what reaches `place.floor` on the list of candidates, of which there may come to be more than
/// the list holds: then the rest is left out. All units of the cube must come here.
#[cube]
fn collect(
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    #[comptime] block: Block,
    #[comptime] source: Source,
) {
    let units = comptime!(block.units as u32);
    for turn in 0..place.count.div_ceil(comptime!((block.units * LOADS) as u32)) {
        let first = turn * comptime!((block.units * LOADS) as u32) + UNIT_POS;
        let mut keys = Array::<u32>::new(LOADS);
        #[unroll]
        for u in 0..LOADS {
            keys[u] = key_at(first + comptime!(u as u32) * units, place, scores, stats, &work.list, source);
        }
        let mut found = 0u32;
        #[unroll]
        for u in 0..LOADS {
            found += select(keys[u] >= place.floor && keys[u] > 0u32, 1u32, 0u32);
        }
        if found > 0u32 {
            let list = comptime!(if source == Source::Groups { 0usize } else { 1usize });
            let mut slot = work.pair[list].fetch_add(found);
            #[unroll]
            for u in 0..LOADS {
                if keys[u] >= place.floor && keys[u] > 0u32 {
                    let i = first + comptime!(u as u32) * units;
                    if slot < comptime!(CANDIDATES as u32) {
                        if comptime!(source == Source::Groups) {
                            work.list[slot as usize] = i;
                        } else {
                            work.keys[slot as usize] = keys[u];
                            work.offsets[slot as usize] = position(i, place, &work.list, source);
                        }
                    }
                    slot += 1u32;
                }
            }
        }
    }
    sync_cube();
}

/// The `want` best positions of `place` in ascending order, from `base` on, in `chosen`; false where
/// there are too many candidates and nothing was chosen. The table of best scores begins at `first_group`
/// and has `groups` entries. All units of the cube must come here.
#[cube]
pub(super) fn choose(
    want: u32,
    base: u32,
    place: &Place,
    first_group: usize,
    groups: u32,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    chosen: &mut Shared<[u32]>,
    #[comptime] block: Block,
    #[comptime] tops: usize,
    #[comptime] source: Source,
) -> bool {
    if UNIT_POS == 0u32 {
        work.pair[0].store(0u32);
        work.pair[1].store(0u32);
    }
    // The first barrier of what follows is before the first use of these.
    let mut picked = 0u32;
    if comptime!(source == Source::Listed) {
        let all = Place {
            first: first_group,
            start: 0u32.runtime(),
            end: groups,
            floor: 1u32.runtime(),
            count: groups,
        };
        let floor = floor_of(want, &all, scores, stats, work, block, tops, Source::Groups);
        let best = Place { first: first_group, start: 0u32.runtime(), end: groups, floor, count: groups };
        collect(&best, scores, stats, work, block, Source::Groups);
        picked = work.pair[0].load();
        let listed = Place {
            first: place.first,
            start: place.start,
            end: place.end,
            floor,
            count: select(want > 0u32, u32::min(picked, comptime!(CANDIDATES as u32)), 0u32)
                * comptime!(GROUP as u32),
        };
        collect(&listed, scores, stats, work, block, Source::Listed);
    } else {
        let floor = floor_of(want, place, scores, stats, work, block, tops, Source::All);
        let every = Place {
            first: place.first,
            start: place.start,
            end: place.end,
            floor,
            count: select(want > 0u32, place.count, 0u32),
        };
        collect(&every, scores, stats, work, block, Source::All);
    }
    let candidates = work.pair[1].load();
    // Fewer than wanted: some have scores that do not compare.
    let fits = picked <= comptime!(CANDIDATES as u32)
        && candidates <= comptime!(CANDIDATES as u32)
        && candidates >= want;
    let candidates = select(fits, candidates, 0u32);

    // Ranks are all different: each of the first has a place in `list`, which nobody reads any more.
    let counters = comptime!(if block.lanes() >= COUNTERS { COUNTERS } else { 1 });
    let at_once = comptime!((block.units / counters) as u32);
    let own_part = UNIT_POS % comptime!(counters as u32);
    for turn in 0..candidates.div_ceil(at_once) {
        let c = turn * at_once + UNIT_POS / comptime!(counters as u32);
        let within = u32::min(c, candidates - 1u32) as usize;
        let own = work.keys[within];
        let offset = work.offsets[within];
        let mut rank = 0u32;
        let mut equal = 0u32;
        for i in 0..candidates.div_ceil(comptime!((counters * LOADS) as u32)) {
            #[unroll]
            for u in 0..LOADS {
                // Past the candidates: nothing is before or equal to 0.
                let other =
                    i * comptime!((counters * LOADS) as u32) + comptime!((u * counters) as u32) + own_part;
                let key = work.keys[u32::min(other, comptime!(CANDIDATES as u32 - 1)) as usize];
                let key = select(other < candidates, key, 0u32);
                rank += select(key > own, 1u32, 0u32);
                equal += select(key == own, 1u32, 0u32);
            }
        }
        // Rare: of equal keys, of which a candidate is one itself, the first position comes first.
        if equal > select(c % comptime!(counters as u32) == own_part, 1u32, 0u32) {
            for i in 0..candidates.div_ceil(comptime!(counters as u32)) {
                let other = i * comptime!(counters as u32) + own_part;
                let at = u32::min(other, candidates - 1u32) as usize;
                let before = work.keys[at] == own && work.offsets[at] < offset;
                rank += select(before && other < candidates, 1u32, 0u32);
            }
        }
        let rank = block::across_keys(rank, false, counters);
        if own_part == 0u32 && c < candidates && rank < want {
            work.list[rank as usize] = offset;
        }
    }
    sync_cube();
    let kept = select(fits, want, 0u32);
    for turn in 0..kept.div_ceil(at_once) {
        let c = turn * at_once + UNIT_POS / comptime!(counters as u32);
        let offset = work.list[u32::min(c, kept - 1u32) as usize];
        let mut rank = 0u32;
        for i in 0..kept.div_ceil(comptime!((counters * LOADS) as u32)) {
            #[unroll]
            for u in 0..LOADS {
                let other =
                    i * comptime!((counters * LOADS) as u32) + comptime!((u * counters) as u32) + own_part;
                let lower = work.list[u32::min(other, kept - 1u32) as usize] < offset;
                rank += select(lower && other < kept, 1u32, 0u32);
            }
        }
        let rank = block::across_keys(rank, false, counters);
        if own_part == 0u32 && c < kept {
            chosen[rank as usize] = base + offset;
        }
    }
    sync_cube();
    fits
}
