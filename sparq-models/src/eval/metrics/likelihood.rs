//! What a model's probabilities say: of a reference, and of how far two models are apart.

/// Logarithms of the probabilities of one row of logits, in nats.
pub fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    let norm = max + sum.ln() as f32;
    logits.iter().map(|&logit| logit - norm).collect()
}

/// Bits per character of a text of `characters` characters whose tokens have `nats` of negative log
/// probability in all. 0 for a text without characters.
pub fn bits_per_character(nats: f64, characters: usize) -> f64 {
    match characters {
        0 => 0.0,
        _ => nats / std::f64::consts::LN_2 / characters as f64,
    }
}

/// Perplexity of `tokens` tokens with `nats` of negative log probability in all. 1 for no tokens.
pub fn perplexity(nats: f64, tokens: usize) -> f64 {
    match tokens {
        0 => 1.0,
        _ => (nats / tokens as f64).exp(),
    }
}

/// How far a distribution is from the one of dense attention, for one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// `Σ p ln(p / q)`, `p` of dense attention, in nats.
    pub kl: f64,
    /// Whether both hold the same token for the likeliest.
    pub same_top: bool,
}

impl Divergence {
    /// Of two rows of log probabilities over the same vocabulary.
    pub fn between(dense: &[f32], other: &[f32]) -> Self {
        let term = |(&p, &q): (&f32, &f32)| {
            let (p, q) = (f64::from(p), f64::from(q));
            // 0 · ln 0 is 0.
            if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) }
        };
        let kl: f64 = dense.iter().zip(other).map(term).sum();
        // Rounding may leave a hair below zero.
        Self { kl: kl.max(0.0), same_top: best(dense) == best(other) }
    }
}

/// Index of the largest value, the first of equals; 0 for none.
pub(crate) fn best(values: &[f32]) -> usize {
    let better = |best: usize, (i, value): (usize, &f32)| if *value > values[best] { i } else { best };
    values.iter().enumerate().fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_add_up_to_one() {
        let rows = log_softmax(&[0.0, 3f32.ln(), 1000.0 - 1000.0]);
        let expected = [0.2f32.ln(), 0.6f32.ln(), 0.2f32.ln()];
        assert!(rows.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rows:?}");
        assert!(log_softmax(&[1000.0, 0.0])[0].abs() < 1e-6, "no overflow");
    }

    #[test]
    fn bits_and_perplexity_by_hand() {
        // Two tokens of probability 1/4 each are 4 bits; over 8 characters half a bit each.
        let nats = 2.0 * 4f64.ln();
        assert!((bits_per_character(nats, 8) - 0.5).abs() < 1e-12);
        assert!((perplexity(nats, 2) - 4.0).abs() < 1e-12);
        assert_eq!((bits_per_character(1.0, 0), perplexity(1.0, 0)), (0.0, 1.0));
    }

    #[test]
    fn divergence_by_hand() {
        let p = [0.5f32.ln(), 0.5f32.ln(), f32::NEG_INFINITY];
        let q = [0.25f32.ln(), 0.5f32.ln(), 0.25f32.ln()];
        let found = Divergence::between(&p, &q);
        assert!((found.kl - 0.5 * 2f64.ln()).abs() < 1e-6, "{found:?}");
        assert!(!found.same_top, "ties go to the first");
        let same = Divergence::between(&q, &q);
        assert_eq!(same, Divergence { kl: 0.0, same_top: true });
    }
}
