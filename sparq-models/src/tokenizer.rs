//! Text to token ids and back, by `tokenizer.json`.

mod config;
mod stream;
mod template;

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use tokenizers::DecoderWrapper;

pub use config::TokenizerConfig;
pub use stream::TokenStream;
pub use template::{ChatTemplate, ChatTemplates, TemplateOptions, TemplateSource, TemplateValue};

use crate::error::{Error, Result};

/// Spellings of tokens that end a turn or a text in the model families that have them.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
];

/// A tokenizer as Hugging Face's `tokenizers` library stores it.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The file it was read from, for messages.
    path: PathBuf,
    /// Token that begins every text, if the tokenizer puts one there.
    bos_id: Option<u32>,
    /// Whether tokens such as `<0x0A>` stand for single bytes.
    has_byte_fallback: bool,
}

impl Tokenizer {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::FileNotFound`], [`Error::Io`], or [`Error::Tokenizer`] if it is no tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::FileNotFound { path: path.to_owned() },
            _ => Error::Io { path: path.to_owned(), source },
        })?;
        Self::from_bytes(path, &bytes)
    }

    /// Takes the content of a `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it is no tokenizer.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self> {
        let path = path.into();
        let fail = |error: tokenizers::Error| tokenizer_error(&path, error);
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(fail)?;
        // Some files carry the settings of their training, which would cut or pad every prompt.
        inner.with_truncation(None).map_err(fail)?;
        inner.with_padding(None);
        // What is put before an empty text is put before every text.
        let frame = inner.encode_fast("", true).map_err(fail)?;
        let bos_id = frame.get_ids().first().copied().filter(|_| begins_with_special(&inner));
        let has_byte_fallback = inner.get_decoder().is_some_and(has_byte_fallback);
        Ok(Self { bos_id, has_byte_fallback, inner, path })
    }

    /// Token ids of `text`. Special tokens that are spelled out in it, as chat templates do, become
    /// their ids.
    ///
    /// With `add_special`, the tokens that the tokenizer puts around every text are added; a
    /// beginning-of-text token that `text` already starts with is not doubled.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|error| self.error(error))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(bos) = self.bos_id.filter(|_| add_special) {
            let count = ids.iter().take_while(|&&id| id == bos).count();
            ids.drain(..count.saturating_sub(1));
        }
        Ok(ids)
    }

    /// Text of `ids`, without special tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the ids cannot be decoded.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|error| self.error(error))
    }

    /// Decodes a new text token by token.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }

    /// Decodes the continuation of `prompt` token by token.
    ///
    /// Unlike with [`stream`](Self::stream), a space before the first word is kept, as it belongs
    /// between prompt and continuation.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the end of the prompt cannot be decoded.
    pub fn stream_after(&self, prompt: &[u32]) -> Result<TokenStream<'_>> {
        TokenStream::after(self, prompt)
    }

    /// Number of tokens, added ones included. The model's vocabulary may be larger, padded to a
    /// round number.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of the token that is spelled `token`, such as `</s>`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The spelling of token `id`.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that [`encode`](Self::encode) puts before every text, if there is one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Special tokens that end a turn or a text by their very spelling, whatever the configuration
    /// says, and the `eos_token` of `config`; ascending.
    pub fn end_ids(&self, config: &TokenizerConfig) -> Vec<u32> {
        let by_spelling =
            ENDS.iter().filter_map(|token| self.token_to_id(token)).filter(|&id| self.is_special(id));
        let named = config.special_tokens.get("eos_token").and_then(|token| self.token_to_id(token));
        let mut ids: Vec<u32> = by_spelling.chain(named).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether token `id` is special, so that it has no text.
    fn is_special(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id);
        token.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// The spelling of token `id` if it is special, so that it has no text.
    pub(crate) fn special_spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id).filter(|_| self.is_special(id))
    }

    /// Whether token `id` stands for a single byte, so that its text depends on its neighbours.
    fn is_byte(&self, id: u32) -> bool {
        self.has_byte_fallback
            && self.inner.id_to_token(id).is_some_and(|token| {
                let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                byte.is_some_and(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok())
            })
    }

    fn error(&self, error: tokenizers::Error) -> Error {
        tokenizer_error(&self.path, error)
    }
}

fn tokenizer_error(path: &Path, error: tokenizers::Error) -> Error {
    Error::Tokenizer { path: path.to_owned(), message: error.to_string() }
}

/// Whether the special tokens around a text begin before it, and not only end it.
fn begins_with_special(tokenizer: &tokenizers::Tokenizer) -> bool {
    let encode = |add_special| tokenizer.encode_fast("a", add_special);
    match (encode(true), encode(false)) {
        (Ok(framed), Ok(bare)) => framed.get_ids().first() != bare.get_ids().first(),
        _ => false,
    }
}

fn has_byte_fallback(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(has_byte_fallback),
        _ => false,
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.vocab_size())
            .field("bos_id", &self.bos_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trained_tests;
