//! SparQ attention with a mass budget: as many positions as hold a stated part of the attention.

use burn::{
    backend::Dispatch,
    tensor::{Int, Tensor, activation::softmax},
};
use serde::{Deserialize, Serialize};

use super::{DecodeMethod, Decoded, Dense, MethodKind, Selection, check, parts};
use crate::{
    cache::{CacheExtras, CachedSequence},
    config::{AttentionShape, GroupScores, SparqConfig},
    error::Result,
    k_t::QuantizedKt,
    ops::{self, oracle},
    transfer::{Part, Transfer},
};

/// Hyper-parameters of [`SparqMass`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SparqMassConfig {
    /// SparQ's own; `top_k` is the most that a step keeps.
    pub sparq: SparqConfig,
    /// `p`: part of the approximate attention mass that the kept positions must reach, in (0, 1].
    pub mass: f32,
}

/// SparQ attention that keeps, for each KV head, the shortest run of best positions whose approximate
/// mass α reaches `p` for every query head of the group: top-p on SparQ's scores, as Twilight (Lin et
/// al., 2025) does on others. At most `top_k` positions are kept; the local window always is.
#[derive(Debug, Clone, Copy)]
pub struct SparqMass {
    config: SparqMassConfig,
}

impl SparqMass {
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for hyper-parameters out of range.
    pub fn new(config: SparqMassConfig, shape: &AttentionShape) -> Result<Self> {
        shape.validate()?;
        config.sparq.validate(shape.head_dim)?;
        if !(config.mass > 0.0 && config.mass <= 1.0) {
            return check::refuse("mass", config.mass, "it must lie above 0 and at most at 1".into());
        }
        Ok(Self { config })
    }

    fn runs_dense(&self, longest: usize) -> bool {
        let SparqMassConfig { sparq, mass } = self.config;
        longest < sparq.dense_below || (mass >= 1.0 && longest <= sparq.top_k)
    }

    /// Positions `[batch, kv_heads, n]`, best first, fillers behind them where a head keeps fewer,
    /// their mass α `[batch, kv_heads, g, 1]`, and how many are kept in all.
    fn select(
        &self,
        logits: Tensor<4>,
        sequence: &CachedSequence<'_>,
    ) -> Result<(Tensor<3, Int>, Tensor<4>, usize)> {
        let SparqMassConfig { sparq, mass } = self.config;
        let spans = sequence.spans();
        let capped = parts::soft_cap(logits.clone(), sequence.layer().softcap);
        let s_hat = softmax(parts::mask_dead(capped, &spans), 3);
        let of_group = match sparq.group_scores {
            GroupScores::ScaledLogits => logits,
            GroupScores::Softmax => s_hat.clone(),
        };
        let of_group = parts::sum_group(of_group).unsqueeze_dim::<4>(2);
        let of_group = parts::mask_dead(of_group, &spans).squeeze_dim(2);
        let of_group = parts::force_last(of_group, &spans, sparq.local_window);
        let [batch, kv_heads, len] = of_group.dims();
        let kept = sparq.top_k.min(len);
        let order = parts::live_only(parts::top(of_group, kept)?, &spans);
        let scores = parts::at(s_hat, &order);
        let filler = order.clone().lower_elem(0).unsqueeze_dim::<4>(2).expand(scores.dims());
        let scores = scores.mask_fill(filler, 0.0);
        let before = scores.clone().cumsum(3) - scores.clone();
        let least = before.min_dim(2).squeeze_dim::<3>(2);
        let local = Tensor::arange(0..kept as i64, &order.device()).lower_elem(sparq.local_window as i64);
        let local = local.reshape([1, 1, kept]).expand([batch, kv_heads, kept]);
        let wanted = match mass < 1.0 {
            true => least.lower_elem(mass).bool_or(local),
            // Rounding may bring the sum to one before all is kept.
            false => least.greater_equal_elem(0.0).bool_or(local),
        };
        let order = order.mask_fill(wanted.bool_not(), parts::FILLER);
        let counts = order.clone().greater_equal_elem(0).int().sum_dim(2);
        let counts: Vec<usize> = counts.into_data().iter::<i64>().map(|count| count as usize).collect();
        // Live and wanted positions come first, so what is cut off are fillers.
        let longest = counts.iter().copied().max().unwrap_or(1).max(1);
        let order = order.narrow(2, 0, longest);
        let filler = order.clone().lower_elem(0).unsqueeze_dim::<4>(2);
        let scores = scores.narrow(3, 0, longest);
        let filler = filler.expand(scores.dims());
        let alpha = scores.mask_fill(filler, 0.0).sum_dim(3);
        Ok((order, alpha, counts.iter().sum()))
    }
}

impl DecodeMethod for SparqMass {
    fn name(&self) -> &'static str {
        MethodKind::SparqMass.name()
    }

    fn cache_extras(&self) -> CacheExtras {
        let SparqConfig { kt_format, mean_value, .. } = self.config.sparq;
        CacheExtras { k_t: true, kt_format, mean_value }
    }

    fn truncate(&mut self, _sequence: &CachedSequence<'_>) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        let spans = sequence.spans();
        if self.runs_dense(spans.max_len()) {
            return Dense.decode(q, sequence);
        }
        ops::check_queries(&q, sequence.layer().shape, [1, 1])?;
        let sparq = self.config.sparq;
        let (kv_heads, value_dim) = (sequence.layer().shape.kv_heads, sequence.layer().value_dim());
        let q = parts::grouped(q, &sequence.layer().shape);
        let k_t = match sparq.kt_format.bits() {
            None => sequence.k_t()?.into_dispatch(),
            Some(_) => {
                let QuantizedKt { words, scales } = sequence.quantized_kt()?;
                oracle::dequantize::<Dispatch>(words.into_dispatch(), scales.into_dispatch())
            }
        };
        let logits = Tensor::from_dispatch(oracle::approximate_scores::<Dispatch>(
            q.clone().into_dispatch(),
            k_t,
            &spans,
            sparq.rank,
            sequence.layer().scale(),
        ));
        let (positions, alpha, kept) = self.select(logits.clone(), sequence)?;
        let attended = parts::attend(q, sequence, positions)?;
        let [batch, _, group, _] = alpha.dims();
        let output = match sparq.mean_value {
            true => Tensor::<4>::from_dispatch(oracle::reallocate_to_mean::<Dispatch>(
                attended.output.reshape([batch, kv_heads, group, value_dim]).into_dispatch(),
                sequence.v_sum()?.into_dispatch(),
                alpha.clone().into_dispatch(),
                &spans,
            ))
            .reshape([batch, kv_heads * group, 1, value_dim]),
            false => attended.output,
        };
        let (size, head_dim) = (sequence.element_size(), sequence.layer().shape.head_dim);
        Ok(Decoded {
            output: parts::unless_overflowed(output, logits),
            transfer: Transfer {
                k_t: sequence.kt_part(parts::live(&spans) * kv_heads * sparq.rank, sparq.kt_format),
                k: Part::new(kept * head_dim, size),
                v: Part::new(kept * value_dim, size),
                ..parts::rows_transfer(sequence, 0, 0)
            },
            selection: Some(Selection {
                positions: attended.positions,
                masses: Some(parts::by_head(alpha)),
                weights: Some(parts::by_head(attended.weights)),
            }),
        })
    }
}
