//! From where on a run decodes with SparQ.

use sparq_core::{Method, MethodKind};

use super::{Crossover, Crossovers};
use crate::{
    attention::{AttentionPlan, DenseBelow, MethodSpec, SpecKeys, widest},
    error::Result,
    text_model::TextModel,
};

/// Bytes that a measurement may take where nobody says how many.
pub const MEMORY: u64 = 256 << 20;

/// Where the length below which a run attends densely comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Verdict {
    /// It was stated; or the method has no such length.
    #[default]
    Stated,
    /// It was measured.
    Found(Crossover),
    /// Nothing could be measured, so it is 0: the reason.
    NotMeasured(String),
}

/// The plan with a number of tokens below which SparQ attends densely, for runs up to `seq_len` tokens of
/// `model`. Where it states one, or where the method is not `sparq`, the plan stays as it is. Else the length
/// from which on SparQ is faster is taken from [`Crossovers::of_user`], and measured on first use, within a
/// second and `memory` bytes.
///
/// The layers that see the most decide for all: shorter ones have shorter contexts. The entries of a profile
/// stay as they are.
///
/// # Errors
/// As [`MethodSpec::resolve`].
pub fn settle(
    plan: &AttentionPlan,
    model: &TextModel,
    seq_len: usize,
    memory: u64,
) -> Result<(AttentionPlan, Verdict)> {
    settle_by(Crossovers::of_user, plan, model, seq_len, memory)
}

/// As [`settle`], by crossovers of one's own.
pub(super) fn settle_by(
    crossovers: impl FnOnce() -> Crossovers,
    plan: &AttentionPlan,
    model: &TextModel,
    seq_len: usize,
    memory: u64,
) -> Result<(AttentionPlan, Verdict)> {
    let AttentionPlan::Method { spec, dense_layers } = plan else {
        return Ok((plan.clone(), Verdict::Stated));
    };
    let is_stated = matches!(spec.keys.dense_below, Some(DenseBelow::Tokens(_)));
    if is_stated || spec.kind != MethodKind::Sparq {
        return Ok((plan.clone(), Verdict::Stated));
    }
    let with = |dense_below| MethodSpec { keys: SpecKeys { dense_below, ..spec.keys }, ..*spec };
    let verdict = find(crossovers, &with(None), model, seq_len, memory)?;
    let tokens = match &verdict {
        Verdict::Found(crossover) => crossover.tokens,
        Verdict::NotMeasured(_) | Verdict::Stated => 0,
    };
    let spec = with(Some(DenseBelow::Tokens(tokens)));
    Ok((AttentionPlan::Method { spec, dense_layers: *dense_layers }, verdict))
}

/// The measured length; nothing for a model without attention.
fn find(
    crossovers: impl FnOnce() -> Crossovers,
    spec: &MethodSpec,
    model: &TextModel,
    seq_len: usize,
    memory: u64,
) -> Result<Verdict> {
    let (model, dtype) = (model.model(), model.dtype());
    let layers = model.attention_layers();
    let Some(layer) = widest(&layers).map(|widest| &layers[widest]) else { return Ok(Verdict::Stated) };
    // A power of two, so that runs of all lengths share few measurements.
    let seq_len = seq_len.checked_next_power_of_two().unwrap_or(seq_len);
    let seq_len = seq_len.min(model.max_position_embeddings());
    let Method::Sparq(config) = spec.resolve(layer, seq_len)? else { return Ok(Verdict::Stated) };
    Ok(match crossovers().find(layer, &config, model.device(), dtype, memory) {
        Ok(Some(crossover)) => Verdict::Found(crossover),
        Ok(None) => Verdict::NotMeasured("too little memory is free".to_owned()),
        // A run that fails for the same reason says so itself.
        Err(error) => Verdict::NotMeasured(error.to_string()),
    })
}
