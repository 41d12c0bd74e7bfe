use super::*;

fn sampler(config: SamplerConfig) -> Sampler {
    Sampler::new(config).unwrap()
}

fn warm() -> SamplerConfig {
    SamplerConfig { temperature: 1.0, ..SamplerConfig::default() }
}

/// Tokens that occur in many draws, ascending.
fn support(config: SamplerConfig, logits: &[f32]) -> Vec<u32> {
    let mut sampler = sampler(config);
    let draw = |_| sampler.sample(&mut logits.to_vec(), &[]).unwrap();
    let mut ids: Vec<u32> = (0..2000).map(draw).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn greedy_takes_the_largest_and_of_equals_the_first() {
    let mut sampler = sampler(SamplerConfig::default());
    let mut choose = |logits: &[f32]| sampler.sample(&mut logits.to_vec(), &[]).unwrap();
    assert_eq!(choose(&[0.5, 2.0, 1.0]), 1);
    assert_eq!(choose(&[-1.0, 3.0, 3.0, 0.0]), 1);
    assert_eq!(choose(&[f32::NEG_INFINITY, -7.0]), 1);
    assert_eq!(choose(&[-0.0, 0.0]), 0);
}

#[test]
fn unusable_logits_are_errors() {
    for config in [SamplerConfig::default(), warm()] {
        let mut sampler = sampler(config);
        let mut message = |logits: &mut [f32]| sampler.sample(logits, &[]).unwrap_err().to_string();
        assert!(message(&mut [0.0, f32::NAN, 1.0]).contains("overflowed"));
        assert!(message(&mut [f32::INFINITY]).contains("overflowed"));
        assert!(message(&mut [f32::NEG_INFINITY; 3]).contains("overflowed"));
        assert!(message(&mut []).contains("overflowed"));
    }
}

#[test]
fn options_out_of_range_are_named() {
    let base = SamplerConfig::default;
    let cases = [
        (SamplerConfig { temperature: -0.5, ..base() }, "temperature is -0.5, expected 0"),
        (SamplerConfig { temperature: f32::NAN, ..base() }, "temperature is NaN"),
        (SamplerConfig { top_p: 0.0, ..base() }, "top_p is 0, expected above 0"),
        (SamplerConfig { top_p: 1.5, ..base() }, "top_p is 1.5"),
        (SamplerConfig { min_p: -0.25, ..base() }, "min_p is -0.25, expected from 0"),
        (SamplerConfig { repetition_penalty: 0.0, ..base() }, "repetition_penalty is 0"),
    ];
    for (config, expected) in cases {
        let message = Sampler::new(config).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(base().validate().is_ok());
}

#[test]
fn repetition_penalty_counts_each_token_once() {
    let mut sampler = sampler(SamplerConfig { repetition_penalty: 2.0, ..SamplerConfig::default() });
    let mut logits = [4.0, 3.0, -1.0, 1.5];
    let id = sampler.sample(&mut logits, &[0, 2, 0, 0, 99]).unwrap();
    assert_eq!(logits, [2.0, 3.0, -2.0, 1.5]);
    assert_eq!(id, 1);
}

#[test]
fn top_k_keeps_the_likeliest_and_ties_with_the_last() {
    let values = [0.0, 2.0, 1.0, 1.0, -3.0];
    assert_eq!(support(SamplerConfig { top_k: 1, ..warm() }, &values), [1]);
    assert_eq!(support(SamplerConfig { top_k: 2, ..warm() }, &values), [1, 2, 3]);
    assert_eq!(support(SamplerConfig { top_k: 99, ..warm() }, &values), [0, 1, 2, 3, 4]);
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_it() {
    let values = logits(&[0.15, 0.5, 0.05, 0.3]);
    for (top_p, expected) in [(0.01, vec![1]), (0.49, vec![1]), (0.51, vec![1, 3])] {
        assert_eq!(support(SamplerConfig { top_p, ..warm() }, &values), expected, "{top_p}");
    }
    assert_eq!(support(SamplerConfig { top_p: 0.9, ..warm() }, &values), [0, 1, 3]);
    assert_eq!(support(SamplerConfig { top_p: 1.0, ..warm() }, &values), [0, 1, 2, 3]);
}

#[test]
fn top_p_works_after_top_k_and_temperature() {
    let values = logits(&[0.4, 0.3, 0.2, 0.1]);
    // Of the first two, 0.4 is 57%.
    let config = SamplerConfig { top_k: 2, top_p: 0.55, ..warm() };
    assert_eq!(support(config, &values), [0]);
    // At temperature 0.5 the probabilities are 16, 9, 4 and 1 of 30.
    let config = SamplerConfig { temperature: 0.5, top_p: 0.52, ..warm() };
    assert_eq!(support(config, &values), [0]);
    let config = SamplerConfig { temperature: 0.5, top_p: 0.82, ..warm() };
    assert_eq!(support(config, &values), [0, 1]);
}

#[test]
fn top_p_over_a_flat_vocabulary_needs_many_tokens() {
    // Equal weights are exact in any order, so that the count is exact too.
    let flat = vec![0.5; 4096];
    let mut sampler = sampler(SamplerConfig { top_p: 0.75, ..warm() });
    sampler.sample(&mut flat.clone(), &[]).unwrap();
    let kept: Vec<u32> = sampler.candidates.0.iter().map(|candidate| candidate.id).collect();
    assert_eq!(kept, (0..3072).collect::<Vec<u32>>());
}

#[test]
fn min_p_goes_by_the_likeliest() {
    let values = logits(&[0.5, 0.3, 0.15, 0.05]);
    assert_eq!(support(SamplerConfig { min_p: 0.2, ..warm() }, &values), [0, 1, 2]);
    assert_eq!(support(SamplerConfig { min_p: 0.4, ..warm() }, &values), [0, 1]);
    assert_eq!(support(SamplerConfig { min_p: 1.0, ..warm() }, &values), [0]);
}

#[test]
fn excluded_tokens_are_never_drawn() {
    let values = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    assert_eq!(support(warm(), &values), [1, 3]);
    assert_eq!(support(SamplerConfig { top_k: 4, ..warm() }, &values), [1, 3]);
}

#[test]
fn frequencies_follow_the_probabilities() {
    let probabilities = [0.1, 0.2, 0.3, 0.4];
    let values = logits(&probabilities);
    let mut sampler = sampler(SamplerConfig { seed: 7, ..warm() });
    let draws = 40_000;
    let mut counts = [0; 4];
    for _ in 0..draws {
        counts[sampler.sample(&mut values.clone(), &[]).unwrap() as usize] += 1;
    }
    for (count, p) in counts.into_iter().zip(probabilities) {
        let expected = f64::from(p) * f64::from(draws);
        let deviation = (expected * (1.0 - f64::from(p))).sqrt();
        let difference = f64::from(count) - expected;
        assert!(difference.abs() < 4.0 * deviation, "{counts:?}");
    }
}

#[test]
fn the_seed_decides_the_draws() {
    let values = vec![0.0; 1000];
    let draw = |seed| -> Vec<u32> {
        let mut sampler = sampler(SamplerConfig { seed, ..warm() });
        (0..20).map(|_| sampler.sample(&mut values.clone(), &[]).unwrap()).collect()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
