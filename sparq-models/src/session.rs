//! A text that grows: prompts and answers over one set of caches.

mod held;
mod writing;

use std::{ops::ControlFlow, time::Instant};

use sparq_core::Method;

use crate::{
    attention::{AttentionPlan, widest},
    crossover,
    error::{Error, Result},
    generate::{Event, GenerateOptions, Generation},
    sampling::{Sampler, TextFrame},
    state::StateConfig,
    text_model::TextModel,
};
use held::Held;

pub use writing::{Writing, WritingStep};

/// Tokens behind the prompt that memory is taken for beforehand: a limit may be far from what is written.
const RESERVED_TOKENS: usize = 4096;

/// Generates several texts one after another, each from what it has in common with the one before.
///
/// The caches live on between the calls of [`Session::generate`]. The tokens that a new prompt shares
/// with what is cached, from the beginning, do not go through the model again; the caches are cut
/// back to them. So a conversation costs its new tokens, and an edited one costs what follows the edit.
///
/// Going back leaves no trace: a prompt that shares only a beginning with what is cached gives what it
/// gives in a session that has only seen that beginning, whatever the method. Where the part in common
/// ends within an answer, the answer goes through the model again, as part of the prompt. Methods that
/// remember more than the cached tokens (H2O, Double Sparsity without calibration) go back to the end of
/// an earlier prompt or answer, of which the last few are marked, and begin anew where there is none.
///
/// Going on behind an answer keeps it: under a sparse method the keys and values of its tokens stay as
/// the decode steps made them, where a fresh run over the same text would prefill them densely.
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a TextModel,
    max_seq_len: usize,
    /// The most tokens that the caches may hold.
    max_len: usize,
    held: Option<Held>,
    /// Whether `events` has been told that the text is longer than the model was made for.
    told_length: bool,
}

impl<'a> Session<'a> {
    /// A session without any text. `max_seq_len` is its longest context; the model's own limit for
    /// `None`. Memory is taken as the text grows.
    pub fn new(model: &'a TextModel, max_seq_len: Option<usize>) -> Self {
        let max_seq_len = max_seq_len.unwrap_or(model.model().max_position_embeddings());
        Self { model, max_seq_len, max_len: max_seq_len, held: None, told_length: false }
    }

    /// A session for one run from `ids`: everything that depends on the longest context is chosen
    /// for this run.
    pub(crate) fn of_one_run(model: &'a TextModel, ids: &[u32], options: &GenerateOptions) -> Self {
        let session = Self::new(model, options.max_seq_len);
        Self { max_len: session.max_seq_len.min(run_len(ids, options)), ..session }
    }

    /// Tokens that the caches hold.
    pub fn cached_tokens(&self) -> &[u32] {
        self.held.as_ref().map_or(&[], Held::tokens)
    }

    /// The longest context, in tokens.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// Forgets the text and gives the memory back.
    pub fn clear(&mut self) {
        self.held = None;
        self.told_length = false;
    }

    /// Continues the text of tokens `ids`, special tokens included, which need not have anything in
    /// common with what is cached. `events` sees progress and text as they come and may end the run.
    ///
    /// # Errors
    /// As [`Session::begin`], and those of [`Writing::step`].
    pub fn generate(
        &mut self,
        ids: &[u32],
        options: &GenerateOptions,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let mut writing = self.begin(ids, options)?;
        while let Some(step) = writing.step()? {
            let flow = match &step {
                WritingStep::Prefill { done, total } => events(Event::Prefill { done: *done, total: *total }),
                WritingStep::BeyondTrainedLength { tokens } => {
                    events(Event::BeyondTrainedLength { tokens: *tokens })
                }
                WritingStep::Token { text, .. } if text.is_empty() => ControlFlow::Continue(()),
                WritingStep::Token { text, .. } => events(Event::Text(text)),
            };
            if flow.is_break() {
                let rest = writing.cancel()?;
                if !rest.is_empty() {
                    let _ = events(Event::Text(&rest));
                }
            }
        }
        writing.finish()
    }

    /// Begins what [`Session::generate`] does in one call, for a caller with a loop of its own: nothing has gone
    /// through the model yet.
    ///
    /// The sizes of a method that follow from a compression ratio are chosen for this run's length.
    /// A method that has to watch the prefill and did not, or for which the caches do not keep what it
    /// needs, begins with empty caches.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] for a prompt that does not fit, [`Error::EmptyPrompt`] for one
    /// without tokens, and errors of the options.
    pub fn begin(&mut self, ids: &[u32], options: &GenerateOptions) -> Result<Writing<'_, 'a>> {
        options.validate()?;
        let sampler = Sampler::for_text(
            options.sampler.clone(),
            TextFrame {
                prompt_tokens: ids.len(),
                max_new_tokens: options.max_new_tokens,
                eos_ids: self.model.eos_ids().to_vec(),
            },
        )?;
        if ids.len() > self.max_seq_len {
            return Err(Error::PromptTooLong {
                tokens: ids.len(),
                max_seq_len: self.max_seq_len,
                of_model: self.model.model().max_position_embeddings(),
            });
        }
        let last = ids.len().checked_sub(1).ok_or(Error::EmptyPrompt)?;
        let run_len = self.max_len.min(run_len(ids, options));
        let (attention, dense_below) =
            crossover::settle(&options.attention, self.model, run_len, options.measuring_memory)?;
        let start = Instant::now();
        // Taken out for the run: after an error, what the caches hold is not known.
        let mut held = self.take(&ids[..last], &attention, run_len)?;
        held.state.expect(ids.len());
        held.state.reserve(run_len.min(ids.len().saturating_add(RESERVED_TOKENS)))?;
        held.state.reset_traffic();
        Writing::new(self, held, ids, options.clone(), sampler, dense_below, start)
    }

    /// Caches that hold what they have in common with `ids`, and decode with `attention` at runs of
    /// `run_len` tokens.
    fn take(&mut self, ids: &[u32], attention: &AttentionPlan, run_len: usize) -> Result<Held> {
        let methods = attention.methods(&self.model.model().attention_layers(), run_len)?;
        if let Some(held) = self.held.take()
            && held.state.suits(self.model.model(), 0, ids.len() + 1)
            && let Some(held) = held.continued(ids, &methods)?
        {
            return Ok(held);
        }
        let config = StateConfig { batch: 1, max_len: self.max_len, dtype: self.model.dtype() };
        Held::new(self.model.model(), &config, methods)
    }

    /// The decode method of the layers that see the most, for the report.
    fn widest(&self, methods: &[Method]) -> Method {
        let layers = self.model.model().attention_layers();
        widest(&layers).and_then(|widest| methods.get(widest)).cloned().unwrap_or(Method::Dense)
    }
}

/// The longest that a text from `ids` may become.
fn run_len(ids: &[u32], options: &GenerateOptions) -> usize {
    ids.len().saturating_add(options.max_new_tokens)
}

#[cfg(test)]
mod tests;
