//! `--dense-below auto`.

use burn::tensor::DType;
use sparq_core::Method;
use sparq_models::{
    attention::{Attention, MethodName, MethodSpec},
    crossover::{Crossover, Crossovers},
    models::CausalModel,
};

use crate::room;

/// The part of the free memory that a measurement may take.
const PART: u64 = 4;
/// Bytes that it may take where it is not known how many are free.
const MEMORY: u64 = 256 << 20;

/// Where the length below which a run attends densely comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Known {
    /// From the user; or the method has no such length.
    #[default]
    Stated,
    /// From a measurement.
    Found(Crossover),
    /// From nowhere, so that it is 0: why nothing was measured.
    NotMeasured(String),
}

/// Lets SparQ attend densely to contexts in which dense attention is faster on this device, in runs up
/// to `seq_len` tokens: measured on first use, within a second. Other methods stay as they are.
///
/// The layers that see the most decide for all: shorter ones have shorter contexts.
pub(crate) fn settle(
    attention: Attention,
    model: &dyn CausalModel,
    dtype: DType,
    seq_len: usize,
) -> sparq_models::Result<(Attention, Known)> {
    match attention {
        Attention::DenseFirst { layers, rest } => {
            let (rest, known) = settle(*rest, model, dtype, seq_len)?;
            Ok((Attention::DenseFirst { layers, rest: Box::new(rest) }, known))
        }
        Attention::Method(spec) if spec.name == MethodName::Sparq && spec.dense_below.is_none() => {
            let known = find(&spec, model, dtype, seq_len)?;
            let dense_below = match &known {
                Known::Stated => None,
                Known::Found(crossover) => Some(crossover.tokens),
                Known::NotMeasured(_) => Some(0),
            };
            Ok((Attention::Method(MethodSpec { dense_below, ..spec }), known))
        }
        other => Ok((other, Known::Stated)),
    }
}

/// The measured length; nothing for a model without attention.
fn find(
    spec: &MethodSpec,
    model: &dyn CausalModel,
    dtype: DType,
    seq_len: usize,
) -> sparq_models::Result<Known> {
    let layers = model.attention_layers();
    let widest = layers.iter().max_by_key(|layer| layer.window.unwrap_or(usize::MAX));
    let Some(layer) = widest else { return Ok(Known::Stated) };
    // A power of two, so that runs of all lengths share few measurements.
    let seq_len = seq_len.checked_next_power_of_two().unwrap_or(seq_len);
    let seq_len = seq_len.min(model.max_position_embeddings());
    let Method::Sparq(config) = Attention::Method(spec.clone()).resolve(layer, seq_len)? else {
        return Ok(Known::Stated);
    };
    let memory = room::free(model.device()).map_or(MEMORY, |free| free / PART);
    Ok(match Crossovers::of_user().find(layer, &config, model.device(), dtype, memory) {
        Ok(Some(crossover)) => Known::Found(crossover),
        Ok(None) => Known::NotMeasured("too little memory is free".to_owned()),
        // A run that fails for the same reason says so itself.
        Err(error) => Known::NotMeasured(error.to_string()),
    })
}
