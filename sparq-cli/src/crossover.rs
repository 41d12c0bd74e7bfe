//! `--dense-below auto`.

use burn::tensor::DType;
use sparq_core::Method;
use sparq_models::{
    attention::{Attention, MethodName, MethodSpec},
    crossover::Crossovers,
    models::CausalModel,
};

/// Lets SparQ attend densely to contexts in which dense attention is faster on this device, in runs up
/// to `seq_len` tokens: measured on first use, within a second. Other methods stay as they are.
///
/// The layers that see the most decide for all: shorter ones have shorter contexts.
pub(crate) fn settle(
    attention: Attention,
    model: &dyn CausalModel,
    dtype: DType,
    seq_len: usize,
) -> sparq_models::Result<Attention> {
    match attention {
        Attention::DenseFirst { layers, rest } => {
            Ok(Attention::DenseFirst { layers, rest: Box::new(settle(*rest, model, dtype, seq_len)?) })
        }
        Attention::Method(spec) if spec.name == MethodName::Sparq && spec.dense_below.is_none() => {
            let dense_below = dense_below(&spec, model, dtype, seq_len)?;
            Ok(Attention::Method(MethodSpec { dense_below, ..spec }))
        }
        other => Ok(other),
    }
}

/// The measured length; `None` for a model without attention.
fn dense_below(
    spec: &MethodSpec,
    model: &dyn CausalModel,
    dtype: DType,
    seq_len: usize,
) -> sparq_models::Result<Option<usize>> {
    let layers = model.attention_layers();
    let widest = layers.iter().max_by_key(|layer| layer.window.unwrap_or(usize::MAX));
    let Some(layer) = widest else { return Ok(None) };
    // A power of two, so that runs of all lengths share few measurements.
    let seq_len = seq_len.next_power_of_two().min(model.max_position_embeddings());
    let Method::Sparq(config) = Attention::Method(spec.clone()).resolve(layer, seq_len)? else {
        return Ok(None);
    };
    let crossover = Crossovers::of_user().find(layer, &config, model.device(), dtype)?;
    Ok(Some(crossover.dense_below()))
}
