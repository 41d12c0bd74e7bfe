//! What lives on between the runs of a session, and how it goes back.

use std::{collections::VecDeque, ops::Range};

use sparq_core::Method;

use crate::{
    error::Result,
    models::CausalModel,
    state::{ModelState, StateConfig, StateMark},
};

/// Marks that are kept, the latest: the ends of prompts and of answers. For each one a method keeps a
/// copy of its own memory (H2O: 12 bytes for each living token, Double Sparsity: 4 for each component,
/// both per layer and KV head). Keys and values are not copied.
const MARKS: usize = 8;

/// Caches with the tokens that they hold.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) state: ModelState,
    methods: Vec<Method>,
    tokens: Vec<u32>,
    /// Tokens whose keys and values are those of a sparse method's decode steps, answer by answer.
    answers: Vec<Range<usize>>,
    /// End of the last prompt.
    prompt: usize,
    /// Points to go back to, each with its number of tokens, in order; none where every point is one.
    marks: VecDeque<(usize, StateMark)>,
}

impl Held {
    /// Empty caches.
    ///
    /// # Errors
    /// Those of [`ModelState::new`].
    pub(super) fn new(model: &dyn CausalModel, config: &StateConfig, methods: Vec<Method>) -> Result<Self> {
        let state = ModelState::new(model, config, &methods)?;
        Ok(Self { state, methods, tokens: vec![], answers: vec![], prompt: 0, marks: VecDeque::new() })
    }

    /// The tokens that the caches hold.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The decode method of each layer.
    pub(super) fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Notes tokens that went through the model.
    pub(super) fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Notes that a prompt ends here.
    pub(super) fn end_prompt(&mut self) {
        self.prompt = self.tokens.len();
        self.mark();
    }

    /// Notes that an answer ends here.
    pub(super) fn end_answer(&mut self) {
        let end = self.tokens.len();
        if end > self.prompt && self.methods.iter().any(|method| *method != Method::Dense) {
            self.answers.push(self.prompt..end);
            self.mark();
        }
    }

    /// Empties the caches, for all of the tokens and one more to go through the model again: no point of
    /// before can be gone back to.
    ///
    /// # Errors
    /// Those of [`ModelState::begin_again`].
    pub(super) fn begin_again(&mut self, model: &dyn CausalModel) -> Result<()> {
        self.marks.clear();
        self.answers.clear();
        self.state.begin_again(model, &self.methods)?;
        self.state.expect(self.tokens.len() + 1);
        Ok(())
    }

    /// Marks this point, for methods that remember more than the cached tokens.
    fn mark(&mut self) {
        if !remember(&self.methods) || self.marks.back().is_some_and(|(len, _)| *len == self.tokens.len()) {
            return;
        }
        if let Some(mark) = self.state.mark() {
            self.marks.push_back((self.tokens.len(), mark));
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
    }

    /// The caches cut back to what they have in common with `ids`, to go on from there with `methods`,
    /// as if nothing else had ever been there; `None` where they cannot be.
    ///
    /// # Errors
    /// Sizes of the methods that do not fit the model.
    pub(super) fn continued(mut self, ids: &[u32], methods: &[Method]) -> Result<Option<Self>> {
        let common = self.tokens.iter().zip(ids).take_while(|(held, new)| held == new).count();
        let mut len = common;
        if common < self.tokens.len() {
            // A part of an answer is a part of the new prompt: it is prefilled, as all of it.
            let within = |answer: &&Range<usize>| answer.start < common && common < answer.end;
            len = self.answers.iter().find(within).map_or(common, |answer| answer.start);
            if remember(methods) {
                while self.marks.back().is_some_and(|(marked, _)| *marked > len) {
                    self.marks.pop_back();
                }
                let Some((marked, mark)) = self.marks.back() else { return Ok(None) };
                self.state.go_back(mark)?;
                len = *marked;
            }
        }
        if !self.state.set_methods(methods)? {
            return Ok(None);
        }
        if len < self.tokens.len() {
            if !remember(methods) {
                self.state.truncate(len)?;
            }
            self.tokens.truncate(len);
            self.answers.retain(|answer| answer.end <= len);
            self.marks.retain(|(marked, _)| *marked <= len);
        }
        self.methods = methods.to_vec();
        Ok(Some(self))
    }
}

/// Whether one of the methods remembers more than the cached tokens.
fn remember(methods: &[Method]) -> bool {
    methods.iter().any(Method::watches_prefill)
}

#[cfg(test)]
mod tests;
