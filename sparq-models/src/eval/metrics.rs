//! How outputs are scored, each as the work that introduced it does.

mod answers;
mod likelihood;
mod rouge;
mod stem;

use serde::{Deserialize, Serialize};

pub use answers::{normalise, repetition_length, starts_with_answer, string_match_all};
pub(crate) use likelihood::best;
pub use likelihood::{Divergence, bits_per_character, log_softmax, perplexity};
pub use rouge::rouge_l;
pub use stem::stem;

/// What a task's score means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// 1 where the greedy continuation is the reference, token for token.
    ExactMatch,
    /// Part of the references that occur in the output, in any case (RULER).
    StringMatchAll,
    /// 1 where the normalised output starts with a normalised reference (SQuAD, TriviaQA).
    NormalisedMatch,
    /// 1 where the output starts with the reference, behind white space (needle).
    Prefix,
    /// ROUGE-L F with stemming (CNN/DailyMail).
    RougeL,
    /// Characters of the reference that the output repeats before the first difference.
    RepetitionLength,
    /// Bits per character of the reference.
    BitsPerCharacter,
    /// Perplexity per token of the reference.
    Perplexity,
}

impl Metric {
    /// Whether the output has to be generated; the others follow from the reference's probabilities.
    pub fn needs_generation(self) -> bool {
        !matches!(self, Self::ExactMatch | Self::BitsPerCharacter | Self::Perplexity)
    }

    /// Whether more is better.
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Self::BitsPerCharacter | Self::Perplexity)
    }

    /// Whether the score is a part of one, which reports show in percent.
    pub fn is_fraction(self) -> bool {
        self.higher_is_better() && self != Self::RepetitionLength
    }

    /// Name in reports.
    pub fn title(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact match, %",
            Self::StringMatchAll => "references found, %",
            Self::NormalisedMatch => "normalised match, %",
            Self::Prefix => "match, %",
            Self::RougeL => "ROUGE-L F, %",
            Self::RepetitionLength => "characters repeated",
            Self::BitsPerCharacter => "bits per character",
            Self::Perplexity => "perplexity",
        }
    }

    /// The score of an output against the references. [`Metric::needs_generation`] holds for the
    /// metrics that this knows; others score 0.
    pub fn of_text(self, output: &str, references: &[String]) -> f64 {
        let first = references.first().map_or("", String::as_str);
        match self {
            Self::StringMatchAll => string_match_all(output, references),
            Self::NormalisedMatch => f64::from(u8::from(starts_with_answer(output, references))),
            Self::Prefix => f64::from(u8::from(output.trim_start().starts_with(first.trim_start()))),
            Self::RougeL => rouge_l(first, output),
            Self::RepetitionLength => repetition_length(output, first) as f64,
            Self::ExactMatch | Self::BitsPerCharacter | Self::Perplexity => 0.0,
        }
    }
}
