//! What a generation is asked for, what it tells on its way, and what it gives: options, events, statistics.

use std::time::Duration;

use sparq_core::{Method, Traffic};

use crate::{
    attention::AttentionPlan,
    crossover::{MEMORY, Verdict},
    error::{Error, Result},
    sampling::SamplerConfig,
};

/// What to generate and how.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Decode attention. Where it is `sparq` and does not state below which length it attends densely, that
    /// is measured on first use: see [`crate::crossover`].
    pub attention: AttentionPlan,
    /// Bytes that such a measurement may take.
    pub measuring_memory: u64,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Longest context, prompt included; the model's own limit by default. A [`Session`](crate::session::Session) has a limit
    /// of its own instead.
    pub max_seq_len: Option<usize>,
    /// How the next token is drawn.
    pub sampler: SamplerConfig,
    /// Texts that end the generation; they are not part of the result. Special tokens count as they are
    /// spelled, though they have no text.
    pub stop: Vec<String>,
    /// Time from the call after which the generation ends, with the token that is under way.
    pub max_time: Option<Duration>,
    /// Go on after an end-of-text token.
    pub ignore_eos: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            attention: AttentionPlan::default(),
            measuring_memory: MEMORY,
            max_new_tokens: 256,
            max_seq_len: None,
            sampler: SamplerConfig::default(),
            stop: vec![],
            max_time: None,
            ignore_eos: false,
        }
    }
}

impl GenerateOptions {
    /// Checks what the loop goes by; attention and sampler check themselves.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.stop.iter().any(String::is_empty) {
            let (option, value) = ("stop", "an empty text".into());
            return Err(Error::InvalidOption { option, value, expected: "a text to stop at" });
        }
        Ok(())
    }
}

/// What happens while a text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// So many of the prompt's tokens went through the model.
    Prefill {
        /// Tokens done.
        done: usize,
        /// Tokens of the prompt that were not cached.
        total: usize,
    },
    /// A piece of text, whole characters only.
    Text(&'a str),
    /// The text becomes longer than what the model was made for, and may make less sense from there on.
    /// A session says so once.
    BeyondTrainedLength {
        /// The longest sequence that the model was made for.
        tokens: usize,
    },
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model wrote this end-of-text token.
    Eos(u32),
    /// This stop text came up.
    Stop(String),
    /// The number of tokens asked for was reached.
    MaxNewTokens,
    /// The longest context was reached.
    MaxSeqLen,
    /// The time was over.
    MaxTime,
    /// The caller ended it.
    Cancelled,
}

/// Times and counts of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt, with special tokens.
    pub prompt_tokens: usize,
    /// Those that were cached before, so that they did not go through the model again.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub new_tokens: usize,
    /// From the call, or from the end of a measurement ([`GenerateOptions::attention`]), to the end of the
    /// prompt's pass through the model.
    pub prefill: Duration,
    /// From the call to the first token.
    pub first_token: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// KV cache traffic of all decode steps, over all layers.
    pub traffic: Traffic,
    /// Decode steps: tokens that went through the decode attention.
    pub decode_steps: usize,
    /// Bytes that the caches hold at the end.
    pub cache_bytes: usize,
    /// The method that ran, sizes filled in; layers with a sliding window may have run smaller ones.
    pub method: Method,
    /// The method of each layer.
    pub methods: Vec<Method>,
    /// Where the length below which it attends densely comes from.
    pub dense_below: Verdict,
    /// Why it ended.
    pub finish: Finish,
    /// How tokens were chosen.
    pub sampler: SamplerConfig,
}

impl Stats {
    /// Prompt tokens that went through the model.
    pub fn prefill_tokens(&self) -> usize {
        self.prompt_tokens - self.cached_tokens
    }

    /// Prompt tokens that went through the model, per second.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        self.prefill_tokens() as f64 / self.prefill.as_secs_f64()
    }

    /// Tokens per second of the decode steps; `None` where there were none.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        (self.decode_steps > 0).then(|| self.decode_steps as f64 / self.decode.as_secs_f64())
    }

    /// Bytes of the KV cache per decoded token, as moved and as dense attention would have moved.
    pub fn kv_bytes_per_token(&self) -> Option<(f64, f64)> {
        let per_token = |bytes: u64| bytes as f64 / self.decode_steps as f64;
        let Traffic { moved, dense, .. } = self.traffic;
        (self.decode_steps > 0).then(|| (per_token(moved.total().bytes), per_token(dense.total().bytes)))
    }
}

/// A generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text, without the prompt and without a stop string.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Times and counts.
    pub stats: Stats,
}
