//! Decode steps that one operation does for several sequences at a time.

use burn::tensor::Tensor;

use super::{Decoded, Selection, dense_transfer};
use crate::{
    cache::{CachedSequence, LayerCache},
    config::SparqConfig,
    error::Result,
    ops::{self, AttendParams, SparqParams},
    transfer::Transfer,
};

/// A decode step that is one operation of [`crate::ops`]: sequences whose methods ask for the same one are
/// decoded together, whichever methods these are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// [`crate::ops::decode_dense`]: everything is read.
    Dense,
    /// [`crate::ops::decode_sparq`], or its variant over codes.
    Sparq(SparqConfig),
}

impl Operation {
    /// One step of one sequence: `q: [1, heads, width, head_dim]`.
    ///
    /// # Errors
    /// As [`super::DecodeMethod::decode`].
    pub fn decode(self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        let [_, _, width, _] = q.dims();
        ops::check_queries(&q, sequence.layer().shape, [1, width])?;
        let (output, selection) = self.attend(q, sequence.cache(), sequence.attend_params(width))?;
        Ok(Decoded { output, selection, transfer: self.transfer(sequence) })
    }

    /// Attends with the queries of `params` over a cache that holds their tokens.
    pub(crate) fn attend(
        self,
        q: Tensor<4>,
        cache: &LayerCache,
        params: AttendParams,
    ) -> Result<(Tensor<4>, Option<Selection>)> {
        let (k, v) = (cache.k()?, cache.v()?);
        let Self::Sparq(config) = self else {
            return Ok((ops::decode_dense(q, k, v, params)?.output, None));
        };
        let (params, v_sum) = (SparqParams { attend: params, config, retained_mass: false }, cache.v_sum()?);
        let attended = match config.kt_format.bits() {
            None => ops::decode_sparq(q, k, cache.k_t()?, v, v_sum, params)?,
            Some(_) => ops::decode_sparq_quantized(q, k, cache.quantized_kt()?, v, v_sum, params)?,
        };
        let masses = config.mean_value.then_some(attended.masses);
        Ok((attended.output, Some(Selection { masses, positions: attended.positions, weights: None })))
    }

    /// What the step of one token touches in the cache.
    pub(crate) fn transfer(self, sequence: &CachedSequence<'_>) -> Transfer {
        let read = match self {
            Self::Dense => dense_transfer(sequence),
            Self::Sparq(config) => {
                let live = sequence.spans().max_len();
                let (kept, kv_heads) = (live.min(config.top_k), sequence.layer().shape.kv_heads);
                let k_t = sequence.kt_part(live * kv_heads * config.rank, config.kt_format);
                let (k, v) = (sequence.key_rows(kept), sequence.value_rows(kept));
                Transfer { k_t, k, v, ..Transfer::default() }
            }
        };
        Transfer { append: sequence.append_part(), mean_value: sequence.mean_value_part(), ..read }
    }
}
