//! `--dense-below auto`.

use burn::tensor::DType;
use sparq_models::{attention::Attention, crossover::Crossovers, models::CausalModel};

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
    let layers = model.attention_layers();
    let widest = layers.iter().max_by_key(|layer| layer.window.unwrap_or(usize::MAX));
    let (Attention::Sparq(options), Some(layer)) = (&attention, widest) else {
        return Ok(attention);
    };
    // A power of two, so that runs of all lengths share few measurements.
    let seq_len = seq_len.next_power_of_two().min(model.max_position_embeddings());
    let live = layer.window.map_or(seq_len, |window| window.min(seq_len));
    let config = options.resolve(&layer.shape, live)?;
    let crossover = Crossovers::of_user().find(layer, &config, model.device(), dtype)?;
    Ok(Attention::Sparq(sparq_models::attention::SparqOptions {
        dense_below: crossover.dense_below(),
        ..*options
    }))
}
