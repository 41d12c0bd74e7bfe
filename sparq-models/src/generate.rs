//! From a prompt to text: the generation loop, its events and its statistics.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use burn::tensor::{DType, Device};
use sparq_core::{AttentionLayer, Method, Traffic};

use crate::{
    attention::{Attention, SparqOptions},
    checkpoint::Checkpoint,
    error::{Error, Result},
    forward,
    models::{self, CausalModel},
    sampling::{Sampler, SamplerConfig},
    state::{ModelState, StateConfig},
    stop::StopStrings,
    tokenizer::Tokenizer,
};

/// Prompt tokens that go through the model at once: bounds the memory of a long prefill.
const PREFILL_CHUNK: usize = 512;

/// A model with its tokenizer, ready to write.
#[derive(Debug)]
pub struct TextModel {
    model: Box<dyn CausalModel>,
    tokenizer: Tokenizer,
    eos_ids: Vec<u32>,
    dtype: DType,
}

/// What to generate and how.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Decode attention.
    pub attention: Attention,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Longest context, prompt included; the model's own limit by default.
    pub max_seq_len: Option<usize>,
    /// How the next token is drawn.
    pub sampler: SamplerConfig,
    /// Texts that end the generation; they are not part of the result.
    pub stop: Vec<String>,
    /// Go on after an end-of-text token.
    pub ignore_eos: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            attention: Attention::Sparq(SparqOptions::default()),
            max_new_tokens: 256,
            max_seq_len: None,
            sampler: SamplerConfig::default(),
            stop: vec![],
            ignore_eos: false,
        }
    }
}

/// What happens while a text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// So many of the prompt's tokens went through the model.
    Prefill {
        /// Tokens done.
        done: usize,
        /// Tokens in the prompt.
        total: usize,
    },
    /// A piece of text, whole characters only.
    Text(&'a str),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model wrote an end-of-text token.
    Eos,
    /// A stop string came up.
    Stop,
    /// The number of tokens asked for was reached.
    MaxNewTokens,
    /// The longest context was reached.
    MaxSeqLen,
    /// The caller ended it.
    Cancelled,
}

/// Times and counts of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Tokens of the prompt, with special tokens.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub new_tokens: usize,
    /// From the call to the end of the prompt's pass through the model.
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
    /// Why it ended.
    pub finish: Finish,
}

impl Stats {
    /// Prompt tokens per second.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill.as_secs_f64()
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

impl TextModel {
    /// Loads the weights of a checkpoint in `dtype` onto `device`. `progress` is called with bytes
    /// done and bytes in all.
    ///
    /// # Errors
    /// [`Error`] for an unknown architecture, a bad configuration, weights that do not fit, or a
    /// missing tokenizer.
    pub fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        dtype: DType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let tokenizer = checkpoint.tokenizer()?;
        let model = load_model(checkpoint, device, dtype, progress)?;
        let mut eos_ids = checkpoint.eos_ids()?;
        eos_ids.extend(tokenizer.end_ids(&checkpoint.tokenizer_config()?));
        Ok(Self { model, tokenizer, eos_ids, dtype })
    }

    /// The model.
    pub fn model(&self) -> &dyn CausalModel {
        self.model.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Continues `prompt`. `events` sees progress and text as they come and may end the run.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] for a prompt that leaves no room, [`Error::EmptyPrompt`] for one
    /// without tokens, and errors of the options.
    pub fn generate(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let start = Instant::now();
        let mut sampler = Sampler::new(options.sampler.clone())?;
        let ids = self.tokenizer.encode(prompt, true)?;
        let max_seq_len = options.max_seq_len.unwrap_or(self.model.max_position_embeddings());
        if ids.len() >= max_seq_len {
            return Err(Error::PromptTooLong { tokens: ids.len(), max_seq_len });
        }
        let max_len = max_seq_len.min(ids.len() + options.max_new_tokens);
        let method = self.method(&options.attention, max_len)?;
        let config = StateConfig { batch: 1, max_len, dtype: self.dtype };
        let resolve = |layer: &AttentionLayer| options.attention.resolve(layer, max_len);
        let mut state = ModelState::per_layer(self.model(), &config, resolve)?;
        state.reserve(max_len)?;

        let mut run = Run { history: ids.clone(), new: vec![], text: String::new(), finish: None };
        let Some(mut logits) = self.prefill(&ids, &mut state, events)? else {
            run.finish = Some(Finish::Cancelled);
            return Ok(run.end(ids.len(), &state, method, [start.elapsed(); 3]));
        };
        let prefill = start.elapsed();
        let mut first_token = prefill;
        let mut stream = self.tokenizer.stream_after(&ids)?;
        let mut stop = StopStrings::new(options.stop.clone());
        while run.finish.is_none() {
            if run.new.len() == options.max_new_tokens {
                run.finish = Some(Finish::MaxNewTokens);
                break;
            }
            let id = sampler.sample(&mut logits, &run.history)?;
            if run.new.is_empty() {
                first_token = start.elapsed();
            }
            run.history.push(id);
            run.new.push(id);
            if self.eos_ids.contains(&id) && !options.ignore_eos {
                run.finish = Some(Finish::Eos);
                break;
            }
            if let Some(piece) = stream.step(id)? {
                let step = stop.push(&piece);
                run.emit(&step.text, events);
                if step.stopped {
                    run.finish = Some(Finish::Stop);
                }
            }
            if run.finish.is_none() && run.new.len() < options.max_new_tokens {
                match run.history.len() > max_seq_len {
                    true => run.finish = Some(Finish::MaxSeqLen),
                    false => logits = forward::read(forward::decode(self.model(), &[id], &mut state)?)?,
                }
            }
        }
        if run.finish != Some(Finish::Stop) {
            let rest = stop.push(&stream.finish()?);
            run.emit(&rest.text, events);
            if !rest.stopped {
                run.emit(&stop.finish(), events);
            }
        }
        Ok(run.end(ids.len(), &state, method, [prefill, first_token, start.elapsed()]))
    }

    /// The decode method of the layers that see the most, for the report.
    fn method(&self, attention: &Attention, max_len: usize) -> Result<Method> {
        let layers = self.model.attention_layers();
        match layers.iter().max_by_key(|layer| layer.window.unwrap_or(usize::MAX)) {
            Some(layer) => attention.resolve(layer, max_len),
            None => Ok(Method::Dense),
        }
    }

    /// Logits after the prompt, in chunks; `None` where `events` ended the run.
    fn prefill(
        &self,
        ids: &[u32],
        state: &mut ModelState,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Vec<f32>>> {
        let mut logits = None;
        let mut done = 0;
        for chunk in ids.chunks(PREFILL_CHUNK) {
            // Only the last chunk's last token needs the output projection.
            if done + chunk.len() == ids.len() {
                logits = Some(forward::read(forward::prefill_last(self.model(), chunk, state)?)?);
            } else {
                forward::prefill(self.model(), chunk, state)?;
            }
            done += chunk.len();
            if events(Event::Prefill { done, total: ids.len() }).is_break() {
                return Ok(None);
            }
        }
        logits.ok_or(Error::EmptyPrompt).map(Some)
    }
}

/// Loads a checkpoint's model without its tokenizer.
///
/// # Errors
/// As [`TextModel::load`].
pub fn load_model(
    checkpoint: &Checkpoint,
    device: &Device,
    dtype: DType,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn CausalModel>> {
    let load = models::loader_of(checkpoint)?;
    let mut loader = checkpoint.loader(device, dtype, progress)?;
    let model = load(checkpoint, &mut loader)?;
    loader.finish()?;
    Ok(model)
}

/// What a generation has produced so far.
struct Run {
    history: Vec<u32>,
    new: Vec<u32>,
    text: String,
    finish: Option<Finish>,
}

impl Run {
    fn emit(&mut self, text: &str, events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        if events(Event::Text(text)).is_break() {
            self.finish = Some(Finish::Cancelled);
        }
    }

    fn end(
        self,
        prompt_tokens: usize,
        state: &ModelState,
        method: Method,
        times: [Duration; 3],
    ) -> Generation {
        let [prefill, first_token, total] = times;
        let held = state.lens().first().copied().unwrap_or(0);
        let stats = Stats {
            prompt_tokens,
            new_tokens: self.new.len(),
            prefill,
            first_token,
            decode: total - first_token,
            traffic: state.traffic(),
            decode_steps: held.saturating_sub(prompt_tokens),
            cache_bytes: state.bytes(),
            method,
            finish: self.finish.unwrap_or(Finish::MaxNewTokens),
        };
        Generation { text: self.text, tokens: self.new, stats }
    }
}
