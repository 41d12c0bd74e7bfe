//! Which fields of `config.json` say something, for each family.
//!
//! A field is used, or harmless: nothing that a family computes follows from it, in transformers neither.
//! Or it is refused: transformers reads it and it is not built here. Fields that nobody knows are harmless.

mod common;

use serde_json::Value;

use super::fields::{ConfigFields, brief};
use crate::error::Result;

/// What comes of a field of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// It is read.
    Used,
    /// It may hold anything.
    Harmless,
    /// A value that matters is an error.
    Refused,
}

/// The fields of a family, beside those of all.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Fields that are read.
    pub used: &'static [&'static str],
    /// Fields of other families that are known to say nothing in this one.
    pub harmless: &'static [&'static str],
    /// Fields that transformers reads for this family.
    pub refused: &'static [Refusal],
}

/// A field that is refused where its value matters.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    name: &'static str,
    neutral: Neutral,
    /// What the field asks for, and what is missing here.
    reason: &'static str,
}

/// Values that ask for nothing; `null` does not either, but where it is said.
#[derive(Debug, Clone, Copy)]
enum Neutral {
    /// `false` as well.
    False,
    /// `true` alone: transformers takes `null` for no.
    TrueAlone,
    /// An empty list or object as well.
    Empty,
    /// A list of `full_attention` alone, by either name, as well.
    FullAttention,
    /// As many tokens as the model was made for, or more, as well.
    WholeContext,
    /// Looked at elsewhere.
    Elsewhere,
}

impl Neutral {
    fn allows(self, value: &Value, fields: &ConfigFields<'_>) -> bool {
        match (self, value) {
            (Self::Elsewhere, _) => true,
            (Self::TrueAlone, value) => *value == Value::Bool(true),
            (_, Value::Null) => true,
            (Self::False, value) => *value == Value::Bool(false),
            (Self::Empty, Value::Array(list)) => list.is_empty(),
            (Self::Empty, Value::Object(object)) => object.is_empty(),
            (Self::WholeContext, Value::Number(tokens)) => {
                let longest = fields.optional::<u64>("max_position_embeddings").ok().flatten();
                longest.zip(tokens.as_u64()).is_some_and(|(longest, tokens)| tokens >= longest)
            }
            (Self::FullAttention, Value::Array(list)) => {
                list.iter().all(|kind| kind == "full_attention" || kind == "attention")
            }
            _ => false,
        }
    }
}

impl Keys {
    /// Refuses fields that transformers reads for this family and that are not built.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) names the first field with a value that matters.
    pub fn check(&self, fields: &ConfigFields<'_>) -> Result<()> {
        for refusal in common::REFUSED.iter().chain(self.refused) {
            match fields.object().get(refusal.name) {
                Some(value) if !refusal.neutral.allows(value, fields) => {
                    let problem = format!("{} is not supported: {}", brief(value), refusal.reason);
                    return Err(fields.bad_field(refusal.name, problem));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every field that is known for this family, by name.
    pub fn list(&self) -> Vec<(&'static str, KeyUse)> {
        let used = common::USED.iter().chain(self.used).map(|&name| (name, KeyUse::Used));
        let harmless = common::HARMLESS.iter().chain(self.harmless).map(|&name| (name, KeyUse::Harmless));
        let refused = common::REFUSED.iter().chain(self.refused).map(|key| (key.name, KeyUse::Refused));
        let mut all: Vec<_> = used.chain(harmless).chain(refused).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }
}
