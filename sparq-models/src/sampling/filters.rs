//! Which tokens may be drawn, and drawing one of them.

use std::cmp::Ordering;

use super::SamplerConfig;

/// The likeliest tokens that top-h looks at.
const TOP_H_TOKENS: usize = 100;

/// Tokens that may be drawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates(pub(super) Vec<Candidate>);

#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) id: u32,
    /// Probability as a fraction of the likeliest token's.
    pub(super) weight: f32,
}

impl Candidates {
    /// Applies temperature, top-h and top-k. `max` is the largest logit.
    pub(super) fn collect(
        &mut self,
        logits: &[f32],
        max: f32,
        config: &SamplerConfig,
        scratch: &mut Vec<f32>,
    ) {
        let has_top_h = config.top_h > 0.0;
        let threshold = match config.top_k {
            _ if has_top_h => f32::NEG_INFINITY,
            k if k == 0 || k >= logits.len() => f32::NEG_INFINITY,
            k => {
                scratch.clear();
                scratch.extend_from_slice(logits);
                let descending = |left: &f32, right: &f32| right.total_cmp(left);
                *scratch.select_nth_unstable_by(k - 1, descending).1
            }
        };
        let temperature = config.temperature;
        let kept = (0..).zip(logits).filter(|&(_, &logit)| logit >= threshold);
        self.0.clear();
        self.0.extend(kept.map(|(id, &logit)| Candidate { id, weight: ((logit - max) / temperature).exp() }));
        if has_top_h {
            self.keep_top_h(config.top_h);
            self.keep_top_k(config.top_k);
        }
    }

    /// Applies the filters behind top-k, in order.
    pub(super) fn filter(&mut self, config: &SamplerConfig) {
        if config.top_p < 1.0 {
            self.keep_top_p(config.top_p);
        }
        if config.min_p > 0.0 {
            // The likeliest token weighs 1, so one always stays.
            self.0.retain(|candidate| candidate.weight >= config.min_p);
        }
        if config.typical_p < 1.0 {
            self.keep_typical(config.typical_p);
        }
        if config.epsilon_cutoff > 0.0 {
            self.keep_above(f64::from(config.epsilon_cutoff));
        }
        if config.eta_cutoff > 0.0 {
            let epsilon = f64::from(config.eta_cutoff);
            self.keep_above(epsilon.min(epsilon.sqrt() * (-self.entropy()).exp()));
        }
    }

    /// Draws one candidate with a probability proportional to its weight; `at` lies in `0..1`.
    pub(super) fn draw(&self, at: f64) -> u32 {
        let mut rest = at * self.total_weight();
        let mut chosen = 0;
        for candidate in self.0.iter().filter(|candidate| candidate.weight > 0.0) {
            // Kept after the loop if rounding leaves a rest.
            chosen = candidate.id;
            rest -= f64::from(candidate.weight);
            if rest < 0.0 {
                break;
            }
        }
        chosen
    }

    /// Keeps the likeliest candidates up to the one with which their mass reaches `top_p`.
    fn keep_top_p(&mut self, top_p: f32) {
        let mass = f64::from(top_p) * self.total_weight();
        let mut kept_mass = 0.0;
        let mut sorted = 0;
        let mut kept = 0;
        // The mass is nearly always in a few tokens, so the sorted head grows as needed.
        while kept == sorted && sorted < self.0.len() {
            let rest = &mut self.0[sorted..];
            let more = rest.len().min(sorted.max(64) * 4);
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, by_weight);
            }
            rest[..more].sort_unstable_by(by_weight);
            let needed = rest[..more].iter().take_while(|candidate| {
                let is_needed = kept_mass < mass;
                kept_mass += f64::from(candidate.weight);
                is_needed
            });
            kept += needed.count();
            sorted += more;
        }
        self.0.truncate(kept);
    }

    /// Keeps the likeliest of the first hundred while the sum of their entropies stays within a part of
    /// that of all of these; one at least.
    fn keep_top_h(&mut self, part: f32) {
        if self.0.len() > TOP_H_TOKENS {
            self.0.select_nth_unstable_by(TOP_H_TOKENS - 1, by_weight);
            self.0.truncate(TOP_H_TOKENS);
        }
        self.0.sort_unstable_by(by_weight);
        let total = self.total_weight();
        let most = self.entropy() * f64::from(part);
        let mut sum = 0.0;
        let kept = self.0.iter().take_while(|candidate| {
            sum += entropy_of(f64::from(candidate.weight) / total);
            sum <= most
        });
        let kept = kept.count().max(1);
        self.0.truncate(kept);
    }

    /// Keeps the first `top_k` of sorted candidates, and those as likely as the last of them.
    fn keep_top_k(&mut self, top_k: usize) {
        if let Some(&last) = top_k.checked_sub(1).and_then(|last| self.0.get(last)) {
            self.0.retain(|candidate| candidate.weight >= last.weight);
        }
    }

    /// Keeps the candidates whose surprise is nearest to the expected one, up to the one with which their
    /// mass reaches `mass`, and those as near as it.
    fn keep_typical(&mut self, mass: f32) {
        let total = self.total_weight();
        let expected = self.entropy();
        let probability = |candidate: &Candidate| f64::from(candidate.weight) / total;
        let distance = |candidate: &Candidate| (-probability(candidate).ln() - expected).abs();
        self.0.sort_by(|left, right| distance(left).total_cmp(&distance(right)));
        let mut sum = 0.0;
        let reached = self.0.iter().position(|candidate| {
            sum += probability(candidate);
            sum >= f64::from(mass)
        });
        let Some(last) = reached.or(self.0.len().checked_sub(1)) else { return };
        let most = distance(&self.0[last]);
        self.0.retain(|candidate| distance(candidate) <= most);
    }

    /// Keeps candidates of this probability at least, and the likeliest.
    fn keep_above(&mut self, least: f64) {
        let total = self.total_weight();
        let likeliest = self.0.iter().map(|candidate| candidate.weight).fold(0.0, f32::max);
        let stays = |candidate: &Candidate| {
            f64::from(candidate.weight) / total >= least || candidate.weight == likeliest
        };
        self.0.retain(stays);
    }

    fn entropy(&self) -> f64 {
        let total = self.total_weight();
        self.0.iter().map(|candidate| entropy_of(f64::from(candidate.weight) / total)).sum()
    }

    fn total_weight(&self) -> f64 {
        self.0.iter().map(|candidate| f64::from(candidate.weight)).sum()
    }
}

/// The part of a token of this probability in the entropy.
fn entropy_of(probability: f64) -> f64 {
    match probability > 0.0 {
        true => -probability * probability.ln(),
        false => 0.0,
    }
}

/// Descending weight; of equal ones, the lowest id first.
fn by_weight(left: &Candidate, right: &Candidate) -> Ordering {
    right.weight.total_cmp(&left.weight).then(left.id.cmp(&right.id))
}
