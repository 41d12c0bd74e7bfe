//! The settings of a sampler.

use super::TokenRules;
use crate::error::{Error, Result};

/// How the next token is chosen. The default is the likeliest token.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0 takes the likeliest token, whatever filters say.
    pub temperature: f32,
    /// Keeps that many of the likeliest tokens, and those as likely as the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose surprise is nearest to the expected one, up to this probability; 1 keeps all.
    pub typical_p: f32,
    /// Keeps tokens at least this likely; 0 keeps all.
    pub epsilon_cutoff: f32,
    /// The same, with a lower bound where many tokens are possible; 0 keeps all.
    pub eta_cutoff: f32,
    /// Keeps the likeliest of the first hundred tokens that hold this part of their entropy; 0 keeps all.
    pub top_h: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred before; 1 is off.
    pub repetition_penalty: f32,
    /// What forbids, forces or shifts tokens beforehand.
    pub rules: TokenRules,
    /// Selects the stream of random numbers.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            top_h: 0.0,
            repetition_penalty: 1.0,
            rules: TokenRules::default(),
            seed: 0,
        }
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
        let Self { temperature, top_p, min_p, typical_p, top_h, repetition_penalty, .. } = *self;
        let is_valid = temperature.is_finite() && temperature >= 0.0;
        check("temperature", temperature, is_valid, "0 (likeliest token) or more, and finite")?;
        check("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0 and at most 1 (off)")?;
        check("min_p", min_p, (0.0..=1.0).contains(&min_p), "from 0 (off) to 1")?;
        check("typical_p", typical_p, typical_p > 0.0 && typical_p <= 1.0, "above 0 and at most 1 (off)")?;
        for (option, cutoff) in [("epsilon_cutoff", self.epsilon_cutoff), ("eta_cutoff", self.eta_cutoff)] {
            check(option, cutoff, (0.0..1.0).contains(&cutoff), "from 0 (off), below 1")?;
        }
        check("top_h", top_h, (0.0..=1.0).contains(&top_h), "from 0 (off) to 1")?;
        let is_valid = repetition_penalty.is_finite() && repetition_penalty > 0.0;
        check("repetition_penalty", repetition_penalty, is_valid, "above 0 (1 is off), and finite")
    }

    /// Whether something changes the logits before a token is chosen.
    pub(super) fn has_rules(&self) -> bool {
        self.repetition_penalty != 1.0 || self.rules != TokenRules::default()
    }

    /// The settings that are not off, by the names that `generation_config.json` has for them, each with
    /// its value. Without a temperature, filters are off.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("temperature", self.temperature.to_string())];
        let mut add = |name, value: String, is_on: bool| settings.extend(is_on.then_some((name, value)));
        if self.temperature > 0.0 {
            add("top_h", self.top_h.to_string(), self.top_h > 0.0);
            add("top_k", self.top_k.to_string(), self.top_k > 0);
            add("top_p", self.top_p.to_string(), self.top_p < 1.0);
            add("min_p", self.min_p.to_string(), self.min_p > 0.0);
            add("typical_p", self.typical_p.to_string(), self.typical_p < 1.0);
            add("epsilon_cutoff", self.epsilon_cutoff.to_string(), self.epsilon_cutoff > 0.0);
            add("eta_cutoff", self.eta_cutoff.to_string(), self.eta_cutoff > 0.0);
        }
        settings.extend(self.rule_settings());
        settings
    }

    /// [`SamplerConfig::settings`] for people: `greedy`, or `temperature 0.8, top_p 0.95`.
    pub fn in_words(&self) -> String {
        let words = self.settings();
        let words = words.iter().map(|(name, value)| match (*name, self.temperature > 0.0) {
            ("temperature", false) => "greedy".to_owned(),
            _ => format!("{name} {value}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Those that change the logits, in words.
    pub(super) fn rules_in_words(&self) -> String {
        let rules = self.rule_settings().map(|(name, value)| format!("{name} {value}"));
        rules.collect::<Vec<_>>().join(", ")
    }

    fn rule_settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let penalty = Some(self.repetition_penalty).filter(|&penalty| penalty != 1.0);
        let penalty = penalty.map(|penalty| ("repetition_penalty", penalty.to_string()));
        penalty.into_iter().chain(self.rules.settings())
    }
}
