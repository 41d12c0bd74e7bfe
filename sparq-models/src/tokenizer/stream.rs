//! Text from token ids, piece by piece.

use std::str;

use super::{Bytes, Tokenizer};
use crate::error::Result;

/// What stands in decoded text for bytes that are not, or not yet, a character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Tokens of the prompt that are decoded along with the first tokens of its continuation.
const CONTEXT: usize = 8;

/// The most byte tokens of one run that are held back while they are valid text.
const LONGEST_RUN: usize = 32;

/// Decodes tokens as they come, in pieces that hold whole characters only.
///
/// All pieces together, with the one from [`finish`](Self::finish), are what [`Tokenizer::decode`]
/// makes of all ids. Bytes that are no text come out as replacement characters as soon as no later
/// byte can make a character of them.
///
/// Where a tokenizer spells rare characters as tokens of single bytes, a later byte may turn all of a
/// run of them into replacement characters. So such a run comes out when it ends, or when it is no text
/// any more. A run of valid text that is longer than 32 bytes comes out as it goes on; a later byte that
/// is no text leaves what is out as it is.
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
    /// Byte tokens after `ids` that are held back.
    run: Run,
}

/// The byte tokens since the last token of another kind.
#[derive(Debug, Clone, Default)]
struct Run {
    ids: Vec<u32>,
    bytes: Vec<u8>,
    /// Whether the beginning of the run is out, as text.
    is_split: bool,
    /// Whether the run is no text, whatever follows. It is out then.
    is_broken: bool,
}

impl Run {
    /// Takes the first `tokens` tokens out.
    fn take(&mut self, tokens: usize) -> impl Iterator<Item = u32> {
        self.bytes.drain(..tokens);
        self.ids.drain(..tokens)
    }
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), emitted: String::new(), context: 0, run: Run::default() }
    }

    pub(super) fn after(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        for &id in prompt.iter().rev().filter(|&&id| !tokenizer.is_special(id)) {
            // A run of byte tokens is decoded as a whole, so it is not cut.
            if stream.ids.len() >= CONTEXT && tokenizer.byte(id).is_none() {
                break;
            }
            stream.ids.push(id);
        }
        stream.ids.reverse();
        stream.context = stream.ids.len();
        stream.emitted = tokenizer.decode(&stream.ids)?;
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
        let piece = match self.tokenizer.byte(id) {
            Some(byte) => self.step_byte(id, byte)?,
            None => {
                let mut piece = self.end_run();
                self.ids.push(id);
                piece += &self.emit()?;
                piece
            }
        };
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Ends the text and returns what was held back, with replacement characters for bytes that
    /// never became a character.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if it cannot be decoded.
    pub fn finish(mut self) -> Result<String> {
        let broken = self.end_run();
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(new_part(&self.emitted, &text).to_owned() + &broken)
    }

    /// Takes a byte token: it is held back as long as a later byte may change what it is.
    fn step_byte(&mut self, id: u32, byte: u8) -> Result<String> {
        if self.run.is_broken {
            return Ok(REPLACEMENT.into());
        }
        self.run.ids.push(id);
        self.run.bytes.push(byte);
        let complete = match str::from_utf8(&self.run.bytes) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => {
                let mut piece = self.end_run();
                piece += &self.emit()?;
                self.run.is_broken = true;
                return Ok(piece);
            }
        };
        if complete == 0 || (self.run.bytes.len() < LONGEST_RUN && !self.run.is_split) {
            return Ok(String::new());
        }
        self.run.is_split = true;
        self.ids.extend(self.run.take(complete));
        self.emit()
    }

    /// Moves what is held back to the tokens to decode. Where its beginning is out as text and the rest
    /// is none, returns the replacement characters of the rest instead: decoded together, all would be.
    fn end_run(&mut self) -> String {
        let held = self.run.bytes.len();
        let is_lost = self.run.is_split && str::from_utf8(&self.run.bytes).is_err();
        let tokens = self.run.take(held);
        let mut broken = String::new();
        if is_lost {
            broken.extend(tokens.map(|_| REPLACEMENT));
        } else {
            self.ids.extend(tokens);
        }
        self.run = Run::default();
        broken
    }

    /// The text of the tokens to decode that is complete and not emitted yet.
    fn emit(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        let complete = self.complete_part(&text);
        let piece = new_part(&self.emitted, complete).to_owned();
        let held = text.len() - complete.len();
        if !piece.is_empty() {
            self.emitted = text;
            self.forget(held)?;
            self.emitted.truncate(self.emitted.len() - held);
        }
        Ok(piece)
    }

    /// Drops the tokens before the last piece, once all of the text of the others but its last `held`
    /// bytes is emitted.
    fn forget(&mut self, held: usize) -> Result<()> {
        let kept = self.tokenizer.decode(&self.ids[self.context..])?;
        // Decoders treat the first token differently, so some text must come before the next one.
        let tail = &self.emitted[self.emitted.len() - held..];
        if kept.len() > held && kept.ends_with(tail) {
            self.ids.drain(..self.context);
            self.context = self.ids.len();
            self.emitted = kept;
        }
        Ok(())
    }

    /// The text without a character at its end that may still become another one. What is not complete
    /// of a character is a single replacement character.
    fn complete_part<'t>(&self, text: &'t str) -> &'t str {
        match self.tokenizer.bytes {
            Some(Bytes::Fallback) => text,
            _ => text.strip_suffix(REPLACEMENT).unwrap_or(text),
        }
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

#[cfg(test)]
mod tests;
