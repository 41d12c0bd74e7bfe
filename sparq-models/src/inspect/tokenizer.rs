//! What a checkpoint's tokenizer is.

use serde::Serialize;

use crate::{
    error::{Error, Result},
    tokenizer::{Bytes, Piece, Tokenizer},
};

/// A checkpoint's tokenizer, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TokenizerSummary {
    /// What it is.
    Read(Vocabulary),
    /// What is wrong with its files.
    Failed {
        /// The message.
        error: String,
    },
}

/// Kind and size of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vocabulary {
    /// The kind of its model: `BPE`, `Unigram`, `WordPiece` or `WordLevel`.
    pub model: &'static str,
    /// How it spells characters that the vocabulary lacks, if byte by byte.
    pub bytes: Option<Bytes>,
    /// Tokens, added ones included.
    pub tokens: usize,
    /// Tokens that are added to the model's own: special ones, and words that are never split.
    pub added_tokens: usize,
    /// The token that begins every text, if one does.
    pub bos: Option<Piece>,
}

impl TokenizerSummary {
    /// Describes what [`Checkpoint::tokenizer`](crate::checkpoint::Checkpoint::tokenizer) found; nothing where
    /// the folder holds none in any form.
    pub fn new(tokenizer: Result<Tokenizer>) -> Option<Self> {
        match tokenizer.and_then(|tokenizer| Vocabulary::new(&tokenizer)) {
            Ok(vocabulary) => Some(Self::Read(vocabulary)),
            Err(Error::NoTokenizer { found, .. }) if found.is_empty() => None,
            Err(error) => Some(Self::Failed { error: error.to_string() }),
        }
    }
}

impl Vocabulary {
    fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let bos: Vec<u32> = tokenizer.bos_id().into_iter().collect();
        Ok(Self {
            model: tokenizer.model_kind(),
            bytes: tokenizer.bytes(),
            tokens: tokenizer.vocab_size(),
            added_tokens: tokenizer.added_tokens(),
            bos: tokenizer.pieces(&bos)?.pop(),
        })
    }
}
