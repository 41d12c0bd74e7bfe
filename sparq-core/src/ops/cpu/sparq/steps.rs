//! Steps 1 and 2 up to the choice of positions, for one KV head or a part of its positions.

use super::{MASSES, scores::Logits};
use crate::{
    config::GroupScores,
    ops::{
        SparqParams,
        cpu::{
            Sizes,
            k_t::{BLOCK, KeysByComponent, Positions},
            query::Query,
            simd::{LANES, Lanes, Simd, with_simd},
            split::{Split, UNIT},
            top_k::TopK,
        },
        oracle::{MASKED, scale_beyond_usual},
    },
    spans::{Span, Spans},
};

/// What is known of a part of a head's positions.
#[derive(Debug, Default)]
pub(super) struct Part {
    logits: Logits,
    /// Scores of a block, summed over the group.
    scores: Vec<Lanes>,
    top: TopK,
}

impl Part {
    /// Whether a score of the part, or of those that were added to its candidates, is not a number.
    pub(super) fn has_nan(&self) -> bool {
        self.top.has_nan()
    }

    /// Offers the scores of the block from `first` on, but for the first `lead` and those from `count`
    /// on.
    #[inline(always)]
    fn push<S: Simd>(&mut self, s: S, first: usize, lead: usize, count: usize) {
        self.scores.as_flattened_mut()[..lead].fill(f32::NEG_INFINITY);
        self.top.push(s, &self.scores, count, first);
    }
}

/// Positions `start..end`, which are scored from `base` on, where the transposed keys can be read from.
struct Range {
    base: usize,
    start: usize,
    end: usize,
}

/// The first steps of a decode step.
pub(super) struct Scoring<'a, I> {
    pub(super) q: &'a [f32],
    pub(super) k_t: I,
    pub(super) params: &'a SparqParams,
    pub(super) spans: &'a Spans,
    pub(super) sizes: Sizes,
    pub(super) split: Split,
}

impl<I: KeysByComponent> Scoring<'_, I> {
    /// Whether scores are wanted for each query head, not only summed over the group: the sum of
    /// scaled logits is one product with the sum of scaled queries.
    fn is_per_head(&self) -> bool {
        self.params.retained_mass || self.params.config.mean_value || self.sums_probabilities()
    }

    /// Whether positions are chosen by ŝ, which takes a pass over all logits.
    pub(super) fn sums_probabilities(&self) -> bool {
        self.params.config.group_scores == GroupScores::Softmax
    }

    /// Positions of a part.
    fn range(&self, span: Span, chunk: usize) -> Range {
        let (start, end) = self.split.run_of(span, chunk);
        Range { base: start - start % I::ALIGN, start, end }
    }

    pub(super) fn span(&self, head: usize) -> Span {
        self.spans.as_slice()[head / self.sizes.kv_heads]
    }

    /// Whether no position of a head's sequence is left out.
    pub(super) fn keeps_all(&self, head: usize) -> bool {
        self.span(head).len() <= self.params.config.top_k
    }

    pub(super) fn q(&self, head: usize) -> &[f32] {
        let per_group = self.sizes.group * self.sizes.head_dim;
        &self.q[head * per_group..][..per_group]
    }

    /// Where the positions end among which is chosen: the last ones are kept in any case, or all are.
    fn candidates_end(&self, span: Span) -> usize {
        match span.len() <= self.params.config.top_k {
            true => span.start,
            false => span.end - self.params.config.local_window,
        }
    }

    /// Step 1, and with summed logits the candidates of the part.
    pub(super) fn score(&self, head: usize, chunk: usize, query: &mut Query, part: &mut Part) {
        with_simd!(s => self.score_on(s, head, chunk, query, part));
    }

    #[inline(always)]
    fn score_on<S: Simd>(&self, s: S, head: usize, chunk: usize, query: &mut Query, part: &mut Part) {
        let config = &self.params.config;
        let per_head = self.is_per_head();
        let span = self.span(head);
        let Range { base, start, end } = self.range(span, chunk);
        match span.len() <= config.top_k {
            true => part.top.reset(0, None), // all are kept
            false => part.top.reset(config.top_k - config.local_window, config.buckets()),
        }
        if per_head {
            part.logits.reset(self.sizes.group, end - base);
        } else if span.len() <= config.top_k {
            return;
        }
        let factor = scale_beyond_usual(self.params.attend.scale, self.sizes.head_dim).unwrap_or(1.0);
        query.prepare(self.q(head), self.sizes.head_dim, config.rank, factor, per_head);
        let Query { components, weights, .. } = &*query;
        part.scores.resize(BLOCK / LANES, [0.0; LANES]);
        let mut next = base;
        while next < end {
            // Blocks end where units do, whatever the first one begins with.
            let (first, count) = (next, (BLOCK - next % BLOCK).min(end - next));
            next += count;
            let lead = start.saturating_sub(first);
            let queries = &self.params.attend.queries;
            let place = Positions { queries, head, first, count, sizes: self.sizes };
            if per_head {
                let (scores, stride) = part.logits.starting_at(first - base);
                self.k_t.add_scores(s, place, components, weights, scores, stride);
                if !self.sums_probabilities() {
                    part.logits.sum(s, first - base, count, &mut part.scores);
                }
                let mut unit = first;
                while unit < next {
                    let len = (UNIT - unit % UNIT).min(next - unit);
                    let live = start.saturating_sub(unit).min(len)..len;
                    part.logits.seal(s, unit - base, live, self.params.attend.softcap);
                    unit += len;
                }
            } else {
                part.scores[..count.div_ceil(LANES)].fill([0.0; LANES]);
                let scores = &mut part.scores[..];
                self.k_t.add_scores(s, place, components, weights, scores, 0);
            }
            if !self.sums_probabilities() {
                part.push(s, first, lead, count.min(self.candidates_end(span).saturating_sub(first)));
            }
        }
    }

    /// Makes ŝ of the logits of all parts of a head.
    pub(super) fn normalise(&self, parts: &mut [Part]) {
        if !self.is_per_head() {
            return;
        }
        for head in 0..self.sizes.group {
            let heads = || parts.iter().flat_map(|part| part.logits.of_head(head));
            let maximum = heads().map(|(maximum, _)| maximum).fold(f32::NEG_INFINITY, f32::max);
            let share =
                |(of_part, sum): (f32, f32)| if sum == 0.0 { 0.0 } else { sum * (of_part - maximum).exp() };
            let log_sum = maximum + heads().map(share).sum::<f32>().ln();
            parts.iter_mut().for_each(|part| part.logits.set_log_sum(head, log_sum));
        }
    }

    /// The candidates of the part by ŝ.
    pub(super) fn score_probabilities(&self, head: usize, chunk: usize, part: &mut Part) {
        with_simd!(s => self.score_probabilities_on(s, head, chunk, part));
    }

    #[inline(always)]
    fn score_probabilities_on<S: Simd>(&self, s: S, head: usize, chunk: usize, part: &mut Part) {
        let span = self.span(head);
        let Range { base, start, end } = self.range(span, chunk);
        let end = end.min(self.candidates_end(span));
        for first in (base..end.max(base)).step_by(BLOCK) {
            let count = BLOCK.min(end - first);
            part.logits.sum_probabilities(s, first - base, count, &mut part.scores);
            part.push(s, first, start.saturating_sub(first), count);
        }
    }

    /// `i2`, ascending, and of each query head α and the log-sum-exp of step 1 where they are wanted, in the
    /// first two of its [`MASSES`].
    pub(super) fn choose(
        &self,
        head: usize,
        parts: &mut [Part],
        chosen: &mut Vec<u32>,
        positions: &mut [i32],
        masses: &mut [f32],
    ) {
        let span = self.span(head);
        let end = self.candidates_end(span);
        chosen.clear();
        if end > span.start {
            let [first, others @ ..] = parts else { return };
            others.iter().for_each(|other| first.top.append(&other.top));
            first.top.finish((span.start, end), chosen);
            chosen.sort_unstable();
        }
        chosen.extend(end as u32..span.end as u32);
        for (slot, &position) in positions.iter_mut().zip(&*chosen) {
            *slot = position as i32;
        }
        if !self.is_per_head() {
            return;
        }
        for (head, masses) in masses.chunks_exact_mut(MASSES).enumerate() {
            masses[0] = 0.0;
            masses[1] = parts.first().map_or(MASKED, |part| part.logits.log_sum(head));
        }
        let mut rest = &chosen[..];
        for (chunk, part) in parts.iter().enumerate() {
            let Range { base, end, .. } = self.range(span, chunk);
            let (here, later) = rest.split_at(rest.partition_point(|&position| (position as usize) < end));
            rest = later;
            for (head, masses) in masses.chunks_exact_mut(MASSES).enumerate() {
                let probability = |&position: &u32| part.logits.probability(head, position as usize - base);
                masses[0] = here.iter().map(probability).fold(masses[0], |sum, x| sum + x);
            }
        }
    }
}
