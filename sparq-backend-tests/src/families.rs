//! Every model family against the logits and greedy tokens of transformers.
//!
//! `fixtures/make.py` writes the checkpoints. Each check runs over all of them and names everything
//! that failed at the end.

use std::{fs, path::PathBuf};

use burn::tensor::{DType, Device};
use safetensors::SafeTensors;
use sparq_core::{AttentionShape, Method, SparqConfig};
use sparq_models::{
    checkpoint::Checkpoint,
    forward::{self, Row, Want},
    inspect::Inspection,
    models::CausalModel,
    state::{ModelState, StateConfig},
    text_model::load_model,
    verify::{Outcome, verify},
};

use crate::{
    reference::{floats, folder, ints},
    suite::note,
    tolerance::Tolerance,
};

/// Checkpoints that must be there: the folder, its architecture, and the sliding window where every
/// layer has the same.
const FAMILIES: &[(&str, &str, Option<usize>)] = &[
    ("gemma", "GemmaForCausalLM", None),
    ("gemma2", "Gemma2ForCausalLM", None),
    ("gemma3_text", "Gemma3ForCausalLM", None),
    ("gpt_neox", "GPTNeoXForCausalLM", None),
    ("gpt_neox_serial", "GPTNeoXForCausalLM", None),
    ("llama2", "LlamaForCausalLM", None),
    ("llama2_bf16", "LlamaForCausalLM", None),
    ("llama2_sharded", "LlamaForCausalLM", None),
    ("llama3_1", "LlamaForCausalLM", None),
    ("llama3_2", "LlamaForCausalLM", None),
    ("llama_linear", "LlamaForCausalLM", None),
    ("mistral_nemo", "MistralForCausalLM", None),
    ("mistral_window", "MistralForCausalLM", Some(24)),
    ("phi3_long", "Phi3ForCausalLM", None),
    ("phi3_short", "Phi3ForCausalLM", Some(40)),
    ("qwen2", "Qwen2ForCausalLM", None),
    ("qwen3", "Qwen3ForCausalLM", None),
];

/// Largest difference of any logit in f32; their standard deviation is near 1.
const LOGITS: f32 = 1e-4;

/// What a check says of one family: its measurement, or what went wrong.
pub(crate) type Verdict = Result<String, String>;

/// A checkpoint on a device, with what transformers computed from it.
pub(crate) struct Family {
    folder: PathBuf,
    window: Option<usize>,
    pub(crate) shape: AttentionShape,
    pub(crate) model: Box<dyn CausalModel>,
    pub(crate) ids: Vec<u32>,
    pub(crate) prefill: usize,
    logits: Vec<f32>,
    decode_logits: Vec<f32>,
    greedy: Vec<u32>,
}

/// Logits of one uncached pass and of cached decode steps: in f32 to 1e-4 with the same
/// likeliest tokens, in the half types within the table of tolerances.
pub fn family_logits(device: &Device, row: Tolerance) {
    each("logits", row.dtype, device, |family| {
        let file = family.folder.join("expected.safetensors");
        let comparisons = verify(family.model.as_ref(), row.dtype, &file).map_err(text)?;
        let mut measured = String::new();
        for comparison in &comparisons {
            let Outcome::Compared { max_difference, agreeing, positions, .. } = comparison.outcome else {
                return Err(format!("{} was not run", comparison.name));
            };
            let exact = row.dtype == DType::F32;
            let what = format!("{} {max_difference:.1e} greedy {agreeing}/{positions}", comparison.name);
            if !comparison.passes(if exact { LOGITS } else { row.logits }) || exact && agreeing < positions {
                return Err(what);
            }
            measured += &format!("{what}  ");
        }
        match comparisons.len() {
            2 => Ok(measured),
            number => Err(format!("{number} comparisons instead of 2")),
        }
    });
}

/// A prompt in chunks, of which some end inside a sliding window, gives the logits of one pass.
pub fn family_logits_with_the_prompt_in_chunks(device: &Device) {
    each("chunks", DType::F32, device, |family| {
        let mut worst: f32 = 0.0;
        for chunk in [7, 16, 33] {
            let mut state = family.state(&Method::Dense)?;
            state.expect(family.ids.len());
            let mut logits = vec![];
            for ids in family.ids.chunks(chunk) {
                let output = forward::step(family.model.as_ref(), &[Row::prompt(ids)], &mut state, Want::All);
                logits.extend(forward::read(output.map_err(text)?).map_err(text)?);
            }
            let first = (family.prefill - 1) * family.model.vocab_size();
            worst = worst.max(close(&logits[first..], &family.logits)?);
        }
        Ok(format!("{worst:.1e}"))
    });
}

/// The same 24 tokens as transformers, each the likeliest.
pub fn family_greedy_tokens(device: &Device) {
    each("greedy", DType::F32, device, |family| {
        let mut state = family.state(&Method::Dense)?;
        let prompt = &family.ids[..family.prefill];
        let step = |row: Row<'_>, state: &mut ModelState| {
            forward::step(family.model.as_ref(), &[row], state, Want::Last).map_err(text)
        };
        let mut logits = step(Row::prompt(prompt), &mut state)?;
        let mut tokens = vec![];
        while tokens.len() < family.greedy.len() {
            let row = forward::read(logits).map_err(text)?;
            let likeliest = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            tokens.push(likeliest.map_or(0, |(id, _)| id as u32));
            let last = &tokens[tokens.len() - 1..];
            logits = step(Row::decode(last), &mut state)?;
        }
        match tokens == family.greedy {
            true => Ok(format!("{} tokens", tokens.len())),
            false => Err(format!("{tokens:?}, expected {:?}", family.greedy)),
        }
    });
}

/// SparQ that reads every component of every position in reach is dense attention.
pub fn family_logits_with_sparq_that_reads_everything(device: &Device) {
    each("sparq", DType::F32, device, |family| {
        let shape = family.shape;
        let top_k = family.window.unwrap_or(family.ids.len());
        let method = Method::Sparq(SparqConfig::new(&shape, shape.head_dim, top_k));
        let mut state = family.state(&method)?;
        let (prompt, rest) = family.ids.split_at(family.prefill);
        let mut step = |row: Row<'_>, want: Want| {
            forward::step(family.model.as_ref(), &[row], &mut state, want).map_err(text)
        };
        step(Row::prompt(prompt), Want::Nothing)?;
        let mut logits = vec![];
        for id in rest {
            logits.extend(forward::read(step(Row::decode(&[*id]), Want::Last)?).map_err(text)?);
        }
        Ok(format!("{:.1e}", close(&logits, &family.decode_logits)?))
    });
}

/// The configuration as transformers 5 writes it means the same as the older form beside it.
pub fn family_logits_with_the_newer_configuration(device: &Device) {
    each("newer configuration", DType::F32, device, |family| {
        let newer = family.folder.join("config.5.json");
        if !newer.exists() {
            return Ok("has no other".into());
        }
        let copy = tempfile::tempdir().map_err(text)?;
        for entry in fs::read_dir(&family.folder).map_err(text)? {
            let entry = entry.map_err(text)?;
            fs::copy(entry.path(), copy.path().join(entry.file_name())).map_err(text)?;
        }
        fs::rename(copy.path().join("config.5.json"), copy.path().join("config.json")).map_err(text)?;
        let other = Family::open(copy.path().to_owned(), family.window, DType::F32, device)?;
        let mut state = other.state(&Method::Dense)?;
        let logits = forward::step(other.model.as_ref(), &[Row::prompt(&other.ids)], &mut state, Want::All);
        let logits = forward::read(logits.map_err(text)?).map_err(text)?;
        let first = (other.prefill - 1) * other.model.vocab_size();
        Ok(format!("{:.1e}", close(&logits[first..], &family.logits)?))
    });
}

/// Runs `check` on every family, notes what it measured and panics where one failed or is missing.
pub(crate) fn each(what: &str, dtype: DType, device: &Device, check: impl Fn(&Family) -> Verdict) {
    let models = folder().join("families");
    let mut failures = vec![];
    for &(name, architecture, window) in FAMILIES {
        let folder = models.join(name);
        let verdict = architecture_is(&folder, architecture)
            .and_then(|()| Family::open(folder, window, dtype, device))
            .and_then(|family| check(&family));
        note(&format!("{what} {dtype:?} {name}: {verdict:?}"));
        failures.extend(verdict.err().map(|failure| format!("{name}: {failure}")));
    }
    for name in folders_with_greedy_tokens(&models) {
        if !FAMILIES.iter().any(|(known, ..)| *known == name) {
            failures.push(format!("{name}: lies in the folder and is not in the table"));
        }
    }
    assert!(failures.is_empty(), "{what} in {dtype:?} on {device:?}:\n{}", failures.join("\n"));
}

fn architecture_is(folder: &std::path::Path, expected: &str) -> Result<(), String> {
    let checkpoint = Checkpoint::open(folder).map_err(text)?;
    match checkpoint.architecture().map_err(text)? {
        found if found == expected => Ok(()),
        found => Err(format!("is {found}, expected {expected}")),
    }
}

/// Names of the folders that `make.py` wrote: others come from elsewhere and hold no greedy tokens.
fn folders_with_greedy_tokens(models: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(models).expect("the folder of models");
    let folders = entries.map(|entry| entry.expect("a readable folder").path());
    let has_greedy_tokens = |folder: &PathBuf| {
        let bytes = fs::read(folder.join("expected.safetensors")).unwrap_or_default();
        SafeTensors::deserialize(&bytes).is_ok_and(|tensors| tensors.tensor("greedy_ids").is_ok())
    };
    folders
        .filter(has_greedy_tokens)
        .map(|folder| folder.file_name().expect("a name").to_string_lossy().into_owned())
        .collect()
}

impl Family {
    fn open(folder: PathBuf, window: Option<usize>, dtype: DType, device: &Device) -> Result<Self, String> {
        let checkpoint = Checkpoint::open(&folder).map_err(text)?;
        let shape = Inspection::new(&checkpoint).map_err(text)?.sizes.attention_shape();
        let model = load_model(&checkpoint, device, dtype, &mut |_, _| {}).map_err(text)?;
        let bytes = fs::read(folder.join("expected.safetensors")).map_err(text)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(text)?;
        let prefill = header.metadata().as_ref().and_then(|metadata| metadata.get("prefill")?.parse().ok());
        let tensors = SafeTensors::deserialize(&bytes).map_err(text)?;
        let ids = |name| ints(&tensors, name).into_iter().map(|id| id as u32).collect();
        Ok(Self {
            folder,
            window,
            shape: shape.ok_or("its configuration does not state the heads")?,
            model,
            ids: ids("input_ids"),
            prefill: prefill.ok_or("its metadata has no number `prefill`")?,
            logits: floats(&tensors, "dense.logits"),
            decode_logits: floats(&tensors, "dense.decode_logits"),
            greedy: ids("greedy_ids"),
        })
    }

    /// An empty state for all tokens of the reference.
    fn state(&self, method: &Method) -> Result<ModelState, String> {
        let config = StateConfig { batch: 1, max_len: self.ids.len(), dtype: DType::F32 };
        ModelState::uniform(self.model.as_ref(), &config, method).map_err(text)
    }
}

/// The largest difference, if it is within [`LOGITS`].
pub(crate) fn close(actual: &[f32], expected: &[f32]) -> Result<f32, String> {
    if actual.len() != expected.len() {
        return Err(format!("{} logits, expected {}", actual.len(), expected.len()));
    }
    let differences = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    // `f32::max` would drop a NaN.
    let worst = differences.fold(0.0, |max: f32, x| if x.is_nan() || x > max { x } else { max });
    if worst <= LOGITS { Ok(worst) } else { Err(format!("largest difference {worst:.1e}")) }
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
