//! Decode methods behind one seam: how a step attends to the cache of its layer.

mod dense;
mod sparq;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{CacheExtras, LayerCache},
    config::{AttentionShape, SparqConfig},
    error::Result,
    spans::AppendPlan,
    transfer::Transfer,
};

pub use dense::{Dense, dense_transfer};
pub use sparq::Sparq;

/// What a sparse method picked in one step.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Positions that were read, in no particular order: `[batch, kv_heads, kept]`. Sequences with
    /// fewer live positions fill up with -1.
    pub positions: Tensor<3, Int>,
    /// Estimate of the attention mass that those positions hold (α), `[batch, heads]`, where the
    /// method computes one.
    pub retained_mass: Option<Tensor<2>>,
    /// The weight that each position got, `[batch, heads, kept]` in the order of the positions, 0 for
    /// fillers; `None` where the method's kernel does not hand them out.
    pub weights: Option<Tensor<3>>,
}

/// Result of one decode step in one layer.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Attention output `[batch, heads, 1, head_dim]`, f32.
    pub output: Tensor<4>,
    /// What was picked; `None` where the step read everything.
    pub selection: Option<Selection>,
    /// What the step touched in the cache.
    pub transfer: Transfer,
}

/// A way to attend in decode steps. One value serves one layer and may keep state between steps.
///
/// A method sees the query and its layer's cache, never the model. The cache already holds the
/// current token when [`DecodeMethod::decode`] is called.
pub trait DecodeMethod: std::fmt::Debug + Send {
    /// Name in reports: `dense`, `sparq`, ….
    fn name(&self) -> &'static str;

    /// What the cache must keep for this method.
    fn cache_extras(&self) -> CacheExtras {
        CacheExtras::default()
    }

    /// Called after each chunk of a dense prefill, with the chunk's queries
    /// `[batch, heads, width, head_dim]`: methods that score tokens by past attention start here.
    ///
    /// # Errors
    /// Whatever keeps the method from observing the chunk.
    fn observe_prefill(&mut self, _q: &Tensor<4>, _cache: &LayerCache, _plan: &AppendPlan) -> Result<()> {
        Ok(())
    }

    /// Called after the cache was cut back to fewer tokens: what the method remembers of the tokens
    /// that are gone must go too.
    ///
    /// # Errors
    /// Whatever keeps the method from going back.
    fn truncate(&mut self, _cache: &LayerCache) -> Result<()> {
        Ok(())
    }

    /// Attends with one query per sequence, `q: [batch, heads, 1, head_dim]` in f32.
    ///
    /// # Errors
    /// [`crate::Error`] for shapes that do not fit the cache or parts that it does not keep.
    fn decode(&mut self, q: Tensor<4>, cache: &LayerCache) -> Result<Decoded>;
}

/// Which decode method to run, as plain data: one value makes the method of every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// Read the whole cache.
    Dense,
    /// SparQ attention.
    Sparq(SparqConfig),
}

impl Method {
    /// Name in reports, as [`DecodeMethod::name`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparq(_) => "sparq",
        }
    }

    /// The method's state for one layer.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for hyper-parameters that do not fit `shape`.
    pub fn for_layer(&self, shape: &AttentionShape) -> Result<Box<dyn DecodeMethod>> {
        Ok(match self {
            Self::Dense => Box::new(Dense),
            Self::Sparq(config) => Box::new(Sparq::new(*config, shape)?),
        })
    }
}
