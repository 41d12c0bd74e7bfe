//! Dense decode: every live key and value is read.

use burn::tensor::Tensor;

use super::{DecodeMethod, Decoded, MethodKind};
use crate::{
    cache::LayerCache,
    error::Result,
    ops,
    spans::Span,
    transfer::{Part, Transfer},
};

/// Exact attention over all live positions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dense;

impl DecodeMethod for Dense {
    fn name(&self) -> &'static str {
        MethodKind::Dense.name()
    }

    fn truncate(&mut self, _cache: &LayerCache) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn takes_several(&self, _longest: usize) -> bool {
        true
    }

    fn decode(&mut self, q: Tensor<4>, cache: &LayerCache) -> Result<Decoded> {
        let [_, _, width, _] = q.dims();
        ops::check_queries(&q, cache.config(), width)?;
        let attended = ops::decode_dense(q, cache.k()?, cache.v()?, cache.attend_params(width))?;
        Ok(Decoded {
            output: attended.output,
            selection: None,
            transfer: Transfer {
                append: cache.append_part(),
                mean_value: cache.mean_value_part(),
                ..dense_transfer(cache)
            },
        })
    }
}

/// What dense attention moves in one step over this cache: all live keys and values read, one of
/// each written.
pub fn dense_transfer(cache: &LayerCache) -> Transfer {
    let config = cache.config();
    let size = config.dtype.size();
    let vector = config.layer.shape.kv_heads * config.layer.shape.head_dim;
    let live: usize = cache.spans().as_slice().iter().map(Span::len).sum();
    Transfer {
        k: Part::new(live * vector, size),
        v: Part::new(live * vector, size),
        append: Part::new(2 * config.batch * vector, size),
        ..Transfer::default()
    }
}
