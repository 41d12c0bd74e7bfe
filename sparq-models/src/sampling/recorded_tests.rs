//! Every setting against what transformers makes of the same logits: `tests/sampling/make.py`.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{ConfigFields, GenerationConfig};

fn expected() -> Value {
    serde_json::from_str(include_str!("../../tests/sampling/expected.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    let number = |value: &Value| value.as_f64().map_or(f32::NEG_INFINITY, |number| number as f32);
    value.as_array().unwrap().iter().map(number).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// What the settings of a case, read as a file, make of the program's sampler.
fn sampler(settings: &Value, prompt_tokens: usize, eos_ids: Vec<u32>) -> Sampler {
    let fields = ConfigFields::new(Path::new("generation_config.json"), settings).unwrap();
    let config = GenerationConfig::from_fields(&fields);
    assert!(config.notes.is_empty(), "{:?}", config.notes);
    let max_new_tokens = config.max_new_tokens.unwrap_or(100);
    Sampler::for_text(config.sampler(), TextFrame { prompt_tokens, max_new_tokens, eos_ids }).unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], case: &Value) {
    assert_eq!(found.len(), expected.len());
    for (id, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = found == expected || (found - expected).abs() < 1e-4 * expected.abs().max(1.0);
        assert!(close, "token {id}: {found}, not {expected} in {}", case["settings"]);
    }
}

#[test]
fn every_setting_does_what_it_does_in_transformers() {
    let expected = expected();
    let eos = ids(&expected["eos"]);
    let cases = expected["cases"].as_array().unwrap();
    assert!(cases.len() > 150);
    for case in cases {
        let prompt = ids(&case["prompt"]);
        let history = [&prompt[..], &ids(&case["answer"])].concat();
        let mut sampler = sampler(&case["settings"], prompt.len(), eos.clone());
        let mut logits = numbers(&expected["logits"][case["logits"].as_u64().unwrap() as usize]);
        let chosen = sampler.sample(&mut logits, &history).unwrap() as usize;
        if case.get("probabilities").is_none() {
            let scores = numbers(&case["scores"]);
            let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(scores[chosen], best, "{}", case["settings"]);
            // Log probabilities are the logits less a number.
            if case["settings"].get("renormalize_logits").is_none() {
                assert_close(&logits, &scores, case);
            }
            continue;
        }
        let probabilities = numbers(&case["probabilities"]);
        assert!(probabilities[chosen] > 0.0);
        let total: f32 = sampler.candidates.0.iter().map(|candidate| candidate.weight).sum();
        let mut found = vec![0.0; logits.len()];
        for candidate in &sampler.candidates.0 {
            found[candidate.id as usize] = candidate.weight / total;
        }
        let kept = |values: &[f32]| values.iter().map(|&value| value > 0.0).collect::<Vec<_>>();
        assert_eq!(kept(&found), kept(&probabilities), "{}", case["settings"]);
        assert_close(&found, &probabilities, case);
    }
}

#[test]
fn numbers_that_are_none_are_replaced_on_request() {
    let mut sampler = sampler(&json!({"remove_invalid_values": true}), 1, vec![]);
    let mut logits = [0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    assert_eq!(sampler.sample(&mut logits, &[5, 6]).unwrap(), 2);
    assert_eq!(logits.to_vec(), numbers(&expected()["invalid"]));
}

#[test]
fn settings_that_leave_no_token_are_named() {
    let settings = json!({"suppress_tokens": [0, 1], "repetition_penalty": 1.5});
    let error = sampler(&settings, 0, vec![]).sample(&mut [1.0, 2.0], &[]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("none of 2 tokens is possible"), "{message}");
    assert!(message.contains("repetition_penalty 1.5, suppress_tokens (2)"), "{message}");
    // A penalty that overflows is its own fault, not that of the number format.
    let error = sampler(&json!({"repetition_penalty": 1e-45}), 0, vec![]);
    let error = { error }.sample(&mut [1.0, 2.0], &[0]).unwrap_err();
    assert!(error.to_string().contains("the logit of token 0 is inf after repetition_penalty"), "{error}");
    assert!(!error.hint().unwrap().contains("--dtype"), "{error}");
}
