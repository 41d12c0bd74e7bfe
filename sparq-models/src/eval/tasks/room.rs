//! Making texts as long as they may be.

use super::{Sample, Turn};
use crate::{error::Result, eval::EvalError, tokenizer::Tokenizer};

/// So many tokens, by a model's own tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    /// Counts them.
    pub tokenizer: &'a Tokenizer,
    /// The most tokens of context, questions and answers together.
    pub tokens: usize,
}

impl Room<'_> {
    /// Tokens that the sample takes: all its text, or what is generated where that is longer.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn needed(&self, sample: &Sample) -> Result<usize> {
        let mut text = sample.context.clone();
        let mut spare = 0;
        for Turn { question, answer, new_tokens, .. } in &sample.turns {
            text.push_str(question);
            text.push_str(answer);
            let answer = self.tokenizer.encode(answer, false)?.len();
            spare = spare.max(new_tokens.saturating_sub(answer));
        }
        Ok(self.tokenizer.encode(&text, true)?.len() + spare)
    }

    /// Whether the sample fits.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn holds(&self, sample: &Sample) -> Result<bool> {
        Ok(self.needed(sample)? <= self.tokens)
    }

    /// The sample with the most units of filler that fits.
    ///
    /// # Errors
    /// [`EvalError::Room`] where it does not fit even without filler.
    pub fn fill(&self, task: &str, build: impl Fn(usize) -> Sample) -> Result<Sample> {
        let mut fits = 0;
        if !self.holds(&build(fits))? {
            let needed = self.needed(&build(fits))?;
            return Err(EvalError::Room { task: task.to_owned(), needed, tokens: self.tokens }.into());
        }
        let mut step = 1;
        while self.holds(&build(fits + step))? {
            fits += step;
            step *= 2;
        }
        // `fits` fits and `fits + step` does not.
        while step > 1 {
            step /= 2;
            if self.holds(&build(fits + step))? {
                fits += step;
            }
        }
        Ok(build(fits))
    }

    /// The largest number up to `most` for which `build` gives a sample that fits; `None` where not
    /// even `least` does.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn largest(
        &self,
        least: usize,
        most: usize,
        build: impl Fn(usize) -> Sample,
    ) -> Result<Option<Sample>> {
        let (mut low, mut high) = (least, most.max(least));
        if self.holds(&build(high))? {
            return Ok(Some(build(high)));
        }
        if !self.holds(&build(low))? {
            return Ok(None);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.holds(&build(middle))? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Some(build(low)))
    }
}
