//! `--dense-below auto`.

use burn::tensor::DType;
use sparq_models::{
    attention::{Attention, MethodSpec, SparqOptions},
    core::Method,
    crossover::Crossovers,
    models::CausalModel,
};

/// Lets SparQ attend densely to contexts in which dense attention is faster on this device, in runs up
/// to `seq_len` tokens: measured on first use, within a second.
///
/// The layers that see the most decide for all: shorter ones have shorter contexts.
pub(crate) fn settle(
    attention: Attention,
    model: &dyn CausalModel,
    dtype: DType,
    seq_len: usize,
) -> sparq_models::Result<Attention> {
    if let Attention::DenseFirst { layers, rest } = attention {
        return Ok(Attention::DenseFirst { layers, rest: Box::new(settle(*rest, model, dtype, seq_len)?) });
    }
    let layers = model.attention_layers();
    let widest = layers.iter().max_by_key(|layer| layer.window.unwrap_or(usize::MAX));
    let Some(layer) = widest else {
        return Ok(attention);
    };
    // A power of two, so that runs of all lengths share few measurements.
    let seq_len = seq_len.next_power_of_two().min(model.max_position_embeddings());
    let is_open = match &attention {
        Attention::Sparq(_) => true,
        Attention::Method(spec) => spec.dense_below.is_none(),
        _ => false,
    };
    let Some(Method::Sparq(config)) = is_open.then(|| attention.resolve(layer, seq_len)).transpose()? else {
        return Ok(attention);
    };
    let dense_below = Crossovers::of_user().find(layer, &config, model.device(), dtype)?.dense_below();
    Ok(match attention {
        Attention::Sparq(options) => Attention::Sparq(SparqOptions { dense_below, ..options }),
        Attention::Method(spec) => Attention::Method(MethodSpec { dense_below: Some(dense_below), ..spec }),
        other => other,
    })
}
