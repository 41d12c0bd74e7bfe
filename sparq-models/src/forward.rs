//! Running a model in steps: any sequences of a state, each with as many new tokens as it has.

use burn::tensor::{Int, Tensor, TensorData};
use sparq_core::NewTokens;

use crate::{
    error::{Error, Result},
    layers::{Phase, Step, StepPart},
    models::CausalModel,
    overflow,
    state::ModelState,
};

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The sequence's slot.
    pub slot: usize,
    /// The tokens. A row without any is legal: its sequence stays as it is.
    pub ids: &'a [u32],
    /// Whether they are a part of a prompt, or decoded with the sequence's method.
    pub phase: Phase,
}

impl<'a> Row<'a> {
    /// A part of the prompt of slot 0, attended densely and causally.
    pub fn prompt(ids: &'a [u32]) -> Self {
        Self { slot: 0, ids, phase: Phase::Prefill }
    }

    /// Tokens of slot 0, decoded one after another with its method.
    pub fn decode(ids: &'a [u32]) -> Self {
        Self { slot: 0, ids, phase: Phase::Decode }
    }

    /// The same tokens in another slot.
    pub fn in_slot(self, slot: usize) -> Self {
        Self { slot, ..self }
    }
}

/// Which logits a step computes. They are a good part of the work in small models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// None: the step is for what it leaves in the state.
    Nothing,
    /// Those of the last token of each row that has tokens.
    Last,
    /// Those of all tokens.
    All,
}

/// Runs new tokens through the model. Rows may be parts of prompts and decode steps side by side; what a row
/// gives does not depend on the others, on the CPU to the bit.
///
/// Returns logits in f32, in the order of the rows: `[rows, vocab]` for [`Want::Last`], `[tokens, vocab]` for
/// [`Want::All`], `None` for [`Want::Nothing`] and where no row has tokens.
///
/// # Errors
/// [`Error::TokenId`] for ids outside of the vocabulary, [`Error::Core`] where a sequence is full, a slot is not
/// there, or is named twice. Nothing has been computed then.
pub fn step(
    model: &dyn CausalModel,
    rows: &[Row<'_>],
    state: &mut ModelState,
    want: Want,
) -> Result<Option<Tensor<2>>> {
    let vocab = model.vocab_size();
    let rows: Vec<&Row<'_>> = rows.iter().filter(|row| !row.ids.is_empty()).collect();
    let ids: Vec<u32> = rows.iter().flat_map(|row| row.ids.iter().copied()).collect();
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(Error::TokenId { id, vocab });
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let slots: Vec<usize> = rows.iter().map(|row| row.slot).collect();
    NewTokens::all(rows.len(), 1).in_slots(&slots)?;
    let (mut parts, mut positions, mut lens) = (vec![], vec![], vec![]);
    for alike in rows.chunk_by(|a, b| (a.phase, a.ids.len()) == (b.phase, b.ids.len())) {
        let (width, slots) = (alike[0].ids.len(), alike.iter().map(|row| row.slot).collect::<Vec<_>>());
        let plan = state.plan(&NewTokens::all(alike.len(), width).in_slots(&slots)?)?;
        lens.extend(state.text_lens(&plan).into_iter().flat_map(|len| std::iter::repeat_n(len, width)));
        let first = positions.len();
        positions.extend(plan.positions());
        parts.push(StepPart { phase: alike[0].phase, tokens: first..positions.len(), plan });
    }
    let step = Step { parts, rotations: model.rotations(&positions, &lens) };
    let hidden = model.hidden(&ids, state, &step)?;
    Ok(match want {
        Want::Nothing => None,
        Want::Last => Some(model.logits(last(hidden, &rows))),
        Want::All => Some(model.logits(hidden)),
    })
}

/// Hidden states `[rows, hidden]` of the rows' last tokens.
fn last(hidden: Tensor<2>, rows: &[&Row<'_>]) -> Tensor<2> {
    let [tokens, _] = hidden.dims();
    match rows.len() {
        1 => hidden.narrow(0, tokens - 1, 1),
        count if count == tokens => hidden,
        count => {
            let mut end = 0;
            let ends = rows.iter().map(|row| {
                end += row.ids.len();
                end as i64 - 1
            });
            let ends = TensorData::new(ends.collect::<Vec<_>>(), [count]);
            let ends = Tensor::<1, Int>::from_data(ends, &hidden.device());
            hidden.select(0, ends)
        }
    }
}

/// Reads logits back, row-major; none where a step gave none.
///
/// # Errors
/// [`Error::ReadBack`] where the device fails.
pub fn read(logits: Option<Tensor<2>>) -> Result<Vec<f32>> {
    let values = logits.map(|logits| logits.into_data().try_to_vec()).transpose();
    Ok(values.map_err(|error| Error::ReadBack { message: format!("{error:?}") })?.unwrap_or_default())
}

/// [`read`] for choosing a token: the logits that the last step of `state` gave.
///
/// # Errors
/// As [`read`], and [`Error::Overflow`] where one of them is not a number or infinite, or none is finite:
/// with the first layer and token whose numbers overflowed.
pub fn read_finite(logits: Option<Tensor<2>>, state: &ModelState) -> Result<Vec<f32>> {
    let logits = read(logits)?;
    // Minus infinity excludes a token.
    let is_bad = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    let excludes_all = logits.iter().all(|&logit| logit == f32::NEG_INFINITY);
    match excludes_all || logits.iter().fold(false, |bad, &logit| bad | is_bad(logit)) {
        true => Err(overflow::error(state)),
        false => Ok(logits),
    }
}
