//! Top-k of the exact attention weights: FlexGen's sparse attention, and the oracle that other
//! methods are measured against.

use burn::tensor::{Tensor, activation::softmax};
use serde::{Deserialize, Serialize};

use super::{DecodeMethod, Decoded, Dense, MethodKind, Selection, check, parts};
use crate::{cache::CachedSequence, error::Result, ops};

/// Sizes of [`Topk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopkConfig {
    /// `k`: positions that are kept; no position is forced.
    pub top_k: usize,
}

/// What happens to the weights of the positions that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// They count as zero: the kept weights sum to less than one.
    Dropped,
    /// The kept weights are scaled to sum to one.
    Renormalised,
}

/// Reads all keys, computes the exact weights, and keeps the `top_k` positions that hold most of a
/// group's weight.
#[derive(Debug, Clone, Copy)]
pub struct Topk {
    config: TopkConfig,
    rest: Rest,
}

impl Topk {
    /// FlexGen's sparse attention (Sheng et al., 2023): all keys are read, `top_k` values; the kept
    /// weights are not renormalised. It moves at least half of what dense attention moves.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] where `top_k` is 0.
    pub fn exact(config: TopkConfig) -> Result<Self> {
        check::at_least_one("top_k", config.top_k)?;
        Ok(Self { config, rest: Rest::Dropped })
    }

    /// The best that any method can do which keeps the same `top_k` positions for a group: chosen by
    /// the exact weights, then renormalised. Its transfers count `top_k` keys and values only, as if
    /// the choice came for free: it is a bound, not a way to save bytes.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] where `top_k` is 0.
    pub fn oracle(config: TopkConfig) -> Result<Self> {
        check::at_least_one("top_k", config.top_k)?;
        Ok(Self { config, rest: Rest::Renormalised })
    }
}

impl DecodeMethod for Topk {
    fn name(&self) -> &'static str {
        match self.rest {
            Rest::Dropped => MethodKind::ExactTopk.name(),
            Rest::Renormalised => MethodKind::OracleTopk.name(),
        }
    }

    fn truncate(&mut self, _sequence: &CachedSequence<'_>) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        let spans = sequence.spans();
        if spans.max_len() <= self.config.top_k {
            return Dense.decode(q, sequence);
        }
        ops::check_queries(&q, sequence.layer().shape, [1, 1])?;
        let q = parts::grouped(q, &sequence.layer().shape);
        let weights = softmax(parts::exact_logits(q.clone(), sequence)?, 3);
        let of_group = parts::sum_group(parts::mask_dead(weights.clone(), &spans));
        let positions = parts::live_only(parts::top(of_group, self.config.top_k)?, &spans);
        let kept = parts::at(weights, &positions);
        let [_, _, _, width] = kept.dims();
        let filler = positions.clone().lower_elem(0).unsqueeze_dim::<4>(2).expand(kept.dims());
        let kept = kept.mask_fill(filler, 0.0);
        let mass = kept.clone().sum_dim(3);
        let kept = match self.rest {
            Rest::Dropped => kept,
            Rest::Renormalised => kept / mass.clone().repeat_dim(3, width),
        };
        let count = parts::kept(&spans, self.config.top_k);
        let keys = match self.rest {
            Rest::Dropped => parts::live(&spans),
            Rest::Renormalised => count,
        };
        Ok(Decoded {
            output: parts::weigh(kept.clone(), sequence, &positions)?,
            transfer: parts::rows_transfer(sequence, keys, count),
            selection: Some(Selection {
                positions,
                masses: Some(parts::by_head(mass)),
                weights: Some(parts::by_head(kept)),
            }),
        })
    }
}
