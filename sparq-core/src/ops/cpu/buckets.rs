//! The best two scores of each interleaved bucket, see [`crate::config::TopkRule::Buckets`]: the same few
//! operations for every sixteen scores, whatever they are.

use super::simd::{LANES, Lanes, Simd};

/// Sixteen buckets, one in each lane. Places are numbers of vectors, as floats, which are exact up to
/// 2²⁸ positions; -1 where there is nothing yet.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: Lanes,
    place: Lanes,
    second_score: Lanes,
    second_place: Lanes,
}

const NOTHING: Best = Best {
    score: [f32::NEG_INFINITY; LANES],
    place: [-1.0; LANES],
    second_score: [f32::NEG_INFINITY; LANES],
    second_place: [-1.0; LANES],
};

/// The buckets of a head, or of a part of its positions.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    best: Vec<Best>,
    /// Sums of all scores, lane by lane: not a number where a score is none.
    sums: Lanes,
}

impl Buckets {
    /// Starts over, with `count` buckets, a multiple of [`LANES`].
    pub(super) fn reset(&mut self, count: usize) {
        self.best.clear();
        self.best.resize(count / LANES, NOTHING);
        self.sums = [0.0; LANES];
    }

    /// Whether a score was not a number, or some are infinite upwards and others downwards.
    pub(super) fn has_nan(&self) -> bool {
        self.sums.iter().any(|sum| sum.is_nan())
    }

    /// Takes the first `count` scores, of the positions from `first` on, a multiple of [`LANES`]. Of equal
    /// scores the first stays.
    #[inline(always)]
    pub(super) fn push<S: Simd>(&mut self, s: S, scores: &[Lanes], count: usize, first: usize) {
        let sets = self.best.len();
        if sets == 0 {
            return;
        }
        let whole = &scores[..count / LANES];
        let start = first / LANES;
        let mut sums = s.load(&self.sums);
        for (set, best) in self.best.iter_mut().enumerate() {
            // The first vector of the block that falls into this set.
            let offset = (set + sets - start % sets) % sets;
            let mut state = State::load(s, best);
            let mut j = offset;
            while j < whole.len() {
                let scores = s.load(&whole[j]);
                sums = s.add(sums, scores);
                state.take(s, scores, s.splat((start + j) as f32));
                j += sets;
            }
            state.store(s, best);
        }
        let rest = count % LANES;
        if rest > 0 {
            let mut last = [f32::NEG_INFINITY; LANES];
            last[..rest].copy_from_slice(&scores[whole.len()][..rest]);
            let at = start + whole.len();
            let best = &mut self.best[at % sets];
            let mut state = State::load(s, best);
            state.take(s, s.load(&last), s.splat(at as f32));
            state.store(s, best);
            last[rest..].fill(0.0);
            sums = s.add(sums, s.load(&last));
        }
        s.store(sums, &mut self.sums);
    }

    /// Takes what another one has found, at later positions.
    pub(super) fn append(&mut self, other: &Self) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| *sum += other);
        for (best, other) in self.best.iter_mut().zip(&other.best) {
            for lane in 0..LANES {
                best.insert(lane, other.score[lane], other.place[lane]);
                best.insert(lane, other.second_score[lane], other.second_place[lane]);
            }
        }
    }

    /// The best two of every bucket: scores and positions.
    pub(super) fn found(&self) -> impl Iterator<Item = (f32, usize)> + '_ {
        self.best.iter().flat_map(|best| {
            (0..LANES).flat_map(move |lane| {
                [(best.score[lane], best.place[lane]), (best.second_score[lane], best.second_place[lane])]
                    .into_iter()
                    .filter(|&(_, place)| place >= 0.0)
                    .map(move |(score, place)| (score, place as usize * LANES + lane))
            })
        })
    }
}

impl Best {
    fn insert(&mut self, lane: usize, score: f32, place: f32) {
        if score > self.score[lane] {
            (self.second_score[lane], self.second_place[lane]) = (self.score[lane], self.place[lane]);
            (self.score[lane], self.place[lane]) = (score, place);
        } else if score > self.second_score[lane] {
            (self.second_score[lane], self.second_place[lane]) = (score, place);
        }
    }
}

/// [`Best`] in registers.
struct State<V> {
    score: V,
    place: V,
    second_score: V,
    second_place: V,
}

impl<V: Copy> State<V> {
    #[inline(always)]
    fn load<S: Simd<V = V>>(s: S, best: &Best) -> Self {
        Self {
            score: s.load(&best.score),
            place: s.load(&best.place),
            second_score: s.load(&best.second_score),
            second_place: s.load(&best.second_place),
        }
    }

    #[inline(always)]
    fn take<S: Simd<V = V>>(&mut self, s: S, score: V, place: V) {
        let (best, second) = (self.score, self.second_score);
        // The score takes the second place, or pushes what was best into it.
        let runner_up = s.choose(score, second, place, self.second_place);
        self.second_place = s.choose(score, best, self.place, runner_up);
        self.second_score = s.choose(score, best, best, s.choose(score, second, score, second));
        self.place = s.choose(score, best, place, self.place);
        self.score = s.choose(score, best, score, best);
    }

    #[inline(always)]
    fn store<S: Simd<V = V>>(&self, s: S, best: &mut Best) {
        s.store(self.score, &mut best.score);
        s.store(self.place, &mut best.place);
        s.store(self.second_score, &mut best.second_score);
        s.store(self.second_place, &mut best.second_place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::with_simd;

    /// The best two of each bucket by sorting, of positions from `first` on.
    fn expected(scores: &[f32], first: usize, buckets: usize) -> Vec<usize> {
        let mut found = vec![];
        for bucket in 0..buckets {
            let mut here: Vec<usize> =
                (first..first + scores.len()).filter(|position| position % buckets == bucket).collect();
            here.sort_by(|&a, &b| (scores[b - first] + 0.0).total_cmp(&(scores[a - first] + 0.0)));
            found.extend(here.into_iter().take(2));
        }
        found.sort_unstable();
        found
    }

    fn positions(buckets: &Buckets) -> Vec<usize> {
        let mut found: Vec<usize> = buckets.found().map(|(_, position)| position).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn agrees_with_a_sort_of_each_bucket() {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 1e6 - 8.0
        };
        for (len, count, first, piece) in
            [(1, 16, 0, 16), (37, 16, 32, 16), (1000, 48, 0, 2048), (5003, 48, 2048, 128), (700, 64, 16, 48)]
        {
            let smooth: Vec<f32> = (0..len).map(|_| random()).collect();
            let coarse: Vec<f32> = smooth.iter().map(|x| x.round()).collect();
            for scores in [smooth, coarse] {
                // As one, and as two parts that are put together.
                for cut in [0, len / 2 / piece * piece] {
                    let mut parts = [Buckets::default(), Buckets::default()];
                    parts.iter_mut().for_each(|part| part.reset(count));
                    for (i, block) in scores.chunks(piece).enumerate() {
                        let mut rows = vec![[9.0; LANES]; block.len().div_ceil(LANES)];
                        rows.as_flattened_mut()[..block.len()].copy_from_slice(block);
                        let part = &mut parts[usize::from(i * piece >= cut)];
                        with_simd!(s => part.push(s, &rows, block.len(), first + i * piece));
                    }
                    let [mut all, later] = parts;
                    all.append(&later);
                    let what = format!("{len} scores in {count} buckets, cut at {cut}");
                    assert_eq!(positions(&all), expected(&scores, first, count), "{what}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_found() {
        let mut buckets = Buckets::default();
        buckets.reset(16);
        let mut scores = [f32::NAN; LANES];
        scores[3] = -5.0;
        with_simd!(s => buckets.push(s, &[scores], LANES, 64));
        assert_eq!(positions(&buckets), [67]);
    }
}
