//! Text to token ids and back, by `tokenizer.json`.

mod class;
mod config;
mod decode;
mod level;
mod normal;
mod roles;
mod ruby;
mod special;
mod stream;
mod template;
mod words;

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::Serialize;
use tokenizers::{DecoderWrapper, ModelWrapper, PostProcessorWrapper, TokenizerImpl};

pub use config::{TokenizerConfig, TokenizerFiles};
pub use roles::FieldOrder;
pub use stream::TokenStream;
pub use template::{ChatTemplate, ChatTemplates, TemplateOptions, TemplateSource, TemplateValue};

use crate::{
    checkpoint::parse_json,
    error::{Error, Result},
    guard::guard,
};
use decode::Decode;
use normal::Normal;
use words::Words;

/// The library's tokenizer, with sections that are checked.
type Inner = TokenizerImpl<ModelWrapper, Normal, Words, PostProcessorWrapper, Decode>;

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
    inner: Inner,
    /// The file it was read from, for messages.
    path: PathBuf,
    /// Token that begins every text, if the tokenizer puts one there.
    bos_id: Option<u32>,
    /// The token that ends a text, by name in the configuration.
    eos_id: Option<u32>,
    bytes: Option<Bytes>,
    /// Entries of the model's vocabulary, where they are known.
    rows: Option<usize>,
}

/// How a tokenizer spells characters that its vocabulary lacks, byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bytes {
    /// Every byte is a character of its own in the vocabulary.
    Level,
    /// Rare characters are tokens such as `<0x0A>`, one for each byte.
    Fallback,
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The token's id.
    pub id: u32,
    /// Its spelling in the vocabulary; empty for an id that the vocabulary lacks.
    pub token: String,
    /// Its text, as far as it has one of its own: parts of a character are written as `<0xF0>`. Else its
    /// spelling.
    pub text: String,
    /// Whether it is special, so that it has no text in an answer.
    #[serde(rename = "special")]
    pub is_special: bool,
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
        Self::with_config(path, bytes, &TokenizerConfig::default())
    }

    /// Takes the content of a `tokenizer.json` and what the files beside it say about tokens; `path` is for
    /// messages.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for something else than JSON, [`Error::Tokenizer`] if it is no tokenizer.
    pub fn with_config(path: impl Into<PathBuf>, bytes: &[u8], config: &TokenizerConfig) -> Result<Self> {
        let path = path.into();
        let read = call(&path, || Inner::from_bytes(bytes));
        if read.is_err() {
            // What is no JSON is told by what it is instead.
            parse_json(&path, bytes)?;
        }
        let mut inner = read?;
        let (inner, bos_id) = call(&path, || {
            // Some files carry the settings of their training, which would cut or pad every prompt.
            inner.with_truncation(None)?;
            inner.with_padding(None);
            config.tokens.apply(&mut inner)?;
            // What is put before an empty text is put before every text.
            let frame = inner.encode_fast("", true)?;
            let bos_id = frame.get_ids().first().copied().filter(|_| begins_with_special(&inner));
            Ok((inner, bos_id))
        })?;
        let bytes = inner.get_decoder().and_then(|decoder| bytes_of(&decoder.0));
        let eos_id = config.special_tokens.get("eos_token").and_then(|token| inner.token_to_id(token));
        Ok(Self { inner, path, bos_id, eos_id, bytes, rows: None })
    }

    /// Refuses texts with tokens beyond the model's vocabulary, of `rows` entries.
    #[must_use]
    pub fn for_vocabulary(self, rows: usize) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// Token ids of `text`. Special tokens that are spelled out in it, as chat templates do, become
    /// their ids.
    ///
    /// With `add_special`, the tokens that the tokenizer puts around every text are added; a
    /// beginning-of-text token that `text` already starts with is not doubled.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the text cannot be encoded, [`Error::TokenBeyond`] for a token that the
    /// model's vocabulary lacks.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = call(&self.path, || self.inner.encode_fast(text, add_special))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(bos) = self.bos_id.filter(|_| add_special) {
            let count = ids.iter().take_while(|&&id| id == bos).count();
            ids.drain(..count.saturating_sub(1));
        }
        if let Some(rows) = self.rows
            && let Some(&id) = ids.iter().find(|&&id| id as usize >= rows)
        {
            let token = self.id_to_token(id).unwrap_or_default();
            return Err(Error::TokenBeyond {
                path: self.path.clone(),
                id,
                token,
                tokens: self.vocab_size(),
                rows,
            });
        }
        Ok(ids)
    }

    /// Text of `ids`, without special tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the ids cannot be decoded.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        call(&self.path, || self.inner.decode(ids, true))
    }

    /// Text of `ids` with special tokens spelled out: what a model reads.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the ids cannot be decoded.
    pub fn spell_out(&self, ids: &[u32]) -> Result<String> {
        call(&self.path, || self.inner.decode(ids, false))
    }

    /// What stands for each of `ids` in the vocabulary and in a text.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if one cannot be decoded.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<Piece>> {
        ids.iter().map(|&id| self.piece(id)).collect()
    }

    fn piece(&self, id: u32) -> Result<Piece> {
        let token = self.id_to_token(id).unwrap_or_default();
        let is_special = self.is_special(id);
        let text = match self.bytes {
            _ if is_special => token.clone(),
            // A part of a character has no text of its own.
            Some(Bytes::Level) => {
                let text = call(&self.path, || self.inner.decode(&[id], false))?;
                match text.contains(char::REPLACEMENT_CHARACTER) {
                    true => level::spelled(&token).unwrap_or_else(|| token.clone()),
                    false => text,
                }
            }
            _ => token.replace('▁', " "),
        };
        Ok(Piece { id, token, text, is_special })
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

    /// How many tokens are added to the model's own: special ones, and words that are never split.
    pub fn added_tokens(&self) -> usize {
        self.inner.get_added_vocabulary().len()
    }

    /// The kind of its model: `BPE`, `Unigram`, `WordPiece` or `WordLevel`.
    pub fn model_kind(&self) -> &'static str {
        match self.inner.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
        }
    }

    /// How it spells characters that its vocabulary lacks, if byte by byte.
    pub fn bytes(&self) -> Option<Bytes> {
        self.bytes
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
    /// says, and the `eos_token` that it names; ascending.
    pub fn end_ids(&self) -> Vec<u32> {
        let by_spelling =
            ENDS.iter().filter_map(|token| self.token_to_id(token)).filter(|&id| self.is_special(id));
        let mut ids: Vec<u32> = by_spelling.chain(self.eos_id).collect();
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

    /// The byte that token `id` stands for, if it stands for one, so that its text depends on its neighbours.
    fn byte(&self, id: u32) -> Option<u8> {
        let token =
            self.bytes.filter(|&bytes| bytes == Bytes::Fallback).and_then(|_| self.id_to_token(id))?;
        let byte = token.strip_prefix("<0x")?.strip_suffix('>')?;
        u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2)
    }
}

/// Runs code of the library, and names `path` where it fails or panics.
fn call<T>(path: &Path, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let message = match guard(work) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("the library that reads it breaks off: {panic}"),
    };
    Err(Error::Tokenizer { path: path.to_owned(), message })
}

/// Whether the special tokens around a text begin before it, and not only end it.
fn begins_with_special(tokenizer: &Inner) -> bool {
    let encode = |add_special| tokenizer.encode_fast("a", add_special);
    match (encode(true), encode(false)) {
        (Ok(framed), Ok(bare)) => framed.get_ids().first() != bare.get_ids().first(),
        _ => false,
    }
}

fn bytes_of(decoder: &DecoderWrapper) -> Option<Bytes> {
    match decoder {
        DecoderWrapper::ByteFallback(_) => Some(Bytes::Fallback),
        DecoderWrapper::ByteLevel(_) => Some(Bytes::Level),
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().find_map(bytes_of),
        _ => None,
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
