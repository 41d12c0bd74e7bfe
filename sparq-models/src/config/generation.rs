//! `generation_config.json`: how the authors of a model want its texts to be sampled and to end.
//!
//! Nothing in this file keeps a model from being used: a bad value is left out and a setting that is
//! not built is named, each in a note.

mod reader;

use std::time::Duration;

use super::ConfigFields;
use crate::sampling::{SamplerConfig, TokenRules};
use reader::Reader;

/// What a checkpoint says about ending and sampling; every field may be absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Name of the file that the settings come from; `None` where there is none.
    pub source: Option<&'static str>,
    /// Tokens that end a text, by `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Tokens that end a text, by `config.json`.
    pub config_eos_token_ids: Vec<u32>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Whether the authors recommend sampling over the likeliest token.
    pub do_sample: Option<bool>,
    /// Recommended temperature.
    pub temperature: Option<f32>,
    /// Recommended number of likeliest tokens to sample from; 0 is off.
    pub top_k: Option<usize>,
    /// Recommended probability mass to sample from.
    pub top_p: Option<f32>,
    /// Recommended part of the likeliest token's probability below which tokens are dropped.
    pub min_p: Option<f32>,
    /// Recommended mass of the tokens that are as surprising as is usual.
    pub typical_p: Option<f32>,
    /// Recommended probability below which tokens are dropped.
    pub epsilon_cutoff: Option<f32>,
    /// The same, lower where many tokens are possible.
    pub eta_cutoff: Option<f32>,
    /// Recommended part of the entropy to sample from.
    pub top_h: Option<f32>,
    /// Recommended penalty on tokens that occurred before.
    pub repetition_penalty: Option<f32>,
    /// What forbids, forces or shifts tokens.
    pub rules: TokenRules,
    /// Tokens to generate at most.
    pub max_new_tokens: Option<usize>,
    /// Longest text in tokens, prompt included; counts where `max_new_tokens` is absent.
    pub max_length: Option<usize>,
    /// Time after which a text ends.
    pub max_time: Option<Duration>,
    /// Texts that end a generation.
    pub stop_strings: Vec<String>,
    /// What was left out and why, and what is not honoured: a line each, with the file and the field.
    pub notes: Vec<String>,
}

impl GenerationConfig {
    /// Reads the fields of `generation_config.json`.
    pub fn from_fields(fields: &ConfigFields<'_>) -> Self {
        let mut reader = Reader::new(fields);
        let config = Self::read(&mut reader, "generation_config.json");
        let eos_token_ids = reader.ids("eos_token_id");
        let bos_token_id = reader.id("bos_token_id");
        reader.name_the_rest();
        Self { eos_token_ids, bos_token_id, notes: reader.notes, ..config }
    }

    /// Reads the same fields of `config.json`, which is where checkpoints without a file of their own for
    /// them have them.
    pub fn from_model_config(fields: &ConfigFields<'_>) -> Self {
        let mut reader = Reader::new(fields);
        let config = Self::read(&mut reader, "config.json");
        reader.name_known();
        let config = Self { notes: reader.notes, ..config };
        let source = config.source.filter(|_| config != Self { source: config.source, ..Self::default() });
        Self { source, ..config }
    }

    /// Adds the tokens that `config.json` ends a text with.
    pub fn with_config_ends(mut self, fields: &ConfigFields<'_>) -> Self {
        let mut reader = Reader::new(fields);
        self.config_eos_token_ids = reader.ids("eos_token_id");
        self.notes.append(&mut reader.notes);
        self
    }

    /// Every token that ends a text, by both files, ascending, each once.
    pub fn eos_ids(&self) -> Vec<u32> {
        let mut ids = [self.eos_token_ids.as_slice(), &self.config_eos_token_ids].concat();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// How tokens are drawn by these settings: the likeliest one, unless the authors recommend to sample.
    /// Filters are taken over in any case, for whoever states a temperature.
    pub fn sampler(&self) -> SamplerConfig {
        let off = SamplerConfig::default();
        let temperature = match self.do_sample {
            Some(true) => self.temperature.unwrap_or(1.0),
            _ => off.temperature,
        };
        SamplerConfig {
            temperature,
            top_k: self.top_k.unwrap_or(off.top_k),
            top_p: self.top_p.unwrap_or(off.top_p),
            min_p: self.min_p.unwrap_or(off.min_p),
            typical_p: self.typical_p.unwrap_or(off.typical_p),
            epsilon_cutoff: self.epsilon_cutoff.unwrap_or(off.epsilon_cutoff),
            eta_cutoff: self.eta_cutoff.unwrap_or(off.eta_cutoff),
            top_h: self.top_h.unwrap_or(off.top_h),
            repetition_penalty: self.repetition_penalty.unwrap_or(off.repetition_penalty),
            rules: self.rules.clone(),
            seed: off.seed,
        }
    }

    /// What is not off: how tokens are drawn, and how long and up to what texts go; each with its value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.sampler().settings();
        settings.extend(self.max_new_tokens.map(|tokens| ("max_new_tokens", tokens.to_string())));
        settings.extend(self.max_length.map(|tokens| ("max_length", tokens.to_string())));
        settings.extend(self.max_time.map(|time| ("max_time", time.as_secs_f32().to_string())));
        let stops = self.stop_strings.len();
        settings.extend((stops > 0).then(|| ("stop_strings", format!("({stops})"))));
        settings
    }

    /// What is left where the settings are not wanted: the tokens that end a text.
    pub fn ends_only(&self) -> Self {
        Self {
            eos_token_ids: self.eos_token_ids.clone(),
            config_eos_token_ids: self.config_eos_token_ids.clone(),
            bos_token_id: self.bos_token_id,
            ..Self::default()
        }
    }

    fn read(reader: &mut Reader<'_>, source: &'static str) -> Self {
        let fraction = |value: f32| (0.0..=1.0).contains(&value);
        let part = |value: f32| value > 0.0 && value <= 1.0;
        let cut = |value: f32| (0.0..1.0).contains(&value);
        let from_0_to_1 = "from 0 to 1";
        Self {
            source: Some(source),
            do_sample: reader.flag("do_sample"),
            temperature: reader.number("temperature", |value| value >= 0.0, "0 or more"),
            top_k: reader.count_or_off("top_k"),
            // What keeps no probability keeps the likeliest token.
            top_p: reader
                .number("top_p", fraction, from_0_to_1)
                .map(|mass| if mass == 0.0 { f32::MIN_POSITIVE } else { mass }),
            min_p: reader.number("min_p", fraction, from_0_to_1),
            typical_p: reader.number("typical_p", part, "above 0, 1 at most"),
            epsilon_cutoff: reader.number("epsilon_cutoff", cut, "0 or more, below 1"),
            eta_cutoff: reader.number("eta_cutoff", cut, "0 or more, below 1"),
            top_h: reader.number("top_h", part, "above 0, 1 at most"),
            repetition_penalty: reader.number("repetition_penalty", |penalty| penalty > 0.0, "above 0"),
            rules: Self::read_rules(reader),
            max_new_tokens: reader.positive_count("max_new_tokens"),
            max_length: reader.positive_count("max_length"),
            max_time: reader
                .number("max_time", |seconds| seconds >= 0.0, "0 or more seconds")
                .and_then(|seconds| Duration::try_from_secs_f32(seconds).ok()),
            stop_strings: reader.texts("stop_strings"),
            ..Self::default()
        }
    }

    fn read_rules(reader: &mut Reader<'_>) -> TokenRules {
        TokenRules {
            sequence_bias: reader.biases("sequence_bias"),
            no_repeat_ngram_size: reader.count("no_repeat_ngram_size").unwrap_or(0),
            bad_words_ids: reader.sequences("bad_words_ids"),
            min_length: reader.count("min_length").unwrap_or(0),
            min_new_tokens: reader.count("min_new_tokens").unwrap_or(0),
            forced_bos_token_id: reader.id("forced_bos_token_id"),
            forced_eos_token_ids: reader.ids("forced_eos_token_id"),
            remove_invalid_values: reader.flag("remove_invalid_values").unwrap_or(false),
            length_decay: reader.decay("exponential_decay_length_penalty"),
            suppress_tokens: reader.ids("suppress_tokens"),
            begin_suppress_tokens: reader.ids("begin_suppress_tokens"),
            renormalize_logits: reader.flag("renormalize_logits").unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests;
