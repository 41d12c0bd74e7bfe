//! Text from token ids, piece by piece.

use super::Tokenizer;
use crate::error::Result;

/// What stands in decoded text for bytes that are not, or not yet, a character.
const REPLACEMENT: char = '\u{FFFD}';

/// Tokens of the prompt that are decoded along with the first tokens of its continuation.
const CONTEXT: usize = 8;

/// Decodes tokens as they come, in pieces that hold whole characters only.
///
/// All pieces together, with the one from [`finish`](Self::finish), are what
/// [`Tokenizer::decode`] makes of all ids.
///
/// Where a tokenizer spells rare characters as tokens of single bytes, a run of such tokens comes
/// out when the run ends: until then, a later byte may turn all of it into replacement characters.
#[derive(Debug, Clone)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The last tokens: some whose text is emitted, so that the others are decoded in context, and
    /// those whose text is not complete.
    ids: Vec<u32>,
    /// The part of the text of `ids` that is emitted.
    emitted: String,
    /// How many of `ids` came before the last piece.
    context: usize,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), emitted: String::new(), context: 0 }
    }

    pub(super) fn after(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        for &id in prompt.iter().rev().filter(|&&id| !tokenizer.is_special(id)) {
            // A run of byte tokens is decoded as a whole, so it is not cut.
            if stream.ids.len() >= CONTEXT && !tokenizer.is_byte(id) {
                break;
            }
            stream.ids.push(id);
        }
        stream.ids.reverse();
        stream.context = stream.ids.len();
        let text = tokenizer.decode(&stream.ids)?;
        stream.emitted = complete_part(&text).to_owned();
        Ok(stream)
    }

    /// Takes the next token and returns the text that is complete with it, if any.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if it cannot be decoded.
    pub fn step(&mut self, id: u32) -> Result<Option<String>> {
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.ids.push(id);
        if self.tokenizer.is_byte(id) {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&self.ids)?;
        let complete = complete_part(&text);
        let piece = new_part(&self.emitted, complete).to_owned();
        if complete.len() < text.len() {
            self.emitted = complete.to_owned();
        } else if !piece.is_empty() {
            self.forget(text)?;
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Ends the text and returns what was held back, with replacement characters for bytes that
    /// never became a character.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if it cannot be decoded.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(new_part(&self.emitted, &text).to_owned())
    }

    /// Drops the tokens before the last piece, once all `text` of the kept ones is emitted.
    fn forget(&mut self, text: String) -> Result<()> {
        let kept = self.tokenizer.decode(&self.ids[self.context..])?;
        // Decoders treat the first token differently, so some text must come before the next one.
        if kept.is_empty() {
            self.emitted = text;
        } else {
            self.ids.drain(..self.context);
            self.context = self.ids.len();
            self.emitted = kept;
        }
        Ok(())
    }
}

/// The part of `text` after what is emitted.
///
/// Only a byte token right after a prompt that ends in byte tokens can change text that counts as
/// emitted. The part that differs comes out then, so that nothing is lost.
fn new_part<'a>(emitted: &str, text: &'a str) -> &'a str {
    let mut rest = text.chars();
    let mut emitted = emitted.chars();
    loop {
        let before = rest.as_str();
        match (emitted.next(), rest.next()) {
            (Some(old), Some(new)) if old == new => {}
            _ => return before,
        }
    }
}

/// The text without characters at its end that may still be incomplete.
fn complete_part(text: &str) -> &str {
    text.trim_end_matches(REPLACEMENT)
}
