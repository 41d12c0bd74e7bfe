//! Choosing the next token from the logits.
//!
//! The steps and their order are those of transformers: first the [rules](TokenRules) with the repetition
//! penalty among them, then temperature, top-h, top-k, top-p, min-p, typical-p, epsilon and eta cutoff.
//! Draws come from ChaCha8, whose streams are the same on every machine and version.

mod config;
mod filters;
mod rules;

use burn::tensor::DType;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use config::SamplerConfig;
pub use rules::{TextFrame, TokenRules};

use crate::{
    error::{Error, Result},
    overflow::{Overflow, OverflowPart},
};
use filters::Candidates;

/// Chooses tokens one after another.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    frame: TextFrame,
    rng: ChaCha8Rng,
    /// Scratch space, kept between calls: tokens that may be drawn.
    candidates: Candidates,
    /// Scratch space, kept between calls: logits in another order, or flags per token.
    scratch: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of its stream of random numbers, for a text without a prompt.
    ///
    /// # Errors
    ///
    /// As [`SamplerConfig::validate`].
    pub fn new(config: SamplerConfig) -> Result<Self> {
        Self::for_text(config, TextFrame::default())
    }

    /// A sampler for a text whose prompt, length and ends are known: rules go by them.
    ///
    /// # Errors
    ///
    /// As [`SamplerConfig::validate`].
    pub fn for_text(config: SamplerConfig, frame: TextFrame) -> Result<Self> {
        config.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        Ok(Self { config, frame, rng, candidates: Candidates::default(), scratch: Vec::new() })
    }

    /// The configuration.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Chooses the next token.
    ///
    /// `logits: [vocabulary]`, changed in place by the rules; minus infinity excludes a token. `history`
    /// holds the tokens so far, prompt and answer.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] if there are no logits, if one is NaN or plus infinity, or if all are minus
    /// infinity; [`Error::NoTokenLeft`] where the settings make them so.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        let max = self.apply_rules(logits, history)?;
        if self.config.temperature == 0.0 {
            let likeliest = logits.iter().position(|&logit| logit == max);
            return Ok(likeliest.unwrap_or(0) as u32);
        }
        self.candidates.collect(logits, max, &self.config, &mut self.scratch);
        self.candidates.filter(&self.config);
        Ok(self.candidates.draw(self.rng.random::<f64>()))
    }

    /// Applies what changes logits, and returns the largest one.
    fn apply_rules(&mut self, logits: &mut [f32], history: &[u32]) -> Result<f32> {
        let Self { config, frame, scratch, .. } = self;
        let has_rules = config.has_rules();
        if !(has_rules && config.rules.remove_invalid_values) {
            let overflow = Overflow { part: OverflowPart::Logits, dtype: DType::F32 };
            let max = checked_max(logits).map_err(|_| Error::Overflow(overflow))?;
            if !has_rules {
                return Ok(max);
            }
        }
        rules::apply(config, frame, logits, history, scratch);
        let blame = |message| Error::NoTokenLeft { message, settings: config.rules_in_words() };
        checked_max(logits).map_err(blame)
    }
}

/// The largest logit, if all of them are fit for choosing a token; what is wrong with them otherwise.
fn checked_max(logits: &[f32]) -> std::result::Result<f32, String> {
    let is_bad = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    if logits.iter().fold(false, |bad, &logit| bad | is_bad(logit)) {
        let bad = logits.iter().enumerate().find(|&(_, &logit)| is_bad(logit));
        let (id, logit) = bad.unwrap_or((0, &f32::NAN));
        return Err(format!("the logit of token {id} is {logit}"));
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return Err(format!("none of {} tokens is possible", logits.len()));
    }
    Ok(max)
}

#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
mod tests;
