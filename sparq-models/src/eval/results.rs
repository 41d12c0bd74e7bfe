//! What an evaluation found, as it is written to JSON.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{EvalError, metrics::Metric, tasks::Plan};
use crate::error::{Error, Result};

/// Version of the form of [`Results`].
pub const FORMAT: u32 = 1;

/// All of an evaluation. The same settings give the same bytes: there are no times in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// What was run.
    pub settings: Settings,
    /// What came of it, one entry per task.
    pub tasks: Vec<TaskResults>,
}

/// Everything that the results depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of this program.
    pub sparq_version: String,
    /// Version of Burn.
    pub burn_version: String,
    /// Folder of the model, or `embedded model`.
    pub model: String,
    /// Name of its architecture.
    pub architecture: String,
    /// Device that it ran on.
    pub device: String,
    /// Number format of weights and cache.
    pub dtype: String,
    /// Sequences decoded together.
    pub batch: usize,
    /// Samples and lengths.
    pub plan: Plan,
    /// Methods, dense attention first.
    pub methods: Vec<MethodSettings>,
    /// Tasks and their files.
    pub tasks: Vec<TaskSettings>,
}

/// A method at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodSettings {
    /// The method in its notation, such as `sparq`.
    pub name: String,
    /// Dense bytes over the method's, as asked for; `None` for dense attention and stated sizes.
    pub compression: Option<f64>,
    /// The method of the widest layer, by length of the context, in the order of the plan's lengths.
    pub resolved: Vec<serde_json::Value>,
}

impl MethodSettings {
    /// The name with the size, such as `sparq 1/8`.
    pub fn label(&self) -> String {
        match self.compression {
            Some(compression) => format!("{} 1/{compression}", self.name),
            None => self.name.clone(),
        }
    }
}

/// A task and its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSettings {
    /// Name of the task.
    pub name: String,
    /// The file, as it was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// Its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file_bytes: Option<u64>,
}

/// Results of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResults {
    /// Name of the task.
    pub task: String,
    /// How it is scored.
    pub metric: Metric,
    /// In the order of the plan.
    pub samples: Vec<SampleResult>,
}

/// Results of one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleResult {
    /// Tokens that it was made to fill.
    pub length: usize,
    /// Where the answer stands in the context.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub depth: Option<f64>,
    /// Tokens of context and questions.
    pub prompt_tokens: usize,
    /// Tokens whose probabilities were measured.
    pub answer_tokens: usize,
    /// The reference answers of all turns.
    pub answers: Vec<String>,
    /// One per method, in the order of the settings.
    pub outcomes: Vec<Outcome>,
}

/// What one method made of one sample.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// By the task's metric; the mean over turns where there are several.
    pub score: f64,
    /// The score of each turn, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub turns: Vec<f64>,
    /// The generated output, where the metric needs one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
    /// Mean negative log probability of an answer token, in nats.
    pub nats_per_token: f64,
    /// Mean divergence from dense attention per answer token, in nats.
    pub kl: f64,
    /// Part of the answer tokens where method and dense attention hold the same token for the likeliest.
    pub top_1_agreement: f64,
    /// Bytes of the KV cache moved per decode step and sequence, over all layers.
    pub kv_bytes_per_token: f64,
    /// Attention mass retained, by layer and head, where the task measures it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mass: Vec<Vec<f64>>,
}

impl Outcome {
    /// Refuses numbers that no run gives: sums and axes would end nowhere.
    fn check(&self) -> std::result::Result<(), String> {
        const LARGEST: f64 = 1e15;
        let named = [
            ("score", self.score),
            ("nats_per_token", self.nats_per_token),
            ("kl", self.kl),
            ("top_1_agreement", self.top_1_agreement),
            ("kv_bytes_per_token", self.kv_bytes_per_token),
        ];
        let turns = self.turns.iter().map(|&score| ("turns", score));
        let mass = self.mass.iter().flatten().map(|&mass| ("mass", mass));
        match named.into_iter().chain(turns).chain(mass).find(|(_, value)| value.abs() > LARGEST) {
            Some((name, value)) => Err(format!("`{name}` of an outcome is {value:e}")),
            None => Ok(()),
        }
    }
}

/// Six significant digits: enough for any use, and read back as they were written.
pub(crate) fn round(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

impl Results {
    /// Reads a file that [`Results::to_json`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`], and [`EvalError::Results`] for a file of another form.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let bad = |message: String| Error::from(EvalError::Results { path: path.to_owned(), message });
        let results: Self = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if results.format != FORMAT {
            return Err(bad(format!("its form is {}, this program reads {FORMAT}", results.format)));
        }
        for sample in results.tasks.iter().flat_map(|task| &task.samples) {
            sample.outcomes.iter().try_for_each(Outcome::check).map_err(bad)?;
        }
        let methods = results.settings.methods.len();
        let samples = || results.tasks.iter().flat_map(|task| &task.samples);
        match samples().all(|sample| sample.outcomes.len() == methods) && methods > 0 {
            true => Ok(results),
            false => Err(bad("its samples and its methods do not match".into())),
        }
    }

    /// The results as JSON: a line for each sample, the rest spread out.
    ///
    /// # Errors
    /// None in practice: numbers and texts can always be written.
    pub fn to_json(&self) -> Result<String> {
        let bad = |error: serde_json::Error| {
            Error::from(EvalError::Results { path: "results".into(), message: error.to_string() })
        };
        let settings = serde_json::to_string_pretty(&self.settings).map_err(bad)?.replace('\n', "\n  ");
        let mut tasks = vec![];
        for task in &self.tasks {
            let samples: serde_json::Result<Vec<String>> =
                task.samples.iter().map(serde_json::to_string).collect();
            tasks.push(format!(
                "    {{\n      \"task\": {},\n      \"metric\": {},\n      \"samples\": [\n        {}\n      ]\n    }}",
                serde_json::to_string(&task.task).map_err(bad)?,
                serde_json::to_string(&task.metric).map_err(bad)?,
                samples.map_err(bad)?.join(",\n        "),
            ));
        }
        let format = self.format;
        let tasks = tasks.join(",\n");
        Ok(format!(
            "{{\n  \"format\": {format},\n  \"settings\": {settings},\n  \"tasks\": [\n{tasks}\n  ]\n}}\n"
        ))
    }
}
