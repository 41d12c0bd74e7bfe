//! SparQ, step 2, the choice of few positions: the same result as [`super::choice`], in fewer passes.
//!
//! A key is looked for that at least `want` values reach and hardly more: over the best scores of the
//! groups of positions where there are many, else over the positions. Whatever reaches it goes on a
//! short list in shared memory, where each candidate counts those before it. That needs no exact
//! threshold, and no order among the units. Where more reach the key than the list holds, by ties above
//! all, the caller turns to the exact rounds.

use cubecl::{cube, prelude::*};

use super::{
    block::{self, Block},
    choice::{Place, Source, Workspace, key, position},
    scores::GROUP,
};

/// Candidates, and groups, that a list holds.
pub(super) const CANDIDATES: usize = 512;
/// The most positions that are chosen so: the lists keep room for more candidates than that.
pub(super) const MOST: usize = 256;
/// Values that a unit loads at a time.
const LOADS: usize = 8;
/// Rounds of bins: each leaves one bin of the one before.
const ROUNDS: usize = 2;

/// A key that at least `want` of the `place.count` values reach. All units of the cube must come here.
#[cube]
fn edge(
    want: u32,
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    #[comptime] block: Block,
    #[comptime] source: Source,
) -> u32 {
    let units = comptime!(block.units as u32);
    let bits = comptime!(block.units.ilog2());
    let unit = UNIT_POS;
    let turns = place.count.div_ceil(comptime!((block.units * LOADS) as u32));
    let mut own = 0u32;
    for turn in 0..turns {
        let first = turn * comptime!((block.units * LOADS) as u32) + unit;
        #[unroll]
        for u in 0..LOADS {
            own = u32::max(
                own,
                key_at(first + comptime!(u as u32) * units, place, scores, stats, &work.list, source),
            );
        }
    }
    let mut high = block::largest(own, &mut work.sums, block);
    // As many values as there are units reach the least of the units' largest, and that is enough.
    let mut low = !block::largest(!own, &mut work.sums, block);
    let mut rest = want;
    let mut open = want < place.count && want > 0u32;

    for _round in 0..ROUNDS {
        work.bins[unit as usize].store(0u32);
        let significant = 32u32 - u32::leading_zeros(high - low);
        let shift = u32::max(significant, bits) - bits;
        sync_cube();
        if open {
            for turn in 0..turns {
                let first = turn * comptime!((block.units * LOADS) as u32) + unit;
                let mut keys = Array::<u32>::new(LOADS);
                #[unroll]
                for u in 0..LOADS {
                    keys[u] =
                        key_at(first + comptime!(u as u32) * units, place, scores, stats, &work.list, source);
                }
                #[unroll]
                for u in 0..LOADS {
                    if keys[u] >= low && keys[u] <= high && keys[u] > 0u32 {
                        // The largest come first, so that a sum over earlier bins counts larger keys.
                        let bin = (units - 1u32) - ((keys[u] - low) >> shift);
                        work.bins[bin as usize].fetch_add(1u32);
                    }
                }
            }
        }
        sync_cube();
        let held = work.bins[unit as usize].load();
        let before = block::sum_before(held, &mut work.sums, block);
        if before < rest && rest <= before + held {
            work.found[0] = (units - 1u32) - unit;
            work.found[1] = before;
            work.found[2] = held;
        }
        sync_cube();
        if open {
            rest -= work.found[1];
            low += work.found[0] << shift;
            high = u32::min(high, low + ((1u32 << shift) - 1u32));
            // A few too many cost less than another round.
            open = work.found[2] > rest + want / 4u32 + 16u32 && shift > 0u32;
        }
        sync_cube();
    }
    select(want < place.count, low, 1u32)
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
        #[unroll]
        for u in 0..LOADS {
            if keys[u] >= place.floor && keys[u] > 0u32 {
                let i = first + comptime!(u as u32) * units;
                if comptime!(source == Source::Groups) {
                    let slot = work.pair[0].fetch_add(1u32);
                    if slot < comptime!(CANDIDATES as u32) {
                        work.list[slot as usize] = i;
                    }
                } else {
                    let slot = work.pair[1].fetch_add(1u32);
                    if slot < comptime!(CANDIDATES as u32) {
                        work.keys[slot as usize] = keys[u];
                        work.offsets[slot as usize] = position(i, place, &work.list, source);
                    }
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
        let floor = edge(want, &all, scores, stats, work, block, Source::Groups);
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
        let floor = edge(want, place, scores, stats, work, block, Source::All);
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
    let mut c = UNIT_POS;
    while c < candidates {
        let own = work.keys[c as usize];
        let offset = work.offsets[c as usize];
        let mut rank = 0u32;
        for i in 0..candidates {
            let other = work.keys[i as usize];
            let before = other > own || (other == own && work.offsets[i as usize] < offset);
            rank += select(before, 1u32, 0u32);
        }
        if rank < want {
            work.list[rank as usize] = offset;
        }
        c += comptime!(block.units as u32);
    }
    sync_cube();
    let kept = select(fits, want, 0u32);
    let mut c = UNIT_POS;
    while c < kept {
        let offset = work.list[c as usize];
        let mut rank = 0u32;
        for i in 0..kept {
            rank += select(work.list[i as usize] < offset, 1u32, 0u32);
        }
        chosen[rank as usize] = base + offset;
        c += comptime!(block.units as u32);
    }
    sync_cube();
    fits
}
