//! How a checkpoint wants texts to be sampled and to end.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    checkpoint::{Checkpoint, EndToken},
    tokenizer::Tokenizer,
};

/// What a run without flags goes by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerationSummary {
    /// Name of the file that the settings come from; `None` where none states any.
    pub source: Option<&'static str>,
    /// The settings that are not off, by their names in that file; a temperature of 0 takes the likeliest
    /// token.
    #[serde(serialize_with = "as_map")]
    pub settings: Vec<(&'static str, Value)>,
    /// Tokens that end a text.
    pub ends: Vec<EndToken>,
    /// What was left out of the file or is not honoured, a line each.
    pub notes: Vec<String>,
}

impl GenerationSummary {
    /// Reads the settings. Without a tokenizer ends are shown by their ids.
    pub fn new(checkpoint: &Checkpoint, tokenizer: Option<&Tokenizer>) -> Self {
        let config = checkpoint.generation_config();
        let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        let settings = config.settings().into_iter();
        Self {
            source: config.source,
            settings: settings.map(|(name, text)| (name, value(text))).collect(),
            ends: checkpoint.ends(tokenizer),
            notes: config.notes.clone(),
        }
    }
}

fn as_map<S: Serializer>(settings: &[(&'static str, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(settings.iter().map(|(name, value)| (name, value)))
}
