//! SparQ attention (paper, section 4, Algorithm 1).

use burn::tensor::Tensor;

use super::{DecodeMethod, Decoded, Dense, MethodKind, Selection};
use crate::{
    cache::{CacheExtras, LayerCache},
    config::{AttentionShape, SparqConfig},
    error::Result,
    ops::{self, SparqParams},
    spans::Span,
    transfer::{Part, Transfer},
};

/// SparQ attention with fixed hyper-parameters.
#[derive(Debug, Clone, Copy)]
pub struct Sparq {
    config: SparqConfig,
}

impl Sparq {
    /// SparQ for layers of this shape.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for hyper-parameters out of range.
    pub fn new(config: SparqConfig, shape: &AttentionShape) -> Result<Self> {
        shape.validate()?;
        config.validate(shape.head_dim)?;
        Ok(Self { config })
    }

    /// True where reading everything is exact (`top_k` covers all live positions) or wanted.
    fn runs_dense(&self, longest: usize) -> bool {
        longest <= self.config.top_k || longest < self.config.dense_below
    }

    fn transfer(&self, cache: &LayerCache) -> Transfer {
        let config = cache.config();
        let size = config.dtype.size();
        let spans = cache.spans();
        let scored: usize = spans.as_slice().iter().map(Span::len).sum();
        let kept: usize = spans.as_slice().iter().map(|span| span.len().min(self.config.top_k)).sum();
        let AttentionShape { kv_heads, head_dim, .. } = config.layer.shape;
        let vector = kv_heads * head_dim;
        Transfer {
            k_index: cache.index_part(scored * kv_heads * self.config.rank),
            k: Part::new(kept * vector, size),
            v: Part::new(kept * vector, size),
            mean_value: cache.mean_value_part(),
            append: cache.append_part(),
            ..Transfer::default()
        }
    }
}

impl DecodeMethod for Sparq {
    fn name(&self) -> &'static str {
        MethodKind::Sparq.name()
    }

    fn cache_extras(&self) -> CacheExtras {
        CacheExtras { k_index: true, index: self.config.index, mean_value: self.config.mean_value }
    }

    fn truncate(&mut self, _cache: &LayerCache) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn takes_several(&self, longest: usize) -> bool {
        self.runs_dense(longest)
    }

    fn decode(&mut self, q: Tensor<4>, cache: &LayerCache) -> Result<Decoded> {
        let spans = cache.spans();
        if self.runs_dense(spans.max_len()) {
            return Dense.decode(q, cache);
        }
        ops::check_queries(&q, cache.config(), 1)?;
        let params =
            SparqParams { attend: cache.attend_params(1), config: self.config, retained_mass: false };
        let (k, v, v_sum) = (cache.k()?, cache.v()?, cache.v_sum()?);
        let attended = match self.config.index.bits() {
            None => ops::decode_sparq(q, k, cache.k_index()?, v, v_sum, params)?,
            Some(_) => ops::decode_sparq_quantized(q, k, cache.quantized_index()?, v, v_sum, params)?,
        };
        Ok(Decoded {
            selection: Some(Selection {
                masses: self.config.mean_value.then_some(attended.masses),
                positions: attended.positions,
                weights: None,
            }),
            output: attended.output,
            transfer: self.transfer(cache),
        })
    }
}
