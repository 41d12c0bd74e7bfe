//! A sample as tokens: what is prefilled, what is fed, and which of that is answer.

use std::ops::Range;

use super::tasks::Sample;
use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// The tokens of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Goes through the model densely.
    pub(crate) prefill: Vec<u32>,
    /// Questions and reference answers, fed one at a time.
    pub(crate) fed: Vec<u32>,
    /// Where in `fed` each turn's answer lies.
    pub(crate) answers: Vec<Range<usize>>,
    /// The first question alone, behind `prefill`: what an output is generated from.
    pub(crate) question: Vec<u32>,
}

impl Script {
    /// The parts are cut from the tokens of the whole text, so that they are those that the model
    /// would see: a token over the border between two parts belongs to the later one.
    pub(crate) fn new(tokenizer: &Tokenizer, sample: &Sample) -> Result<Self> {
        let mut text = sample.context.clone();
        let mut borders = vec![tokenizer.encode(&text, true)?];
        for turn in &sample.turns {
            text.push_str(&turn.question);
            borders.push(tokenizer.encode(&text, true)?);
            text.push_str(&turn.answer);
            borders.push(tokenizer.encode(&text, true)?);
        }
        let all = borders.last().cloned().unwrap_or_default();
        let prompt = borders.get(1).cloned().unwrap_or_default();
        // The context must be the same whether or not the answer follows, and one token of it is fed
        // where there is no question.
        let context = common(&borders[0], &all).min(common(&borders[0], &prompt));
        let first_answer = borders.get(1).map_or(all.len(), |border| common(border, &all));
        let context = context.min(first_answer.saturating_sub(1)).min(prompt.len().saturating_sub(1));
        if context == 0 {
            return Err(Error::EmptyPrompt);
        }
        let at = |border: usize| common(&borders[border], &all).max(context) - context;
        let answers = (0..sample.turns.len()).map(|turn| at(2 * turn + 1)..at(2 * turn + 2)).collect();
        Ok(Self {
            prefill: all[..context].to_vec(),
            fed: all[context..].to_vec(),
            answers,
            question: prompt[context..].to_vec(),
        })
    }

    /// The answer token that the model predicts after `fed[step]`, and its turn.
    pub(crate) fn target(&self, step: usize) -> Option<(usize, u32)> {
        let turn = self.answers.iter().position(|answer| answer.contains(&(step + 1)))?;
        Some((turn, *self.fed.get(step + 1)?))
    }

    /// Decode steps until the last answer token is predicted.
    pub(crate) fn steps(&self) -> usize {
        self.answers.last().map_or(0, |answer| answer.end.saturating_sub(1))
    }

    /// Tokens of context and questions, the reference answers between them included.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prefill.len() + self.answers.last().map_or(0, |answer| answer.start)
    }
}

/// Tokens that both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
