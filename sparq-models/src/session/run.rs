//! One generation: the prompt through the model, then token after token.

use std::{ops::ControlFlow, time::Instant};

use super::Held;
use crate::{
    error::{Error, Result},
    forward,
    generate::{Event, Finish, GenerateOptions, TextModel},
    sampling::Sampler,
    stop::{StopStep, StopStrings},
    tokenizer::TokenStream,
};

/// Prompt tokens that go through the model at once: bounds the memory of a long prefill.
pub(super) const PREFILL_CHUNK: usize = 512;

/// What ends a generation, beside the model and its options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most tokens that go through the model, prompt included.
    pub(super) max_seq_len: usize,
    /// What the time is counted from.
    pub(super) start: Instant,
}

/// A generation under way.
pub(super) struct Run<'r, 'e> {
    model: &'r TextModel,
    pub(super) held: &'r mut Held,
    events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    told_length: &'r mut bool,
    /// Prompt and answer.
    history: Vec<u32>,
    /// The answer.
    pub(super) new: Vec<u32>,
    pub(super) text: String,
    pub(super) finish: Option<Finish>,
}

/// The answer on its way from tokens to text.
struct Writing<'t> {
    stream: TokenStream<'t>,
    stop: StopStrings,
}

impl<'r, 'e> Run<'r, 'e> {
    pub(super) fn new(
        model: &'r TextModel,
        held: &'r mut Held,
        events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        prompt: &[u32],
        told_length: &'r mut bool,
    ) -> Self {
        let history = prompt.to_vec();
        Self { model, held, events, told_length, history, new: vec![], text: String::new(), finish: None }
    }

    /// Logits after the prompt, in chunks; `None` where `events` ended the run.
    pub(super) fn prefill(&mut self, ids: &[u32]) -> Result<Option<Vec<f32>>> {
        let model = self.model.model();
        self.tell_length(self.history.len());
        let mut logits = None;
        let mut done = 0;
        for chunk in ids.chunks(PREFILL_CHUNK) {
            // Only the last chunk's last token needs the output projection.
            if done + chunk.len() == ids.len() {
                let last = forward::prefill_last(model, chunk, &mut self.held.state)?;
                logits = Some(forward::read_finite(last, &self.held.state)?);
            } else {
                forward::prefill(model, chunk, &mut self.held.state)?;
            }
            self.held.push(chunk);
            done += chunk.len();
            self.send(Event::Prefill { done, total: ids.len() });
            if self.finish.is_some() {
                return Ok(None);
            }
        }
        logits.ok_or(Error::EmptyPrompt).map(Some)
    }

    /// Token after token until something ends it; `on_first` is called with the first one.
    pub(super) fn decode(
        &mut self,
        mut logits: Vec<f32>,
        sampler: &mut Sampler,
        options: &GenerateOptions,
        limits: Limits,
        on_first: &mut dyn FnMut(),
    ) -> Result<()> {
        let stream = self.model.tokenizer().stream_after(&self.history)?;
        let mut writing = Writing { stream, stop: StopStrings::new(options.stop.clone()) };
        if options.max_new_tokens == 0 {
            self.finish = Some(Finish::MaxNewTokens);
        }
        while self.finish.is_none() {
            let id = sampler.sample(&mut logits, &self.history)?;
            if self.new.is_empty() {
                on_first();
            }
            self.history.push(id);
            self.new.push(id);
            if self.model.eos_ids().contains(&id) && !options.ignore_eos {
                self.finish = Some(Finish::Eos(id));
                break;
            }
            self.write(id, &mut writing)?;
            self.finish = self.finish.take().or_else(|| self.limit(options, limits));
            if self.finish.is_none() {
                logits = self.step(id)?;
            }
        }
        self.end(writing)
    }

    /// The limit that is reached, if one is.
    fn limit(&self, options: &GenerateOptions, limits: Limits) -> Option<Finish> {
        if self.new.len() >= options.max_new_tokens {
            Some(Finish::MaxNewTokens)
        } else if self.history.len() > limits.max_seq_len {
            Some(Finish::MaxSeqLen)
        } else if options.max_time.is_some_and(|most| limits.start.elapsed() > most) {
            Some(Finish::MaxTime)
        } else {
            None
        }
    }

    /// Logits after one more token.
    fn step(&mut self, id: u32) -> Result<Vec<f32>> {
        self.tell_length(self.history.len());
        let model = self.model.model();
        let held = &mut *self.held;
        if !held.state.suits(model, held.tokens().len() + 1) {
            held.begin_again(model)?;
            let tokens = held.tokens().to_vec();
            tokens
                .chunks(PREFILL_CHUNK)
                .try_for_each(|chunk| forward::prefill(model, chunk, &mut held.state))?;
        }
        let logits = forward::decode(model, &[id], &mut held.state)?;
        held.push(&[id]);
        forward::read_finite(logits, &held.state)
    }

    /// Writes the text that is complete with one more token.
    fn write(&mut self, id: u32, writing: &mut Writing<'_>) -> Result<()> {
        if let Some(piece) = writing.stream.step(id)? {
            let step = writing.stop.push(&piece);
            self.emit(&step, &writing.stop);
        }
        if writing.stop.is_empty() {
            return Ok(());
        }
        // A special token has no text, and a stop text may be made of it.
        let spelling = self.model.tokenizer().special_spelling(id);
        if let Some(spelling) = spelling.filter(|spelling| writing.stop.watches(spelling)) {
            let step = writing.stop.push_hidden(&spelling);
            self.emit(&step, &writing.stop);
        }
        Ok(())
    }

    /// Writes what was held back.
    fn end(&mut self, mut writing: Writing<'_>) -> Result<()> {
        if matches!(self.finish, Some(Finish::Stop(_))) {
            return Ok(());
        }
        let rest = writing.stop.push(&writing.stream.finish()?);
        let is_cancelled = self.finish == Some(Finish::Cancelled);
        match is_cancelled {
            true => self.send_text(&rest.text),
            false => self.emit(&rest, &writing.stop),
        }
        if !rest.stopped {
            self.send_text(&writing.stop.finish());
        }
        Ok(())
    }

    fn emit(&mut self, step: &StopStep, stop: &StopStrings) {
        self.send_text(&step.text);
        if let Some(reached) = stop.reached() {
            self.finish = Some(Finish::Stop(reached.to_owned()));
        }
    }

    fn send_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.send(Event::Text(text));
        }
    }

    /// Says once that the text has become longer than what the model was made for.
    fn tell_length(&mut self, tokens: usize) {
        let made_for = self.model.model().max_position_embeddings();
        if tokens > made_for && !*self.told_length {
            *self.told_length = true;
            self.send(Event::BeyondTrainedLength { tokens: made_for });
        }
    }

    fn send(&mut self, event: Event<'_>) {
        if (self.events)(event).is_break() {
            self.finish = Some(Finish::Cancelled);
        }
    }
}
