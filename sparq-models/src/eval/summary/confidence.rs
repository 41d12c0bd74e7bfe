//! How sure a score is, and whether a difference from dense attention is one.

use crate::eval::{
    metrics::Metric,
    results::{SampleResult, TaskResults},
};

/// Standard deviations of a normal distribution that hold 95 %.
const Z: f64 = 1.959_964;

/// How rare a difference must be by chance alone to count as one.
const LEVEL: f64 = 0.05;

impl TaskResults {
    /// Answers that were scored: turns count one by one.
    pub fn answers(&self) -> usize {
        self.samples.iter().map(|sample| scores(sample, 0).len()).sum()
    }

    /// The interval that holds the score of method number `method` over all possible samples with 95 %
    /// (Wilson); `None` for metrics that are no part of one. Answers on one cache count as independent,
    /// and a score between 0 and 1 as if it were one or the other, which widens the interval.
    pub fn interval(&self, method: usize) -> Option<(f64, f64)> {
        let n = self.answers() as f64;
        (self.metric.is_fraction() && n > 0.0).then(|| wilson(self.average(method).score, n))
    }

    /// Whether a method does otherwise than dense attention on the same answers, more often one way than
    /// chance explains: a sign test, two-sided, at 5 %.
    pub fn differs_from_dense(&self, method: usize) -> bool {
        let (mut more, mut less) = (0, 0);
        for sample in &self.samples {
            for (own, dense) in scores(sample, method).into_iter().zip(scores(sample, 0)) {
                more += u32::from(own > dense);
                less += u32::from(own < dense);
            }
        }
        sign_test(more, less) < LEVEL
    }
}

impl Metric {
    /// The least mean score with which dense attention counts as doing a task at all, so that others can
    /// be judged by it; none for metrics where less is better.
    pub fn floor(self) -> Option<f64> {
        match self {
            Self::BitsPerCharacter | Self::Perplexity => None,
            // Half of the answers, and what a model that can summarise or copy at all gets.
            Self::RougeL => Some(0.1),
            Self::RepetitionLength => Some(32.0),
            Self::ExactMatch | Self::StringMatchAll | Self::NormalisedMatch | Self::Prefix => Some(0.5),
        }
    }

    /// Whether a mean score of dense attention reaches [`Metric::floor`].
    pub fn is_done(self, dense: f64) -> bool {
        self.floor().is_none_or(|floor| dense >= floor)
    }
}

/// Scores of a sample, one per turn.
fn scores(sample: &SampleResult, method: usize) -> Vec<f64> {
    let outcome = &sample.outcomes[method];
    if outcome.turns.is_empty() { vec![outcome.score] } else { outcome.turns.clone() }
}

/// Wilson's interval for a part `p` of `n`.
fn wilson(p: f64, n: f64) -> (f64, f64) {
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The probability of a split at least as uneven, where both ways are equally likely.
fn sign_test(more: u32, less: u32) -> f64 {
    let n = more + less;
    let mut term = 0.5f64.powi(n.try_into().unwrap_or(i32::MAX));
    let mut tail = term;
    for i in 0..more.min(less) {
        term *= f64::from(n - i) / f64::from(i + 1);
        tail += term;
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_by_hand() {
        // Newcombe (1998), table I: 81 of 263 and 0 of 20.
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 5e-5 && (b - d).abs() < 5e-5;
        assert!(near(wilson(81.0 / 263.0, 263.0), (0.2553, 0.3662)));
        assert!(near(wilson(0.0, 20.0), (0.0, 0.1611)));
        assert!(near(wilson(1.0, 20.0), (0.8389, 1.0)));
    }

    #[test]
    fn one_answer_is_no_difference() {
        assert_eq!((sign_test(0, 0), sign_test(0, 1), sign_test(3, 3)), (1.0, 1.0, 1.0));
        assert!((sign_test(0, 5) - 0.0625).abs() < 1e-12, "2 / 32");
        assert!((sign_test(1, 8) - 20.0 / 512.0).abs() < 1e-12, "2 · (1 + 9) / 512");
        assert_eq!(sign_test(8, 1), sign_test(1, 8));
    }
}
