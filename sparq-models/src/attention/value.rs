//! Values of keys: how they are written, and which of them a key takes.

use sparq_core::{GroupScores, KtFormat, TopkRule};

/// Below which context length SparQ attends densely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseBelow {
    /// From where on SparQ is faster, measured where a text is written: see [`crate::crossover`].
    Auto,
    /// So many tokens.
    Tokens(usize),
}

/// A type of values.
pub(super) trait Value: Copy + PartialEq + Sync + 'static {
    /// Words and what they stand for; none where values are numbers.
    const WORDS: &'static [(&'static str, Self)] = &[];

    fn read(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn written(self) -> String {
        let word = Self::WORDS.iter().find(|(_, value)| *value == self);
        word.map_or(String::new(), |(word, _)| (*word).to_owned())
    }
}

impl Value for usize {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn written(self) -> String {
        self.to_string()
    }
}

impl Value for f32 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn written(self) -> String {
        self.to_string()
    }
}

impl Value for DenseBelow {
    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            _ => text.parse().ok().map(Self::Tokens),
        }
    }

    fn written(self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Tokens(tokens) => tokens.to_string(),
        }
    }
}

impl Value for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("on", true), ("off", false)];
}

impl Value for GroupScores {
    const WORDS: &'static [(&'static str, Self)] =
        &[("logits", Self::ScaledLogits), ("softmax", Self::Softmax)];
}

impl Value for KtFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("cache", Self::Cache), ("int8", Self::Int8), ("int4", Self::Int4)];
}

impl Value for TopkRule {
    const WORDS: &'static [(&'static str, Self)] = &[("exact", Self::Exact), ("buckets", Self::Buckets)];
}

/// The values of a type that a key takes.
pub(super) struct Range<T> {
    /// In words; empty where the words of the type say it.
    pub(super) text: &'static str,
    pub(super) holds: fn(T) -> bool,
}

pub(super) const WHOLE: Range<usize> = Range { text: "a whole number", holds: |_| true };
pub(super) const POSITIVE: Range<usize> =
    Range { text: "a whole number of at least 1", holds: |count| count > 0 };
pub(super) const PART: Range<f32> =
    Range { text: "a number above 0 and at most 1", holds: |part| part > 0.0 && part <= 1.0 };
pub(super) const LENGTH: Range<DenseBelow> = Range { text: "a whole number or `auto`", holds: |_| true };

impl<T> Range<T> {
    pub(super) const WORDS: Self = Self { text: "", holds: |_| true };
}
