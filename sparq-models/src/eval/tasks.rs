//! Tasks: where their texts come from, what is asked, and how the answers are scored.
//!
//! A [`Sample`] is a context that the model reads densely, and questions that it is asked afterwards
//! through the decode path, so that the method under test finds the answer. The paper's own
//! evaluation prefills the question densely too; here the first answer token is already the
//! method's.

mod cnn;
mod documents;
mod filler;
mod hops;
mod key_value;
mod needle;
mod niah;
mod pass_keys;
mod repetition;
mod room;
mod squad;
mod text;
mod trivia;
mod variables;
mod words;

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use room::Room;

use super::{EvalError, metrics::Metric};
use crate::{error::Result, text_model::TextModel};

/// One context and what is asked about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What the model reads first, densely.
    pub context: String,
    /// Asked one after another on the same cache.
    pub turns: Vec<Turn>,
    /// Tokens that the sample was made to fill.
    pub length: usize,
    /// Where the answer stands in the context, 0 at the beginning, 1 at the end; `None` where it does
    /// not stand in one place.
    pub depth: Option<f64>,
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Fed token by token through the decode path. Empty where the context itself is continued.
    pub question: String,
    /// The answer whose probability is measured, as it would follow the question.
    pub answer: String,
    /// What the metric looks for in a generated answer.
    pub references: Vec<String>,
    /// Tokens to generate, where the metric needs an output.
    pub new_tokens: usize,
}

impl Turn {
    /// A turn with one reference that follows `question` word for word; nothing is generated.
    pub(crate) fn exact(question: String, answer: String) -> Self {
        Self { question, references: vec![answer.trim_start().to_owned()], answer, new_tokens: 0 }
    }
}

/// How many samples, of what length and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Samples per task.
    pub limit: usize,
    /// Lengths of the contexts with question and answer, in tokens, ascending.
    pub lengths: Vec<usize>,
    /// Depths at which an answer is hidden.
    pub depths: usize,
    /// Selects the random numbers.
    pub seed: u64,
}

impl Plan {
    /// Length and depth of sample `index`: the cells of the grid in turn, lengths first.
    fn cell(&self, index: usize) -> Cell {
        let length = self.lengths[index % self.lengths.len()];
        let step = (index / self.lengths.len()) % self.depths;
        Cell { length, depth: step as f64 / (self.depths.max(2) - 1) as f64 }
    }

    /// The longest length.
    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Random numbers of their own for each task and sample.
    fn rng(&self, task: &str, index: usize) -> ChaCha8Rng {
        // FNV-1a over the name.
        let hash = task.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ hash);
        rng.set_stream(index as u64);
        rng
    }

    /// `0..count` in a random order that is the same for all samples of a task.
    fn order(&self, task: &str, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        shuffle(&mut order, &mut self.rng(task, usize::MAX));
        order
    }
}

/// One cell of the grid of lengths and depths.
#[derive(Debug, Clone, Copy)]
struct Cell {
    length: usize,
    depth: f64,
}

/// What a task makes its samples with.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// The model, for its tokenizer, and for the texts that it writes itself.
    pub model: &'a TextModel,
    /// How many samples of which kind.
    pub plan: &'a Plan,
}

impl<'a> Maker<'a> {
    /// Room for `tokens` tokens.
    pub fn room(&self, tokens: usize) -> Room<'a> {
        Room { tokenizer: self.model.tokenizer(), tokens }
    }

    /// One sample per index: `build` is given the units of filler, and makes the same text for the
    /// same number and random numbers.
    fn fill(
        &self,
        task: &str,
        build: impl Fn(usize, Cell, &mut ChaCha8Rng) -> (String, Vec<Turn>, Option<f64>),
    ) -> Result<Vec<Sample>> {
        let sample = |index: usize| {
            let cell = self.plan.cell(index);
            self.room(cell.length).fill(task, |units| {
                let (context, turns, depth) = build(units, cell, &mut self.plan.rng(task, index));
                Sample { context, turns, length: cell.length, depth }
            })
        };
        (0..self.plan.limit).map(sample).collect()
    }
}

type Make = fn(&Maker<'_>, Option<&Path>) -> Result<Vec<Sample>>;

/// A task that can be run.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it asks.
    pub about: &'static str,
    /// What file it reads; `None` for tasks that make their own text.
    pub file: Option<&'static str>,
    /// How it is scored.
    pub metric: Metric,
    /// Whether the attention mass that methods retain is measured along it.
    pub measures_mass: bool,
    make: Make,
}

impl Task {
    /// The samples, the same ones for the same plan, tokenizer and file.
    ///
    /// # Errors
    /// [`EvalError::TaskFile`] for a file of another form, [`EvalError::Room`] where the longest length
    /// is too short for the task.
    pub fn samples(&self, maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
        let samples = (self.make)(maker, file)?;
        match (samples.is_empty(), file) {
            (true, Some(path)) => Err(EvalError::TaskFile {
                path: path.to_owned(),
                message: format!(
                    "it holds nothing that fits `{}` and {} tokens",
                    self.name,
                    maker.plan.longest()
                ),
            }
            .into()),
            _ => Ok(samples),
        }
    }
}

/// Every task, those without a file first.
const TASKS: &[Task] = &[
    Task {
        name: "passkey",
        about: "a five-digit key in repeated sentences (landmark attention)",
        file: None,
        metric: Metric::ExactMatch,
        measures_mass: false,
        make: pass_keys::single,
    },
    Task {
        name: "niah-single",
        about: "one number for one key (RULER niah_single_1)",
        file: None,
        metric: Metric::StringMatchAll,
        measures_mass: false,
        make: niah::single,
    },
    Task {
        name: "niah-multikey",
        about: "one of four keys (RULER niah_multikey_1, on repeated sentences)",
        file: None,
        metric: Metric::StringMatchAll,
        measures_mass: false,
        make: niah::multi_key,
    },
    Task {
        name: "niah-multivalue",
        about: "all four numbers of one key (RULER niah_multivalue, on repeated sentences)",
        file: None,
        metric: Metric::StringMatchAll,
        measures_mass: false,
        make: niah::multi_value,
    },
    Task {
        name: "variable-tracking",
        about: "all names of one value along a chain of assignments (RULER vt)",
        file: None,
        metric: Metric::StringMatchAll,
        measures_mass: false,
        make: variables::make,
    },
    Task {
        name: "common-words",
        about: "the ten most common words of a list (RULER cwe)",
        file: None,
        metric: Metric::StringMatchAll,
        measures_mass: false,
        make: words::common,
    },
    Task {
        name: "frequent-words",
        about: "the three most frequent coded words (RULER fwe)",
        file: None,
        metric: Metric::StringMatchAll,
        measures_mass: false,
        make: words::frequent,
    },
    Task {
        name: "kv-retrieval",
        about: "the value of a UUID in a JSON object of UUIDs (InfiniteBench)",
        file: None,
        metric: Metric::ExactMatch,
        measures_mass: false,
        make: key_value::json,
    },
    Task {
        name: "keyed-lines",
        about: "the number of a named line in a list of lines (after LongEval)",
        file: None,
        metric: Metric::ExactMatch,
        measures_mass: false,
        make: key_value::lines,
    },
    Task {
        name: "named-key",
        about: "one of four named pass keys in a tale",
        file: None,
        metric: Metric::ExactMatch,
        measures_mass: false,
        make: pass_keys::named,
    },
    Task {
        name: "multi-turn",
        about: "four named pass keys, asked one after another on one cache",
        file: None,
        metric: Metric::ExactMatch,
        measures_mass: false,
        make: pass_keys::turns,
    },
    Task {
        name: "hash-hops",
        about: "two steps along shuffled pairs of hashes",
        file: None,
        metric: Metric::ExactMatch,
        measures_mass: false,
        make: hops::make,
    },
    Task {
        name: "own-text",
        about: "perplexity of text that the model itself wrote, and the attention mass retained",
        file: None,
        metric: Metric::Perplexity,
        measures_mass: true,
        make: text::own,
    },
    Task {
        name: "squad",
        about: "1-shot question answering among eight paragraphs (the paper)",
        file: Some("SQuAD v1.1 JSON, such as dev-v1.1.json"),
        metric: Metric::NormalisedMatch,
        measures_mass: false,
        make: squad::make,
    },
    Task {
        name: "triviaqa",
        about: "question answering from one Wikipedia page (the paper)",
        file: Some("qa/wikipedia-dev.json of triviaqa-rc, beside its evidence folder"),
        metric: Metric::NormalisedMatch,
        measures_mass: false,
        make: trivia::make,
    },
    Task {
        name: "cnn-dailymail",
        about: "summaries of news articles (the paper)",
        file: Some("CNN/DailyMail 3.0.0 as .csv or .jsonl with article and highlights"),
        metric: Metric::RougeL,
        measures_mass: false,
        make: cnn::make,
    },
    Task {
        name: "wikitext",
        about: "bits per character of articles behind 6000 characters (the paper)",
        file: Some("WikiText, or any text"),
        metric: Metric::BitsPerCharacter,
        measures_mass: false,
        make: text::wikitext,
    },
    Task {
        name: "repetition",
        about: "going on with a passage that stands in the context (the paper)",
        file: Some("any text; the paper takes tiny Shakespeare"),
        metric: Metric::RepetitionLength,
        measures_mass: false,
        make: repetition::make,
    },
    Task {
        name: "needle",
        about: "a sentence about San Francisco in essays (the paper)",
        file: Some("any text; the paper takes essays"),
        metric: Metric::Prefix,
        measures_mass: false,
        make: needle::make,
    },
    Task {
        name: "text",
        about: "perplexity of a text, and the attention mass retained",
        file: Some("any text"),
        metric: Metric::Perplexity,
        measures_mass: true,
        make: text::any,
    },
];

/// The tasks, those without a file first.
pub fn tasks() -> &'static [Task] {
    TASKS
}

/// The task of this name.
///
/// # Errors
/// [`EvalError::UnknownTask`] with the closest name.
pub fn task(name: &str) -> Result<&'static Task> {
    TASKS.iter().find(|task| task.name == name).ok_or_else(|| {
        let closest =
            TASKS.iter().map(|task| (strsim::damerau_levenshtein(task.name, name), task.name)).min();
        let closest = closest.filter(|(distance, _)| *distance <= name.len().div_ceil(2));
        EvalError::UnknownTask { name: name.to_owned(), closest: closest.map(|(_, name)| name.to_owned()) }
            .into()
    })
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.random_range(0..=i));
    }
}

/// One of the items.
fn choose<'a, T>(items: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    &items[rng.random_range(0..items.len())]
}

#[cfg(test)]
mod tests;
