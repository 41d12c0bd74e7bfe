//! Finding what Double Sparsity fixes beforehand: the label channels of each layer.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};
use sparq_core::{
    CachedSequence, DecodeMethod, Decoded, Method, PromptChunk,
    method::{ChannelStatistics, Dense},
};

use crate::{
    error::{Error, Result},
    forward::{self, Row, Want},
    models::CausalModel,
    state::{ModelState, StateConfig},
};

/// Prompt tokens that go through the model at once.
const PREFILL_CHUNK: usize = 512;

/// For each layer and KV head the key components, those that contribute most to the scores of a text
/// first: what [`sparq_core::DoubleSparsityConfig::channels`] takes. The text goes through the model in
/// windows of `window` tokens, each on its own.
///
/// # Errors
/// [`Error::EmptyPrompt`] for a text without tokens, errors of the model.
pub fn label_channels(
    model: &dyn CausalModel,
    dtype: DType,
    ids: &[u32],
    window: usize,
    done: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Vec<Vec<usize>>>> {
    if ids.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    let layers = model.attention_layers().len();
    let statistics: Vec<Shared> = (0..layers).map(|_| Shared::default()).collect();
    let windows = ids.chunks(window.max(1));
    let total = windows.len();
    for (index, ids) in windows.enumerate() {
        let config = StateConfig { batch: 1, max_len: ids.len(), dtype };
        let mut state = ModelState::with_methods(model, &config, |layer, _, _| {
            Ok(Box::new(Watch { statistics: statistics[layer].clone() }))
        })?;
        state.expect(ids.len());
        for chunk in ids.chunks(PREFILL_CHUNK) {
            forward::step(model, &[Row::prompt(chunk)], &mut state, Want::Nothing)?;
        }
        done(index + 1, total);
    }
    let channels = |shared: &Shared| -> Result<_> {
        Ok(shared.lock().unwrap_or_else(PoisonError::into_inner).channels()?)
    };
    statistics.iter().map(channels).collect()
}

/// `method` with the channels of a layer, where it is Double Sparsity.
pub fn with_channels(method: Method, channels: &[Vec<usize>]) -> Method {
    match method {
        Method::DoubleSparsity(mut config) => {
            config.channels =
                channels.iter().map(|head| head[..config.rank.min(head.len())].to_vec()).collect();
            Method::DoubleSparsity(config)
        }
        other => other,
    }
}

type Shared = Arc<Mutex<ChannelStatistics>>;

/// Dense attention that watches the prefill.
#[derive(Debug)]
struct Watch {
    statistics: Shared,
}

impl DecodeMethod for Watch {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn observe_prefill(
        &mut self,
        chunk: &PromptChunk<'_>,
        sequence: &CachedSequence<'_>,
    ) -> sparq_core::Result<()> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner).observe(chunk, sequence)
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> sparq_core::Result<Decoded> {
        Dense.decode(q, sequence)
    }
}
