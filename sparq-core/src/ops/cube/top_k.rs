//! SparQ, step 2, the choice: the exact `k` best of the scores, the first of equal ones, in ascending
//! order, by one cube in shared memory.
//!
//! Two rounds: the `k` best groups of positions by their best score hold the `k` best positions, so
//! the second round looks at `k · GROUP` scores, not at all of them. (Where groups tie at the
//! threshold, the first of them suffice: each holds a position at the threshold that comes before
//! any in a later group.) Each round finds its threshold digit by digit, most significant first, with
//! the digits laid out between the smallest and the largest value, so that they spread over the bins.

use cubecl::{cube, prelude::*};

use super::{
    block::{self, Block},
    scores::{GROUP, HEADER},
};

/// Groups that the first round may pick: more would not fit into shared memory, and be slower.
pub(super) const LIST: usize = 512;

/// What a round chooses among.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The best scores of the groups of positions.
    Groups,
    /// The positions of the groups that the first round picked.
    Listed,
    /// All positions.
    All,
}

/// What a round needs to find its values. All positions count from `base`.
#[derive(CubeType)]
pub(super) struct Place {
    /// First value: of the KV head's scores, or of its table of best scores.
    pub(super) first: usize,
    /// First position to choose among.
    pub(super) start: u32,
    /// One past the last position to choose among.
    pub(super) end: u32,
    /// Values below this one are out.
    pub(super) floor: u32,
    /// Values to look at.
    pub(super) count: u32,
}

/// Shared memory of the rounds.
#[derive(CubeType)]
pub(super) struct Workspace {
    pub(super) bins: Shared<[Atomic<u32>]>,
    /// Two of them: smallest and largest key, or entries of the list and candidates.
    pub(super) pair: Shared<[Atomic<u32>]>,
    pub(super) found: Shared<[u32]>,
    /// Scratch of [`block::sum_before`].
    pub(super) sums: Shared<[u32]>,
    /// Groups that the first round picked.
    pub(super) list: Shared<[u32]>,
    /// Keys of candidates that are ranked one against the other.
    pub(super) keys: Shared<[u32]>,
    /// Where they lie.
    pub(super) offsets: Shared<[u32]>,
}

#[cube]
impl Workspace {
    /// With room for `list` groups and for `candidates`.
    pub(super) fn new(
        #[comptime] block: Block,
        #[comptime] list: usize,
        #[comptime] candidates: usize,
    ) -> Workspace {
        Workspace {
            bins: Shared::<[Atomic<u32>]>::new_slice(block.units),
            pair: Shared::<[Atomic<u32>]>::new_slice(2usize),
            found: Shared::<[u32]>::new_slice(3usize),
            sums: Shared::<[u32]>::new_slice(comptime!(block.scratch())),
            list: Shared::<[u32]>::new_slice(comptime!(list.max(1))),
            keys: Shared::<[u32]>::new_slice(comptime!(candidates.max(1))),
            offsets: Shared::<[u32]>::new_slice(comptime!(candidates.max(1))),
        }
    }
}

/// An integer that orders like the score and is above 0.
#[cube]
fn sortable(score: f32) -> u32 {
    let bits = u32::reinterpret(score);
    let negative = bits >= 0x8000_0000u32;
    let key = select(negative, !bits, bits | 0x8000_0000u32);
    // -0 equals 0.
    let key = select(bits == 0x8000_0000u32, 0x8000_0000u32, key);
    u32::max(key, 1u32)
}

/// Position of value `i`, from `base`.
#[cube]
pub(super) fn position(i: u32, place: &Place, list: &Shared<[u32]>, #[comptime] source: Source) -> u32 {
    let mut position = i;
    if comptime!(source == Source::Listed) {
        position = list[i as usize / GROUP] * comptime!(GROUP as u32) + i % comptime!(GROUP as u32);
    }
    if comptime!(source == Source::All) {
        position = place.start + i;
    }
    position
}

/// Key of value `i`, 0 where it is out.
#[cube]
pub(super) fn key(
    i: u32,
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    list: &Shared<[u32]>,
    #[comptime] source: Source,
) -> u32 {
    if comptime!(source == Source::Groups) {
        sortable(stats[place.first + i as usize])
    } else {
        let position = position(i, place, list, source);
        let key = sortable(scores[place.first + position as usize]);
        let inside = position >= place.start && position < place.end;
        select(inside && key >= place.floor, key, 0u32)
    }
}

/// Threshold and how many values at the threshold are kept, for the `want` best of `place.count`
/// values, or all of them where `all`. All units of the cube must come here.
#[cube]
pub(super) fn threshold(
    want: u32,
    all: bool,
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    #[comptime] block: Block,
    #[comptime] source: Source,
) -> (u32, u32) {
    let unit = UNIT_POS;
    let units = comptime!(block.units);
    let bits = comptime!(units.ilog2());
    let mut above = select(all, 0u32, u32::MAX);
    let mut ties = 0u32;
    let mut open = !all && want > 0u32;

    // The range of the keys.
    sync_cube();
    if unit == 0u32 {
        work.pair[0].store(u32::MAX);
        work.pair[1].store(0u32);
    }
    sync_cube();
    if open {
        let mut smallest = u32::MAX.runtime();
        let mut largest = 0u32;
        let mut i = unit;
        while i < place.count {
            let key = key(i, place, scores, stats, &work.list, source);
            if key > 0u32 {
                smallest = u32::min(smallest, key);
                largest = u32::max(largest, key);
            }
            i += comptime!(units as u32);
        }
        if largest > 0u32 {
            work.pair[0].fetch_min(smallest);
            work.pair[1].fetch_max(largest);
        }
    }
    sync_cube();
    let mut low = work.pair[0].load();
    let mut high = work.pair[1].load();
    let mut rest = want;

    for _pass in 0..comptime!(32u32.div_ceil(bits)) {
        work.bins[unit as usize].store(0u32);
        let significant = 32u32 - u32::leading_zeros(high - low);
        let shift = u32::max(significant, bits) - bits;
        sync_cube();
        if open {
            let mut i = unit;
            while i < place.count {
                let key = key(i, place, scores, stats, &work.list, source);
                if key >= low && key <= high {
                    // The largest come first, so that a sum over earlier bins counts larger keys.
                    let bin = comptime!(units as u32 - 1) - ((key - low) >> shift);
                    work.bins[bin as usize].fetch_add(1u32);
                }
                i += comptime!(units as u32);
            }
        }
        sync_cube();
        let own = work.bins[unit as usize].load();
        let before = block::sum_before(own, &mut work.sums, block);
        if before < rest && rest <= before + own {
            work.found[0] = comptime!(units as u32 - 1) - unit;
            work.found[1] = before;
        }
        // How many keys the found bin holds is in `bins`.
        sync_cube();
        if open {
            let bin = work.found[0];
            rest -= work.found[1];
            let held = work.bins[(comptime!(units as u32 - 1) - bin) as usize].load();
            low += bin << shift;
            high = u32::min(high, low + ((1u32 << shift) - 1u32));
            if held == rest {
                above = low - 1u32;
                ties = 0u32;
                open = false;
            } else if shift == 0u32 {
                above = low;
                ties = rest;
                open = false;
            }
        }
        sync_cube();
    }
    (above, ties)
}

/// The units' shares of the values, in order: unit `u` has values `u · share..(u + 1) · share`.
/// Returns this unit's rank of its first kept value and how many of its values at the threshold come
/// after earlier ones. All units of the cube must come here.
#[cube]
pub(super) fn rank_before(
    above: u32,
    place: &Place,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    #[comptime] block: Block,
    #[comptime] source: Source,
) -> (u32, u32) {
    let share = place.count.div_ceil(comptime!(block.units as u32));
    let first = u32::min(UNIT_POS * share, place.count);
    let last = u32::min(first + share, place.count);
    let mut larger = 0u32;
    let mut equal = 0u32;
    for i in first..last {
        let key = key(i, place, scores, stats, &work.list, source);
        larger += select(key > above, 1u32, 0u32);
        equal += select(key == above && key > 0u32, 1u32, 0u32);
    }
    let larger = block::sum_before(larger, &mut work.sums, block);
    let equal = block::sum_before(equal, &mut work.sums, block);
    (larger, equal)
}

/// True where the value of `key` is kept, given how many values at the threshold came before.
#[cube]
pub(super) fn kept(key: u32, above: u32, ties: u32, equal: u32) -> bool {
    key > above || (key == above && key > 0u32 && equal < ties)
}

/// First round: leaves the picked groups in `work.list`, returns how many they are and the key below
/// which no position can be among the best. All units of the cube must come here.
#[cube]
pub(super) fn pick_groups(
    want: u32,
    first: usize,
    count: u32,
    scores: &[f32],
    stats: &[f32],
    work: &mut Workspace,
    #[comptime] block: Block,
) -> (u32, u32) {
    let place = Place { first, start: 0u32.runtime(), end: count, floor: 1u32.runtime(), count };
    let all = want >= count;
    let (above, ties) = threshold(want, all, &place, scores, stats, work, block, Source::Groups);
    let (larger, equal) = rank_before(above, &place, scores, stats, work, block, Source::Groups);
    let mut larger = larger;
    let mut equal = equal;
    let share = count.div_ceil(comptime!(block.units as u32));
    let from = u32::min(UNIT_POS * share, count);
    let to = u32::min(from + share, count);
    for i in from..to {
        let key = key(i, &place, scores, stats, &work.list, Source::Groups);
        if kept(key, above, ties, equal) {
            work.list[(larger + u32::min(equal, ties)) as usize] = i;
        }
        larger += select(key > above, 1u32, 0u32);
        equal += select(key == above && key > 0u32, 1u32, 0u32);
    }
    sync_cube();
    let floor = select(ties > 0u32, above, above + 1u32);
    (u32::min(want, count), select(all || want == 0u32, 1u32, floor))
}

/// First of a KV head's table of best scores in `stats`.
#[cube]
pub(super) fn groups_at(kv_head: usize, words: u32) -> usize {
    kv_head * words as usize + HEADER
}
