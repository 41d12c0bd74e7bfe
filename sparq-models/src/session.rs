//! A text that grows: prompts and answers over one set of caches.

use std::{ops::ControlFlow, time::Instant};

use sparq_core::Method;

use crate::{
    attention::Attention,
    error::{Error, Result},
    forward,
    generate::{Event, Finish, GenerateOptions, Generation, Stats, TextModel},
    sampling::Sampler,
    state::{ModelState, StateConfig},
    stop::StopStrings,
};

/// Prompt tokens that go through the model at once: bounds the memory of a long prefill.
const PREFILL_CHUNK: usize = 512;

/// Generates several texts one after another, each from what it has in common with the one before.
///
/// The caches live on between the calls of [`Session::generate`]. The tokens that a new prompt shares
/// with what is cached, from the beginning, do not go through the model again; the caches are cut
/// back to them. So a conversation costs its new tokens, and an edited one costs what follows the edit.
///
/// Under a sparse method the keys and values of generated tokens stay as its decode steps made them,
/// where a fresh run over the same text would prefill them densely.
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a TextModel,
    max_seq_len: usize,
    /// The most tokens that the caches may hold.
    max_len: usize,
    held: Option<Held>,
}

/// What lives on between runs.
#[derive(Debug)]
struct Held {
    state: ModelState,
    methods: Vec<Method>,
    /// The tokens that the caches hold.
    tokens: Vec<u32>,
}

impl<'a> Session<'a> {
    /// A session without any text. `max_seq_len` is its longest context; the model's own limit for
    /// `None`. Memory is taken as the text grows.
    pub fn new(model: &'a TextModel, max_seq_len: Option<usize>) -> Self {
        let max_seq_len = max_seq_len.unwrap_or(model.model().max_position_embeddings());
        Self { model, max_seq_len, max_len: max_seq_len, held: None }
    }

    /// A session for one run from `ids`: everything that depends on the longest context is chosen
    /// for this run.
    pub(crate) fn of_one_run(model: &'a TextModel, ids: &[u32], options: &GenerateOptions) -> Self {
        let session = Self::new(model, options.max_seq_len);
        Self { max_len: session.max_seq_len.min(ids.len() + options.max_new_tokens), ..session }
    }

    /// Tokens that the caches hold.
    pub fn cached_tokens(&self) -> &[u32] {
        self.held.as_ref().map_or(&[], |held| &held.tokens)
    }

    /// The longest context, in tokens.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// Forgets the text and gives the memory back.
    pub fn clear(&mut self) {
        self.held = None;
    }

    /// Continues the text of tokens `ids`, special tokens included, which need not have anything in
    /// common with what is cached. `events` sees progress and text as they come and may end the run.
    ///
    /// The sizes of a method that follow from a compression ratio are chosen for this run's length.
    /// Another kind of method than before, or one that cannot go back, begins with empty caches.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] for a prompt that leaves no room, [`Error::EmptyPrompt`] for one
    /// without tokens, and errors of the options.
    pub fn generate(
        &mut self,
        ids: &[u32],
        options: &GenerateOptions,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        self.run(ids, options, events, Instant::now())
    }

    /// [`Session::generate`], timed from `start`.
    pub(crate) fn run(
        &mut self,
        ids: &[u32],
        options: &GenerateOptions,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        start: Instant,
    ) -> Result<Generation> {
        let mut sampler = Sampler::new(options.sampler.clone())?;
        if ids.len() >= self.max_seq_len {
            return Err(Error::PromptTooLong { tokens: ids.len(), max_seq_len: self.max_seq_len });
        }
        let last = ids.len().checked_sub(1).ok_or(Error::EmptyPrompt)?;
        let run_len = self.max_len.min(ids.len() + options.max_new_tokens);
        // Taken out for the run: after an error, what the caches hold is not known.
        let mut held = self.take(&ids[..last], &options.attention, run_len)?;
        held.state.reserve(run_len)?;
        held.state.reset_traffic();
        let cached_tokens = held.tokens.len();

        let mut run = Run {
            model: self.model,
            held: &mut held,
            events,
            history: ids.to_vec(),
            new: vec![],
            text: String::new(),
            finish: None,
        };
        let logits = run.prefill(&ids[cached_tokens..])?;
        let prefill = start.elapsed();
        let mut first_token = prefill;
        if let Some(logits) = logits {
            let mut on_first = || first_token = start.elapsed();
            run.decode(logits, &mut sampler, options, self.max_seq_len, &mut on_first)?;
        }
        let Run { new, text, finish, .. } = run;
        let stats = Stats {
            prompt_tokens: ids.len(),
            cached_tokens,
            new_tokens: new.len(),
            prefill,
            first_token,
            decode: start.elapsed() - first_token,
            traffic: held.state.traffic(),
            decode_steps: held.tokens.len().saturating_sub(ids.len()),
            cache_bytes: held.state.bytes(),
            method: self.widest(&held.methods),
            finish: finish.unwrap_or(Finish::MaxNewTokens),
        };
        self.held = Some(held);
        Ok(Generation { text, tokens: new, stats })
    }

    /// Caches that hold what they have in common with `ids`, and decode with `attention` at runs of
    /// `run_len` tokens.
    fn take(&mut self, ids: &[u32], attention: &Attention, run_len: usize) -> Result<Held> {
        let methods = attention.methods(&self.model.model().attention_layers(), run_len)?;
        if let Some(mut held) = self.held.take() {
            let common = held.tokens.iter().zip(ids).take_while(|(held, new)| held == new).count();
            if held.set_methods(&methods)? && held.state.truncate(common).is_ok() {
                held.tokens.truncate(common);
                return Ok(held);
            }
        }
        let config = StateConfig { batch: 1, max_len: self.max_len, dtype: self.model.dtype() };
        let state = ModelState::of_methods(self.model.model(), &config, &methods)?;
        Ok(Held { state, methods, tokens: vec![] })
    }

    /// The decode method of the layers that see the most, for the report.
    fn widest(&self, methods: &[Method]) -> Method {
        let layers = self.model.model().attention_layers();
        let widest = layers.iter().zip(methods).max_by_key(|(layer, _)| layer.window.unwrap_or(usize::MAX));
        widest.map_or(Method::Dense, |(_, method)| method.clone())
    }
}

impl Held {
    /// Goes on with other methods. `false` where the caches cannot be kept.
    fn set_methods(&mut self, methods: &[Method]) -> Result<bool> {
        for ((layer, old), new) in self.state.layers_mut().iter_mut().zip(&self.methods).zip(methods) {
            if old != new && (new.watches_prefill() || !layer.set_method(new)?) {
                return Ok(false);
            }
        }
        self.methods = methods.to_vec();
        Ok(true)
    }
}

/// A generation under way.
struct Run<'r, 'e> {
    model: &'r TextModel,
    held: &'r mut Held,
    events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    /// Prompt and answer.
    history: Vec<u32>,
    /// The answer.
    new: Vec<u32>,
    text: String,
    finish: Option<Finish>,
}

impl Run<'_, '_> {
    /// Logits after the prompt, in chunks; `None` where `events` ended the run.
    fn prefill(&mut self, ids: &[u32]) -> Result<Option<Vec<f32>>> {
        let model = self.model.model();
        let mut logits = None;
        let mut done = 0;
        for chunk in ids.chunks(PREFILL_CHUNK) {
            // Only the last chunk's last token needs the output projection.
            if done + chunk.len() == ids.len() {
                logits = Some(forward::read(forward::prefill_last(model, chunk, &mut self.held.state)?)?);
            } else {
                forward::prefill(model, chunk, &mut self.held.state)?;
            }
            self.held.tokens.extend(chunk);
            done += chunk.len();
            if (self.events)(Event::Prefill { done, total: ids.len() }).is_break() {
                self.finish = Some(Finish::Cancelled);
                return Ok(None);
            }
        }
        logits.ok_or(Error::EmptyPrompt).map(Some)
    }

    /// Token after token until something ends it; `on_first` is called with the first one.
    fn decode(
        &mut self,
        mut logits: Vec<f32>,
        sampler: &mut Sampler,
        options: &GenerateOptions,
        max_seq_len: usize,
        on_first: &mut dyn FnMut(),
    ) -> Result<()> {
        let mut stream = self.model.tokenizer().stream_after(&self.history)?;
        let mut stop = StopStrings::new(options.stop.clone());
        while self.finish.is_none() {
            if self.new.len() == options.max_new_tokens {
                self.finish = Some(Finish::MaxNewTokens);
                break;
            }
            let id = sampler.sample(&mut logits, &self.history)?;
            if self.new.is_empty() {
                on_first();
            }
            self.history.push(id);
            self.new.push(id);
            if self.model.eos_ids().contains(&id) && !options.ignore_eos {
                self.finish = Some(Finish::Eos);
                break;
            }
            if let Some(piece) = stream.step(id)? {
                let step = stop.push(&piece);
                self.emit(&step.text);
                if step.stopped {
                    self.finish = Some(Finish::Stop);
                }
            }
            if self.finish.is_none() && self.new.len() < options.max_new_tokens {
                if self.history.len() > max_seq_len {
                    self.finish = Some(Finish::MaxSeqLen);
                } else {
                    logits = self.step(id)?;
                }
            }
        }
        if self.finish != Some(Finish::Stop) {
            let rest = stop.push(&stream.finish()?);
            self.emit(&rest.text);
            if !rest.stopped {
                self.emit(&stop.finish());
            }
        }
        Ok(())
    }

    /// Logits after one more token.
    fn step(&mut self, id: u32) -> Result<Vec<f32>> {
        let logits = forward::decode(self.model.model(), &[id], &mut self.held.state)?;
        self.held.tokens.push(id);
        forward::read(logits)
    }

    fn emit(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        if (self.events)(Event::Text(text)).is_break() {
            self.finish = Some(Finish::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests;
