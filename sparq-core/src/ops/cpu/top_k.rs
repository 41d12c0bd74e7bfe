//! The largest of a stream of scores, without sorting: scores that do not reach the `k`-th best so far
//! are passed over sixteen at a time; the others are collected, and cut to the `k` best whenever their
//! number has doubled. Or the best two of each bucket, where that is asked for.

use super::{
    buckets::Buckets,
    simd::{LANES, Lanes, Simd},
};

/// The best `wanted` of the scores that it is fed, in the order of their positions. Equal scores rank
/// by position, the lowest first.
#[derive(Debug, Default)]
pub(super) struct TopK {
    wanted: usize,
    /// Candidates that are cut to the best.
    limit: usize,
    /// A score must be above this.
    threshold: f32,
    /// Candidates, `count` of them; the smaller, the better: see [`key`].
    keys: Vec<u64>,
    count: usize,
    /// Where scores compete in buckets instead.
    buckets: Option<Buckets>,
    /// A score was not a number.
    has_nan: bool,
}

impl TopK {
    /// Starts over, with a number of buckets where scores compete in those.
    pub(super) fn reset(&mut self, wanted: usize, buckets: Option<usize>) {
        match buckets {
            None => self.buckets = None,
            Some(count) => self.buckets.get_or_insert_default().reset(count),
        }
        self.wanted = wanted;
        self.threshold = if wanted == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        self.count = 0;
        self.has_nan = false;
        self.limit = (2 * wanted).max(wanted + 64);
        self.keys.resize(self.keys.len().max(self.limit + LANES), 0);
    }

    /// Takes the first `count` scores, of the positions from `first` on: for buckets a multiple of
    /// [`LANES`].
    #[inline(always)]
    pub(super) fn push<S: Simd>(&mut self, s: S, scores: &[Lanes], count: usize, first: usize) {
        if let Some(buckets) = &mut self.buckets {
            buckets.push(s, scores, count, first);
            return;
        }
        let mut threshold = s.splat(self.threshold);
        let mut found = self.count;
        for (j, block) in scores[..count.div_ceil(LANES)].iter().enumerate() {
            let mut above = s.greater_or_nan(s.load(block), threshold);
            if above == 0 {
                continue;
            }
            if (j + 1) * LANES > count {
                above &= (1 << (count % LANES)) - 1;
            }
            let numbers = above & s.greater(s.load(block), threshold);
            self.has_nan |= numbers != above;
            above = numbers;
            // Into room that is there: a call that makes room would put the threshold into memory each time.
            let room = &mut self.keys[found..][..LANES];
            let mut here = 0;
            while above != 0 {
                let lane = above.trailing_zeros() as usize % LANES;
                above &= above - 1;
                room[here % LANES] = key(block[lane], first + j * LANES + lane);
                here += 1;
            }
            found += here;
            if found >= self.limit {
                self.count = found;
                self.cut();
                found = self.count;
                threshold = s.splat(self.threshold);
            }
        }
        self.count = found;
    }

    /// Takes what another one has collected, of later positions.
    pub(super) fn append(&mut self, other: &Self) {
        self.has_nan |= other.has_nan;
        self.take(other.keys[..other.count].iter().copied());
        if let (Some(buckets), Some(others)) = (&mut self.buckets, &other.buckets) {
            buckets.append(others);
        }
    }

    /// Whether a score was not a number. Such positions are not among the best.
    pub(super) fn has_nan(&self) -> bool {
        self.has_nan || self.buckets.as_ref().is_some_and(Buckets::has_nan)
    }

    /// Takes further candidates.
    fn take(&mut self, keys: impl Iterator<Item = u64>) {
        self.keys.truncate(self.count);
        self.keys.extend(keys);
        self.count = self.keys.len();
    }

    /// Cuts the candidates to the best.
    fn cut(&mut self) {
        if self.count > self.wanted {
            let (_, worst, _) = self.keys[..self.count].select_nth_unstable(self.wanted - 1);
            self.threshold = score(*worst);
            self.count = self.wanted;
        }
    }

    /// Appends the best positions to `positions`, in no order. `all` are the positions that were fed:
    /// where scores are not numbers, the first ones fill up the count.
    pub(super) fn finish(&mut self, all: (usize, usize), positions: &mut Vec<u32>) {
        if self.wanted == 0 {
            return;
        }
        if let Some(buckets) = &self.buckets {
            self.keys.clear();
            self.keys.extend(buckets.found().map(|(score, position)| key(score, position)));
            self.count = self.keys.len();
        }
        self.cut();
        let first = positions.len();
        positions.extend(self.keys[..self.count].iter().map(|&key| key as u32));
        let mut next = all.0 as u32;
        while positions.len() - first < self.wanted && (next as usize) < all.1 {
            if !positions[first..].contains(&next) {
                positions.push(next);
            }
            next += 1;
        }
    }
}

/// The score, larger first, and then the position.
#[inline(always)]
fn key(score: f32, position: usize) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0 counts as 0
    // Orders the bits of floats as unsigned numbers, downwards.
    let ordered = if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits };
    u64::from(ordered) << 32 | position as u64
}

#[inline(always)]
fn score(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 0 { !ordered & !(1 << 31) } else { ordered })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::with_simd;

    /// The best of `scores`, fed in pieces, against a sort.
    fn check(scores: &[f32], wanted: usize, piece: usize) {
        let mut top = TopK::default();
        top.reset(wanted, None);
        let mut blocks = Vec::new();
        for (i, part) in scores.chunks(piece).enumerate() {
            super::super::attend::pad_rows(part, part.len(), 1.0, &mut blocks);
            with_simd!(s => top.push(s, &blocks, part.len(), i * piece));
        }
        let mut found = Vec::new();
        top.finish((0, scores.len()), &mut found);
        found.sort_unstable();
        let mut expected: Vec<u32> = (0..scores.len() as u32).collect();
        expected.sort_by(|&a, &b| (scores[b as usize] + 0.0).total_cmp(&(scores[a as usize] + 0.0)));
        expected.truncate(wanted);
        expected.sort_unstable();
        assert_eq!(found, expected, "{wanted} of {} in pieces of {piece}", scores.len());
    }

    #[test]
    fn agrees_with_a_stable_sort() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for len in [1usize, 15, 16, 17, 100, 1000, 5000] {
            let smooth: Vec<f32> = (0..len).map(|_| random() as f32 / 1e6 - 8.0).collect();
            let coarse: Vec<f32> = smooth.iter().map(|x| x.round() * 0.5).collect();
            let rising: Vec<f32> = (0..len).map(|i| i as f32 - 50.0).collect();
            for wanted in [0, 1, 7, 96, 700].into_iter().filter(|&wanted| wanted <= len) {
                for piece in [16, 48, 128, 8192] {
                    check(&smooth, wanted, piece);
                    check(&coarse, wanted, piece);
                    check(&rising, wanted, piece);
                }
            }
        }
        check(&[0.0, -0.0, 0.0, -0.0], 2, 16);
        check(&[f32::MIN, f32::MAX, -1e-40, 1e-40, 0.0], 3, 16);
    }

    #[test]
    fn what_is_not_a_number_comes_last_and_never_short() {
        let mut top = TopK::default();
        top.reset(3, None);
        let mut scores = [f32::NAN; LANES];
        scores[5] = -3.0;
        scores[6] = f32::NEG_INFINITY;
        with_simd!(s => top.push(s, &[scores], 8, 10));
        let mut found = Vec::new();
        top.finish((10, 18), &mut found);
        assert_eq!(found, [15, 10, 11]);
        assert!(top.has_nan());
    }

    #[test]
    fn a_score_that_is_not_a_number_is_noticed() {
        for buckets in [None, Some(16)] {
            for (at, count) in [(0, 40), (21, 40), (39, 40), (40, 40), (15, 16)] {
                let mut scores = [[0.5; LANES]; 3];
                scores[0][1] = f32::NEG_INFINITY;
                scores.as_flattened_mut()[at] = f32::NAN;
                let mut top = TopK::default();
                top.reset(4, buckets);
                with_simd!(s => top.push(s, &scores, count, 0));
                assert_eq!(top.has_nan(), at < count, "{at} of {count}, {buckets:?}");
                let mut all = TopK::default();
                all.reset(4, buckets);
                all.append(&top);
                assert_eq!(all.has_nan(), at < count);
                all.reset(4, buckets);
                assert!(!all.has_nan());
            }
        }
        let mut nothing = TopK::default();
        nothing.reset(0, None);
        with_simd!(s => nothing.push(s, &[[f32::NAN; LANES]], 3, 0));
        assert!(nothing.has_nan());
    }

    #[test]
    fn keys_hold_their_score() {
        for x in [0.0, 1.5, -2.5, f32::MAX, f32::MIN, 1e-42, -1e-42] {
            assert_eq!(score(key(x, 7)), x);
        }
        assert!(key(2.0, 9) < key(1.0, 1) && key(-1.0, 9) < key(-2.0, 1) && key(1.0, 1) < key(1.0, 2));
    }
}
