//! One generation in steps: the prompt through the model in chunks, then token after token.

use std::time::{Duration, Instant};

use super::{Held, Session};
use crate::{
    crossover::Verdict,
    error::{Error, Result},
    forward::{self, Row, Want},
    generate::{Finish, GenerateOptions, Generation, Stats},
    sampling::Sampler,
    stop::{StopStep, StopStrings},
    tokenizer::TokenStream,
};

/// Prompt tokens that go through the model at once: bounds the memory of a long prefill.
pub(super) const PREFILL_CHUNK: usize = 512;

/// What one step of a [`Writing`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WritingStep {
    /// A chunk of the prompt went through the model.
    Prefill {
        /// Tokens done.
        done: usize,
        /// Tokens of the prompt that were not cached.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The token.
        id: u32,
        /// The text that is complete with it, whole characters only; at the end also what was held back.
        text: String,
    },
    /// Nothing went through the model: from the next step on the text is longer than what the model was made
    /// for. A session says so once.
    BeyondTrainedLength {
        /// The longest sequence that the model was made for.
        tokens: usize,
    },
}

/// A generation under way, whose caller owns the loop: see [`Session::begin`].
///
/// The caches are the session's again after [`Writing::finish`]. They are gone where a `Writing` is dropped
/// without it, and after an error.
#[derive(Debug)]
pub struct Writing<'s, 'm> {
    session: &'s mut Session<'m>,
    held: Held,
    options: GenerateOptions,
    sampler: Sampler,
    /// Where the length below which it attends densely comes from.
    dense_below: Verdict,
    stream: Option<TokenStream<'m>>,
    stop: StopStrings,
    /// Prompt and answer.
    history: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// What comes behind the history, where that went through the model.
    logits: Option<Vec<f32>>,
    text: String,
    finish: Option<Finish>,
    failed: bool,
    start: Instant,
    prefill: Option<Duration>,
    first_token: Option<Duration>,
}

impl<'s, 'm> Writing<'s, 'm> {
    /// A generation behind `prompt`, of which `held` holds the beginning.
    pub(super) fn new(
        session: &'s mut Session<'m>,
        held: Held,
        prompt: &[u32],
        options: GenerateOptions,
        sampler: Sampler,
        dense_below: Verdict,
        start: Instant,
    ) -> Result<Self> {
        let stream = session.model.tokenizer().stream_after(prompt)?;
        Ok(Self {
            stop: StopStrings::new(options.stop.clone()),
            cached_tokens: held.tokens().len(),
            session,
            held,
            options,
            sampler,
            dense_below,
            stream: Some(stream),
            history: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            logits: None,
            text: String::new(),
            finish: None,
            failed: false,
            start,
            prefill: None,
            first_token: None,
        })
    }

    /// The next chunk of the prompt, or the next token; nothing where the text has ended.
    ///
    /// # Errors
    /// Those of the model, the sampler and the tokenizer. There is no step after one.
    pub fn step(&mut self) -> Result<Option<WritingStep>> {
        if self.failed || self.finish.is_some() {
            return Ok(None);
        }
        let step = self.advance();
        self.failed = step.is_err();
        step.map(Some)
    }

    /// The text so far, without the prompt.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why the text has ended, if it has.
    pub fn ended(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// Ends the text where it is, if it has not ended. Returns what was held back of it.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn cancel(&mut self) -> Result<String> {
        match self.finish {
            Some(_) => Ok(String::new()),
            None => {
                self.finish = Some(Finish::Cancelled);
                self.rest()
            }
        }
    }

    /// Gives the caches back to the session. A text that has not ended is cancelled.
    ///
    /// # Errors
    /// As [`Writing::cancel`].
    pub fn finish(mut self) -> Result<Generation> {
        self.cancel()?;
        if self.prefill.is_none() {
            self.end_prompt();
        }
        self.held.end_answer();
        let Self { session, held, history, text, prompt_tokens, cached_tokens, .. } = self;
        let prefill = self.prefill.unwrap_or_default();
        let first_token = self.first_token.unwrap_or(prefill);
        let tokens = history[prompt_tokens..].to_vec();
        let stats = Stats {
            prompt_tokens,
            cached_tokens,
            new_tokens: tokens.len(),
            prefill,
            first_token,
            decode: self.start.elapsed() - first_token,
            traffic: held.state.traffic(),
            decode_steps: held.tokens().len().saturating_sub(prompt_tokens),
            cache_bytes: held.state.bytes(),
            method: session.widest(held.methods()),
            methods: held.methods().to_vec(),
            dense_below: self.dense_below,
            finish: self.finish.unwrap_or(Finish::Cancelled),
            sampler: self.options.sampler,
        };
        session.held = (!self.failed).then_some(held);
        Ok(Generation { text, tokens, stats })
    }

    fn advance(&mut self) -> Result<WritingStep> {
        if let Some(tokens) = self.newly_beyond() {
            return Ok(WritingStep::BeyondTrainedLength { tokens });
        }
        if self.prefill.is_none() {
            return self.prefill_chunk();
        }
        let mut logits = match self.logits.take() {
            Some(logits) => logits,
            None => self.decode()?,
        };
        let id = self.sampler.sample(&mut logits, &self.history)?;
        let start = self.start;
        self.first_token.get_or_insert_with(|| start.elapsed());
        self.history.push(id);
        let mut text = String::new();
        if self.session.model.eos_ids().contains(&id) && !self.options.ignore_eos {
            self.finish = Some(Finish::Eos(id));
        } else {
            text = self.write(id)?;
            self.finish = self.finish.take().or_else(|| self.limit());
        }
        if self.finish.is_some() {
            text += &self.rest()?;
        }
        Ok(WritingStep::Token { id, text })
    }

    /// Says once that the text has become longer than what the model was made for.
    fn newly_beyond(&mut self) -> Option<usize> {
        let made_for = self.session.model.model().max_position_embeddings();
        let is_new = self.history.len() > made_for && !self.session.told_length;
        self.session.told_length |= is_new;
        is_new.then_some(made_for)
    }

    fn prefill_chunk(&mut self) -> Result<WritingStep> {
        let model = self.session.model.model();
        let held = self.held.tokens().len();
        let end = self.prompt_tokens.min(held + PREFILL_CHUNK);
        let chunk = &self.history[held..end];
        // Only the last chunk's last token needs the output projection.
        if end == self.prompt_tokens {
            let last = forward::step(model, &[Row::prompt(chunk)], &mut self.held.state, Want::Last)?;
            self.logits = Some(forward::read_finite(last, &self.held.state)?);
        } else {
            forward::step(model, &[Row::prompt(chunk)], &mut self.held.state, Want::Nothing)?;
        }
        self.held.push(chunk);
        if end == self.prompt_tokens {
            self.end_prompt();
            if self.options.max_new_tokens == 0 {
                self.finish = Some(Finish::MaxNewTokens);
            }
        }
        let (done, total) = (end - self.cached_tokens, self.prompt_tokens - self.cached_tokens);
        Ok(WritingStep::Prefill { done, total })
    }

    fn end_prompt(&mut self) {
        self.held.end_prompt();
        self.prefill = Some(self.start.elapsed());
    }

    /// Logits after the last token of the history.
    fn decode(&mut self) -> Result<Vec<f32>> {
        let Some((id, before)) = self.history.split_last() else { return Err(Error::EmptyPrompt) };
        let (model, held) = (self.session.model.model(), &mut self.held);
        if !held.state.suits(model, 0, self.history.len()) {
            held.begin_again(model)?;
            for chunk in before.chunks(PREFILL_CHUNK) {
                forward::step(model, &[Row::prompt(chunk)], &mut held.state, Want::Nothing)?;
            }
        }
        let logits = forward::step(model, &[Row::decode(&[*id])], &mut held.state, Want::Last)?;
        held.push(&[*id]);
        forward::read_finite(logits, &held.state)
    }

    /// The limit that is reached, if one is.
    fn limit(&self) -> Option<Finish> {
        if self.history.len() - self.prompt_tokens >= self.options.max_new_tokens {
            Some(Finish::MaxNewTokens)
        } else if self.history.len() > self.session.max_seq_len {
            Some(Finish::MaxSeqLen)
        } else if self.options.max_time.is_some_and(|most| self.start.elapsed() > most) {
            Some(Finish::MaxTime)
        } else {
            None
        }
    }

    /// The text that is complete with one more token.
    fn write(&mut self, id: u32) -> Result<String> {
        let mut text = String::new();
        if let Some(piece) = self.stream.as_mut().map(|stream| stream.step(id)).transpose()?.flatten() {
            let step = self.stop.push(&piece);
            text += &self.take(step);
        }
        if self.stop.is_empty() {
            return Ok(text);
        }
        // A special token has no text, and a stop text may be made of it.
        let spelling = self.session.model.tokenizer().special_spelling(id);
        if let Some(spelling) = spelling.filter(|spelling| self.stop.watches(spelling)) {
            let step = self.stop.push_hidden(&spelling);
            text += &self.take(step);
        }
        Ok(text)
    }

    /// What was held back, where the text has ended.
    fn rest(&mut self) -> Result<String> {
        let Some(stream) = self.stream.take().filter(|_| !matches!(self.finish, Some(Finish::Stop(_))))
        else {
            return Ok(String::new());
        };
        let (ended, step) = (self.finish.clone(), self.stop.push(&stream.finish()?));
        let stopped = step.stopped;
        let mut text = self.take(step);
        if ended == Some(Finish::Cancelled) {
            self.finish = ended;
        }
        if !stopped {
            let held_back = std::mem::replace(&mut self.stop, StopStrings::new(vec![])).finish();
            self.text += &held_back;
            text += &held_back;
        }
        Ok(text)
    }

    /// The text of a step; notes it, and the stop text that it reached.
    fn take(&mut self, step: StopStep) -> String {
        self.text += &step.text;
        if let Some(reached) = self.stop.reached() {
            self.finish = Some(Finish::Stop(reached.to_owned()));
        }
        step.text
    }
}

#[cfg(test)]
mod tests;
