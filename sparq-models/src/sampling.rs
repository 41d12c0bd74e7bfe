//! Choosing the next token from the logits.
//!
//! The steps and their order are those of transformers: repetition penalty, temperature, top-k,
//! top-p, min-p. Draws come from ChaCha8, whose streams are the same on every machine and version.

use std::cmp::Ordering;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// How the next token is chosen. The default is the likeliest token.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0 takes the likeliest token, whatever the fields below say.
    pub temperature: f32,
    /// Keeps that many of the likeliest tokens, and those as likely as the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred before; 1 is off.
    pub repetition_penalty: f32,
    /// Selects the stream of random numbers.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplerConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] names the first field that is out of its range, and the range.
    pub fn validate(&self) -> Result<()> {
        let check = |option, value: f32, is_valid, expected| {
            if is_valid {
                return Ok(());
            }
            Err(Error::InvalidOption { option, value: value.to_string(), expected })
        };
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        let is_valid = temperature.is_finite() && temperature >= 0.0;
        check("temperature", temperature, is_valid, "0 (likeliest token) or more")?;
        check("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0 and at most 1 (off)")?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p), "from 0 (off) to 1")?;
        let is_valid = repetition_penalty.is_finite() && repetition_penalty > 0.0;
        check("repetition_penalty", repetition_penalty, is_valid, "above 0 (1 is off)")
    }
}

/// Chooses tokens one after another.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    rng: ChaCha8Rng,
    /// Scratch space, kept between calls: tokens that may be drawn.
    candidates: Vec<Candidate>,
    /// Scratch space, kept between calls: logits in another order, or flags per token.
    scratch: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    /// Probability as a fraction of the likeliest token's.
    weight: f32,
}

impl Sampler {
    /// A sampler at the start of its stream of random numbers.
    ///
    /// # Errors
    ///
    /// As [`SamplerConfig::validate`].
    pub fn new(config: SamplerConfig) -> Result<Self> {
        config.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        Ok(Self { config, rng, candidates: Vec::new(), scratch: Vec::new() })
    }

    /// The configuration.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Chooses the next token.
    ///
    /// `logits: [vocabulary]`, changed in place by the repetition penalty; minus infinity excludes
    /// a token. `history` holds the tokens so far, in any order.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidLogits`] if there are no logits, if one is NaN or plus infinity, or if all
    /// are minus infinity.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        let max = checked_max(logits)?;
        let max = if self.config.repetition_penalty == 1.0 {
            max
        } else {
            self.penalise(logits, history);
            checked_max(logits)?
        };
        if self.config.temperature == 0.0 {
            let likeliest = logits.iter().position(|&logit| logit == max);
            return Ok(likeliest.unwrap_or(0) as u32);
        }
        self.collect_candidates(logits, max);
        if self.config.top_p < 1.0 {
            self.keep_top_p();
        }
        if self.config.min_p > 0.0 {
            // The likeliest token weighs 1, so one always stays.
            self.candidates.retain(|candidate| candidate.weight >= self.config.min_p);
        }
        Ok(self.draw())
    }

    /// Makes tokens that occurred before less likely, once for each, however often it occurred.
    fn penalise(&mut self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.config.repetition_penalty;
        let seen = &mut self.scratch;
        seen.clear();
        seen.resize(logits.len(), 0.0);
        for &id in history {
            let id = id as usize;
            // A token beyond the logits, such as padding, cannot be drawn anyway.
            if id < logits.len() && seen[id] == 0.0 {
                seen[id] = 1.0;
                let logit = logits[id];
                logits[id] = if logit < 0.0 { logit * penalty } else { logit / penalty };
            }
        }
    }

    /// Applies temperature and top-k.
    fn collect_candidates(&mut self, logits: &[f32], max: f32) {
        let threshold = match self.config.top_k {
            k if k == 0 || k >= logits.len() => f32::NEG_INFINITY,
            k => {
                self.scratch.clear();
                self.scratch.extend_from_slice(logits);
                let descending = |left: &f32, right: &f32| right.total_cmp(left);
                *self.scratch.select_nth_unstable_by(k - 1, descending).1
            }
        };
        let temperature = self.config.temperature;
        let kept = (0..).zip(logits).filter(|&(_, &logit)| logit >= threshold);
        self.candidates.clear();
        self.candidates
            .extend(kept.map(|(id, &logit)| Candidate { id, weight: ((logit - max) / temperature).exp() }));
    }

    /// Keeps the likeliest candidates up to the one with which their mass reaches top-p.
    fn keep_top_p(&mut self) {
        let mass = f64::from(self.config.top_p) * total_weight(&self.candidates);
        let mut kept_mass = 0.0;
        let mut sorted = 0;
        let mut kept = 0;
        // The mass is nearly always in a few tokens, so the sorted head grows as needed.
        while kept == sorted && sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
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
        self.candidates.truncate(kept);
    }

    /// Draws one candidate with a probability proportional to its weight.
    fn draw(&mut self) -> u32 {
        let mut rest = self.rng.random::<f64>() * total_weight(&self.candidates);
        let mut chosen = 0;
        for candidate in self.candidates.iter().filter(|candidate| candidate.weight > 0.0) {
            // Kept after the loop if rounding leaves a rest.
            chosen = candidate.id;
            rest -= f64::from(candidate.weight);
            if rest < 0.0 {
                break;
            }
        }
        chosen
    }
}

/// Descending weight; of equal ones, the lowest id first.
fn by_weight(left: &Candidate, right: &Candidate) -> Ordering {
    right.weight.total_cmp(&left.weight).then(left.id.cmp(&right.id))
}

fn total_weight(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

/// The largest logit, if all of them are fit for choosing a token.
fn checked_max(logits: &[f32]) -> Result<f32> {
    let invalid = |message: String| Err(Error::InvalidLogits { message });
    let is_bad = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    if logits.iter().fold(false, |bad, &logit| bad | is_bad(logit)) {
        let bad = logits.iter().enumerate().find(|&(_, &logit)| is_bad(logit));
        let (id, logit) = bad.unwrap_or((0, &f32::NAN));
        return invalid(format!("the logit of token {id} is {logit}"));
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return invalid(format!("none of {} tokens is possible", logits.len()));
    }
    Ok(max)
}

#[cfg(test)]
mod tests;
