//! Running a model: prompts in chunks, then one token at a time.

use burn::tensor::Tensor;
use sparq_core::NewTokens;

use crate::{
    error::{Error, Result},
    layers::{Phase, Step},
    models::CausalModel,
    overflow,
    state::ModelState,
};

/// Runs `ids: [batch, width]` (row-major, columns outside of `new` are padding) through the model,
/// densely and causally. Returns logits `[batch · width, vocab]` in f32.
///
/// # Errors
/// [`Error::TokenId`] for ids outside of the vocabulary, [`Error::Core`] where the state is full.
pub fn prefill_logits(
    model: &dyn CausalModel,
    ids: &[u32],
    new: &NewTokens,
    state: &mut ModelState,
) -> Result<Tensor<2>> {
    let hidden = hidden(model, ids, new, state, Phase::Prefill)?;
    Ok(model.logits(hidden))
}

/// Like [`prefill_logits`] for one sequence, but computes logits of the last token only:
/// `[1, vocab]`. An empty prompt is an error.
///
/// # Errors
/// As [`prefill_logits`], and [`Error::EmptyPrompt`].
pub fn prefill_last(model: &dyn CausalModel, ids: &[u32], state: &mut ModelState) -> Result<Tensor<2>> {
    let last = ids.len().checked_sub(1).ok_or(Error::EmptyPrompt)?;
    let hidden = hidden(model, ids, &NewTokens::all(1, ids.len()), state, Phase::Prefill)?;
    Ok(model.logits(hidden.narrow(0, last, 1)))
}

/// Runs a chunk of one sequence's prompt through the model for what it leaves in the state.
///
/// # Errors
/// As [`prefill_logits`].
pub fn prefill(model: &dyn CausalModel, ids: &[u32], state: &mut ModelState) -> Result<()> {
    hidden(model, ids, &NewTokens::all(1, ids.len()), state, Phase::Prefill)?;
    Ok(())
}

/// Like [`prefill`] for a batch of sequences, as [`prefill_logits`] takes it.
///
/// # Errors
/// As [`prefill_logits`].
pub fn prefill_batch(
    model: &dyn CausalModel,
    ids: &[u32],
    new: &NewTokens,
    state: &mut ModelState,
) -> Result<()> {
    hidden(model, ids, new, state, Phase::Prefill)?;
    Ok(())
}

/// Decodes one token per sequence with the state's method: `ids: [batch]` to logits
/// `[batch, vocab]` in f32.
///
/// # Errors
/// As [`prefill_logits`].
pub fn decode(model: &dyn CausalModel, ids: &[u32], state: &mut ModelState) -> Result<Tensor<2>> {
    let hidden = hidden(model, ids, &NewTokens::all(ids.len(), 1), state, Phase::Decode)?;
    Ok(model.logits(hidden))
}

/// [`decode`] for what it leaves in the state, where nobody asks what comes next: the logits are a good
/// part of the work in small models.
///
/// # Errors
/// As [`prefill_logits`].
pub fn feed(model: &dyn CausalModel, ids: &[u32], state: &mut ModelState) -> Result<()> {
    hidden(model, ids, &NewTokens::all(ids.len(), 1), state, Phase::Decode)?;
    Ok(())
}

/// Reads logits back, row-major.
///
/// # Errors
/// [`Error::ReadBack`] where the device fails.
pub fn read(logits: Tensor<2>) -> Result<Vec<f32>> {
    logits.into_data().try_to_vec().map_err(|error| Error::ReadBack { message: format!("{error:?}") })
}

/// [`read`] for choosing a token: the logits that the last step of `state` gave.
///
/// # Errors
/// As [`read`], and [`Error::Overflow`] where one of them is not a number or infinite, or none is finite:
/// with the first layer and token whose numbers overflowed.
pub fn read_finite(logits: Tensor<2>, state: &ModelState) -> Result<Vec<f32>> {
    let logits = read(logits)?;
    // Minus infinity excludes a token.
    let is_bad = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    let excludes_all = logits.iter().all(|&logit| logit == f32::NEG_INFINITY);
    match excludes_all || logits.iter().fold(false, |bad, &logit| bad | is_bad(logit)) {
        true => Err(overflow::error(state)),
        false => Ok(logits),
    }
}

fn hidden(
    model: &dyn CausalModel,
    ids: &[u32],
    new: &NewTokens,
    state: &mut ModelState,
    phase: Phase,
) -> Result<Tensor<2>> {
    let vocab = model.vocab_size();
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(Error::TokenId { id, vocab });
    }
    let plan = state.plan(new)?;
    let rotations = model.rotations(&plan.positions(), &state.text_lens(&plan));
    model.hidden(ids, state, &Step { phase, plan, rotations })
}
