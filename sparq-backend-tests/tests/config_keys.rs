//! Every field of `config.json`, changed one at a time, against what transformers makes of it.
//!
//! `fixtures/config_keys.py` recorded the logits. A change that transformers heeds is heeded here, with the
//! same logits, or refused by the name of the field. A change that it ignores is ignored. A file that it does
//! not load is refused. What differs on purpose is listed with its reason, and the list may not go stale.

#![allow(clippy::unwrap_used)] // helpers of the test

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::{DType, Device};
use serde::Deserialize;
use serde_json::{Map, Value};
use sparq_backend_tests::reference;
use sparq_core::Method;
use sparq_models::{
    checkpoint::Checkpoint,
    forward::{self, Row, Want},
    state::{ModelState, StateConfig},
    text_model::load_model,
};

/// Largest difference of a logit; their standard deviation is near 1.
const LOGITS: f32 = 2e-4;

/// How a change may come out otherwise than in transformers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Difference {
    /// Refused here, ignored there.
    Refused,
    /// Runs here, refused there.
    Runs,
    /// Other logits, or a refusal that does not name the field.
    Wrong,
}
use Difference::{Refused, Runs, Wrong};

/// What differs from transformers on purpose: which folders (those whose names begin so, all for ""), how,
/// what the change says, and why.
#[rustfmt::skip]
const ON_PURPOSE: &[(&[&str], Difference, &str, &str)] = &[
    (&[""], Refused, "attention_chunk_size = 8", "transformers' cache reads it where its model does not"),
    (&["gemma", "gpt_neox", "llama"], Refused, "sliding_window = ", "transformers' cache reads it where its model does not"),
    (&[""], Refused, "is_encoder_decoder = true", "no decoder alone says so"),
    (&[""], Refused, "\"rope_type\":\"dynamic\"", "scales beyond the trained length, which is not built"),
    (&["gemma"], Refused, "use_bidirectional_attention = true", "an encoder"),
    (&["gemma"], Refused, "hidden_activation = \"relu\"", "older checkpoints of Gemma mean it"),
    (&["gemma"], Wrong, "hidden_activation = ", "older checkpoints of Gemma mean it"),
    (&["phi3"], Refused, "layer_types = [\"", "windows by layer are not built for it"),
    (&[""], Runs, " = null", "null counts as absent"),
    (&[""], Runs, "layer_types = [\"full_attention\"]", "ignored by the model, and so is its length"),
    (&["mistral"], Runs, "layer_types = ", "read as a Ministral, whose head size transformers does not work out"),
    (&["gemma"], Runs, "query_pre_attn_scalar = 4.0", "any number is one"),
    (&["phi3"], Runs, "without pad_token_id", "its default lies outside of a small vocabulary"),
];

#[derive(Deserialize)]
struct Table {
    tokens: usize,
    positions: Vec<usize>,
    picked: Vec<usize>,
    bases: Vec<Base>,
}

/// A checkpoint as it is, and its changes.
#[derive(Deserialize)]
struct Base {
    folder: String,
    config: String,
    logits: Vec<f32>,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    set: Map<String, Value>,
    #[serde(default)]
    cut: Vec<String>,
    logits: Option<Vec<f32>>,
    refused: Option<String>,
}

impl Change {
    fn fields(&self) -> impl Iterator<Item = &str> {
        self.set.keys().chain(&self.cut).map(String::as_str)
    }

    fn describe(&self) -> String {
        let mut parts: Vec<_> = self.set.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        parts.extend(self.cut.iter().map(|name| format!("without {name}")));
        parts.join(", ")
    }

    /// What is different in `ours` from transformers; `None` where nothing is.
    fn judge(&self, base: &[f32], ours: &Result<Vec<f32>, String>) -> Option<(Difference, String)> {
        let far = |theirs: &[f32]| match ours {
            Ok(ours) => {
                let distance = ours
                    .iter()
                    .zip(theirs)
                    .map(|(a, b)| (a - b).abs())
                    .max_by(f32::total_cmp)
                    .unwrap_or(f32::NAN);
                (distance.is_nan() || distance > LOGITS)
                    .then(|| (Wrong, format!("logits are off by {distance:.1e}")))
            }
            Err(_) => None,
        };
        match (&self.refused, &self.logits, ours) {
            (Some(_), _, Err(_)) => None,
            (Some(why), _, Ok(_)) => Some((Runs, format!("runs, transformers refuses it ({why})"))),
            (None, Some(theirs), Ok(_)) => far(theirs),
            (None, Some(_), Err(message)) => {
                let named = self.fields().any(|name| message.contains(name));
                (!named).then(|| (Wrong, format!("is refused without the name of the field: {message}")))
            }
            (None, None, Ok(_)) => far(base),
            (None, None, Err(message)) => {
                Some((Refused, format!("is refused, transformers ignores it: {message}")))
            }
        }
    }
}

/// The picked logits of the checkpoint in `folder`, or why it does not load.
fn logits(folder: &Path, table: &Table, device: &Device) -> Result<Vec<f32>, String> {
    let text = |error: sparq_models::Error| error.to_string();
    let checkpoint = Checkpoint::open(folder).map_err(text)?;
    let model = load_model(&checkpoint, device, DType::F32, &mut |_, _| {}).map_err(text)?;
    let ids: Vec<u32> = (0..table.tokens as u32).map(|i| (3 + i) % 61).collect();
    let config = StateConfig { batch: 1, max_len: ids.len(), dtype: DType::F32 };
    let mut state = ModelState::uniform(model.as_ref(), &config, &Method::Dense).map_err(text)?;
    let logits = forward::step(model.as_ref(), &[Row::prompt(&ids)], &mut state, Want::All).map_err(text)?;
    let logits = forward::read(logits).map_err(text)?;
    let vocab = model.vocab_size();
    let picked = table.positions.iter().flat_map(|p| table.picked.iter().map(move |t| p * vocab + t));
    Ok(picked.map(|index| logits[index]).collect())
}

/// A folder with the weights of a family and room for another `config.json`.
fn weights_of(source: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("model") {
            fs::copy(entry.path(), folder.path().join(name)).unwrap();
        }
    }
    folder
}

#[test]
fn fields_mean_what_they_mean_in_transformers() {
    let device = sparq_core::device::parse("flex").unwrap();
    let fixtures = reference::folder();
    let table: Table =
        serde_json::from_str(&fs::read_to_string(fixtures.join("config_keys.json")).unwrap()).unwrap();
    let (mut wrong, mut used, mut tried) = (vec![], BTreeMap::new(), 0);
    for base in &table.bases {
        let source = fixtures.join("families").join(&base.folder);
        let folder = weights_of(&source);
        let config: Map<String, Value> =
            serde_json::from_str(&fs::read_to_string(source.join(&base.config)).unwrap()).unwrap();
        for change in &base.changes {
            tried += 1;
            let mut changed = config.clone();
            changed.retain(|name, _| !change.cut.contains(name));
            changed.extend(change.set.clone());
            let json = serde_json::to_string(&changed).unwrap();
            fs::write(folder.path().join("config.json"), json).unwrap();
            let ours = logits(folder.path(), &table, &device);
            let Some((difference, problem)) = change.judge(&base.logits, &ours) else { continue };
            let said = change.describe();
            let excuse = ON_PURPOSE.iter().position(|(folders, how, what, _)| {
                *how == difference
                    && said.contains(what)
                    && folders.iter().any(|name| base.folder.starts_with(name))
            });
            match excuse {
                Some(index) => *used.entry(index).or_insert(0) += 1,
                None => wrong.push(format!("{}/{}: {said} {problem}", base.folder, base.config)),
            }
        }
    }
    let stale: Vec<_> = (0..ON_PURPOSE.len()).filter(|index| !used.contains_key(index)).collect();
    assert!(wrong.is_empty(), "{} of {tried} changes:\n{}", wrong.len(), wrong.join("\n"));
    assert!(stale.is_empty(), "nothing needs these entries of the list any more: {stale:?}");
    assert!(tried > 2000, "only {tried} changes were tried");
}
