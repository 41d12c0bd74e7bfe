//! Checking a model against reference logits.
//!
//! A reference file is a safetensors file with `input_ids [1, P + N]`, metadata `prefill` = P and
//! `decode_steps` = N, `dense.logits [1, N + 1, V]` (positions P − 1 … P + N − 1 of one uncached
//! pass) and `<method>.decode_logits [1, N, V]` (tokens P … P + N − 1 fed one at a time after a
//! dense prefill of the first P).
//!
//! Methods: `dense`; `sparq_k<k>_l<local_k>_r<rank>_<mean|nomean>` and `h2o_k<k>_l<local_k>`, counted
//! as the authors' code does, the current token apart (see [`SparqConfig`]); `exact_topk_k<k>`;
//! `local_k<k>_i<initial_k>`. Other names are listed as not built.
//!
//! Where positions have the same approximate score and only some of them can be kept, the reference
//! file holds the outcome of PyTorch's choice. SparQ runs make the same choice in those selections
//! and count them.

mod ties;
mod torch_order;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::tensor::DType;
use safetensors::{Dtype, SafeTensors};
use sparq_core::{AttentionShape, H2oConfig, LayerState, LocalConfig, Method, SparqConfig, TopkConfig};

use crate::{
    error::{Error, Result},
    forward::{self, Row, Want},
    models::CausalModel,
    state::{ModelState, StateConfig},
};
use ties::TiesAsPytorch;

/// Agreement of one method's logits with the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Name of the tensor in the file, such as `dense.logits`.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Outcome for one tensor of a reference file.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The method ran.
    Compared {
        /// Largest absolute difference of any logit; NaN where one is not a number.
        max_difference: f32,
        /// Positions where both choose the same most likely token.
        agreeing: usize,
        /// Positions compared.
        positions: usize,
        /// Selections whose ties were settled as PyTorch settles them.
        ties: usize,
    },
    /// This build has no such method.
    NotBuilt,
}

impl Comparison {
    /// True unless the method ran and some logit lies further off than `tolerance`.
    pub fn passes(&self, tolerance: f32) -> bool {
        match self.outcome {
            // A NaN does not pass.
            Outcome::Compared { max_difference, .. } => max_difference <= tolerance,
            Outcome::NotBuilt => true,
        }
    }
}

/// The contents of a reference file.
#[derive(Debug)]
struct Reference {
    ids: Vec<u32>,
    prefill: usize,
    /// Name and values of each `*.logits` and `*.decode_logits`, by name.
    logits: Vec<(String, Vec<f32>)>,
}

/// Runs every method that the file names and this build has; `dtype` is that of the KV cache.
///
/// # Errors
/// [`Error::Reference`] for a file of another form, errors of the model.
pub fn verify(model: &dyn CausalModel, dtype: DType, file: &Path) -> Result<Vec<Comparison>> {
    let reference = Reference::read(file, model.vocab_size())?;
    let layers = model.attention_layers();
    let method = |name: &str| layers.first().and_then(|layer| method(name, &layer.shape));
    let run = |name: &str| -> Result<Option<(Vec<f32>, usize)>> {
        Ok(match name {
            "dense.logits" => Some((uncached(model, dtype, &reference)?, 0)),
            _ => match method(name) {
                Some(method) => Some(cached(model, dtype, &reference, &method)?),
                None => None,
            },
        })
    };
    let compare = |(name, expected): &(String, Vec<f32>)| {
        let in_file = |error| Error::InFile {
            path: file.to_owned(),
            place: format!("`{name}`"),
            source: Box::new(error),
        };
        let actual = run(name).map_err(in_file)?;
        let outcome = actual
            .map_or(Outcome::NotBuilt, |(actual, ties)| outcome(&actual, expected, model.vocab_size(), ties));
        Ok(Comparison { name: name.clone(), outcome })
    };
    reference.logits.iter().map(compare).collect()
}

/// The method that `<method>.decode_logits` asks for, if this build has it.
fn method(name: &str, shape: &AttentionShape) -> Option<Method> {
    let name = name.strip_suffix(".decode_logits")?;
    if name == "dense" {
        return Some(Method::Dense);
    }
    let number = |part: &str, prefix| part.strip_prefix(prefix)?.parse::<usize>().ok();
    // Where the authors' code counts the current token apart, one more is counted here.
    let parts: Vec<&str> = name.split('_').collect();
    Some(match parts[..] {
        ["sparq", k, local_k, rank, mean] => Method::Sparq(SparqConfig {
            local_window: number(local_k, 'l')?.checked_add(1)?,
            mean_value: match mean {
                "mean" => true,
                "nomean" => false,
                _ => return None,
            },
            ..SparqConfig::new(shape, number(rank, 'r')?, number(k, 'k')?.checked_add(1)?)
        }),
        ["exact", "topk", k] => Method::ExactTopk(TopkConfig { top_k: number(k, 'k')? }),
        ["local", k, initial_k] => {
            Method::Local(LocalConfig { top_k: number(k, 'k')?, initial: number(initial_k, 'i')? })
        }
        ["h2o", k, local_k] => Method::H2o(H2oConfig {
            top_k: number(k, 'k')?.checked_add(1)?,
            local_window: number(local_k, 'l')?.checked_add(1)?,
        }),
        _ => return None,
    })
}

/// Logits of positions P − 1 … P + N − 1 in one pass.
fn uncached(model: &dyn CausalModel, dtype: DType, reference: &Reference) -> Result<Vec<f32>> {
    let len = reference.ids.len();
    let mut state =
        ModelState::uniform(model, &StateConfig { batch: 1, max_len: len, dtype }, &Method::Dense)?;
    let logits = forward::step(model, &[Row::prompt(&reference.ids)], &mut state, Want::All)?;
    let first = reference.prefill - 1;
    forward::read(logits.map(|logits| logits.narrow(0, first, len - first)))
}

/// Logits after each of the tokens P … P + N − 1, one at a time, and the selections whose ties were
/// settled.
fn cached(
    model: &dyn CausalModel,
    dtype: DType,
    reference: &Reference,
    method: &Method,
) -> Result<(Vec<f32>, usize)> {
    let (prompt, rest) = reference.ids.split_at(reference.prefill);
    let config = StateConfig { batch: 1, max_len: reference.ids.len(), dtype };
    let mut state = ModelState::uniform(model, &config, method)?;
    let ties = Arc::new(AtomicUsize::new(0));
    if let Method::Sparq(sparq) = method {
        for layer in state.layers_mut() {
            let cache = *layer.cache().config();
            let settling = |_| Ok(Box::new(TiesAsPytorch::new(*sparq, cache.layer.shape, &ties)?) as _);
            *layer = LayerState::with_methods(&cache, settling, model.device())?;
        }
    }
    forward::step(model, &[Row::prompt(prompt)], &mut state, Want::Nothing)?;
    let mut logits = vec![];
    for &id in rest {
        logits.extend(forward::read(forward::step(model, &[Row::decode(&[id])], &mut state, Want::Last)?)?);
    }
    Ok((logits, ties.load(Ordering::Relaxed)))
}

fn outcome(actual: &[f32], expected: &[f32], vocab: usize, ties: usize) -> Outcome {
    let difference = |(a, e): (&f32, &f32)| (a - e).abs();
    // `f32::max` would drop a NaN.
    let larger = |max: f32, x: f32| if x.is_nan() || x > max { x } else { max };
    let rows = || actual.chunks(vocab).zip(expected.chunks(vocab));
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    Outcome::Compared {
        max_difference: actual.iter().zip(expected).map(difference).fold(0.0, larger),
        agreeing: rows().filter(|(a, e)| best(a) == best(e)).count(),
        positions: rows().count(),
        ties,
    }
}

impl Reference {
    fn read(file: &Path, vocab: usize) -> Result<Self> {
        let bad = |message: String| Error::Reference { path: file.to_owned(), message };
        let bytes = fs::read(file).map_err(|source| Error::Io { path: file.to_owned(), source })?;
        let form = |error| bad(format!("not a safetensors file: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(form)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(form)?;
        let number = |key: &str| {
            let text = header.metadata().as_ref().and_then(|metadata| metadata.get(key));
            text.and_then(|text| text.parse::<usize>().ok())
                .ok_or_else(|| bad(format!("its metadata has no number `{key}`")))
        };
        let (prefill, steps) = (number("prefill")?, number("decode_steps")?);
        let ids = tensors.tensor("input_ids").map_err(|_| bad("it has no tensor `input_ids`".into()))?;
        let len = prefill.checked_add(steps).filter(|_| prefill > 0);
        if ids.dtype() != Dtype::I32 || len.is_none_or(|len| ids.shape() != [1, len]) {
            let (dtype, shape) = (ids.dtype(), ids.shape());
            return Err(bad(format!(
                "`input_ids` is {dtype:?} {shape:?}, expected I32 [1, {prefill} + {steps}] with a prefill of at \
                 least 1"
            )));
        }
        let ids: Vec<i32> = words(ids.data()).map(i32::from_le_bytes).collect();
        if let Some(id) = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab)) {
            return Err(bad(format!(
                "`input_ids` holds token {id}, outside of the model's vocabulary of {vocab}"
            )));
        }
        let ids = ids.into_iter().map(|id| id as u32).collect();
        let mut logits = vec![];
        let mut names: Vec<&str> =
            tensors.names().into_iter().filter(|name| name.ends_with("logits")).collect();
        names.sort_unstable();
        for name in names {
            let view = tensors.tensor(name).map_err(form)?;
            let positions = if name.ends_with(".decode_logits") { steps } else { steps + 1 };
            let expected = [1, positions, vocab];
            if view.dtype() != Dtype::F32 || view.shape() != expected {
                let (dtype, shape) = (view.dtype(), view.shape());
                return Err(bad(format!("`{name}` is {dtype:?} {shape:?}, expected F32 {expected:?}")));
            }
            logits.push((name.to_owned(), words(view.data()).map(f32::from_le_bytes).collect()));
        }
        if logits.is_empty() {
            return Err(bad("it has no `dense.logits` and no `<method>.decode_logits`".into()));
        }
        Ok(Self { ids, prefill, logits })
    }
}

/// The little-endian words of a tensor's data.
fn words(data: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    data.as_chunks::<4>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_reference_files_are_read() {
        let shape = AttentionShape { heads: 2, kv_heads: 2, head_dim: 16 };
        let method = |name| method(name, &shape);
        let Some(Method::Sparq(config)) = method("sparq_k16_l4_r8_nomean.decode_logits") else {
            panic!("a SparQ method");
        };
        assert_eq!((config.top_k, config.local_window, config.rank, config.mean_value), (17, 5, 8, false));
        assert_eq!(method("dense.decode_logits"), Some(Method::Dense));
        let h2o = H2oConfig { top_k: 25, local_window: 7 };
        assert_eq!(method("h2o_k24_l6.decode_logits"), Some(Method::H2o(h2o)));
        let local = LocalConfig { top_k: 24, initial: 4 };
        assert_eq!(method("local_k24_i4.decode_logits"), Some(Method::Local(local)));
        let exact = TopkConfig { top_k: 16 };
        assert_eq!(method("exact_topk_k16.decode_logits"), Some(Method::ExactTopk(exact)));
        for other in ["snapkv_k24.decode_logits", "local_k24.decode_logits", "sparq_k1_l1.decode_logits"] {
            assert_eq!(method(other), None);
        }
    }

    #[test]
    fn a_nan_fails_and_ties_of_the_best_token_are_counted() {
        let compared = |actual: &[f32]| Comparison {
            name: String::new(),
            outcome: outcome(actual, &[0.0, 1.0, 2.0, 0.0], 2, 0),
        };
        assert!(!compared(&[0.0, f32::NAN, 2.0, 0.0]).passes(1e9));
        let off = compared(&[0.0, 1.0, 0.0, 0.5]);
        assert_eq!(
            off.outcome,
            Outcome::Compared { max_difference: 2.0, agreeing: 1, positions: 2, ties: 0 }
        );
        assert!(!off.passes(1.0) && off.passes(2.0));
    }
}
