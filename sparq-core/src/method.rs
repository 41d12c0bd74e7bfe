//! Decode methods behind one seam: how a step attends to the cache of its layer.

mod check;
mod dense;
mod double_sparsity;
mod h2o;
mod kind;
mod local;
mod mass_meter;
mod operation;
mod parts;
mod quest;
mod sparq;
mod sparq_mass;
mod topk;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    cache::{CacheExtras, CachedSequence},
    config::{AttentionShape, SparqConfig},
    error::{Error, Result},
    spans::AppendPlan,
    transfer::Transfer,
};

pub use dense::{Dense, dense_transfer};
pub use double_sparsity::{ChannelStatistics, DoubleSparsity, DoubleSparsityConfig};
pub use h2o::{H2o, H2oConfig};
pub use kind::MethodKind;
pub use local::{Local, LocalConfig};
pub use mass_meter::{MassMeter, RetainedMass};
pub use operation::Operation;
pub use quest::{Quest, QuestConfig};
pub use sparq::Sparq;
pub use sparq_mass::{SparqMass, SparqMassConfig};
pub use topk::{Topk, TopkConfig};

/// What a sparse method picked in one step.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Positions that were read, in no particular order: `[rows, kv_heads, kept]`. Sequences with
    /// fewer live positions fill up with -1.
    pub positions: Tensor<3, Int>,
    /// What the method says of each head, `[rows, heads, n]`: first its estimate of the attention mass that
    /// those positions hold (α), from SparQ the log-sum-exps of [`crate::ops::SparqAttended::masses`] too.
    /// `None` where the method computes none.
    pub masses: Option<Tensor<3>>,
    /// The weight that each position got, `[rows, heads, kept]` in the order of the positions, 0 for
    /// fillers; `None` where the method's kernel does not hand them out.
    pub weights: Option<Tensor<3>>,
}

impl Selection {
    /// α, `[rows, heads]`, where the method computes it.
    pub fn retained_mass(&self) -> Option<Tensor<2>> {
        self.masses.as_ref().map(|masses| masses.clone().narrow(2, 0, 1).squeeze_dim(2))
    }
}

/// Result of one decode step of one sequence in one layer.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Attention output `[1, heads, width, head_dim]`, f32.
    pub output: Tensor<4>,
    /// What was picked for the last query; `None` where the step read everything.
    pub selection: Option<Selection>,
    /// What the step touched in the cache.
    pub transfer: Transfer,
}

/// A way to attend in decode steps. One value serves one sequence in one layer and may keep state between
/// steps.
///
/// A method sees the query and is meant to read its own sequence in the layer's cache, never the model nor others. The
/// cache already holds the current token when [`DecodeMethod::decode`] is called.
pub trait DecodeMethod: std::fmt::Debug + Send {
    /// Name in reports: `dense`, `sparq`, ….
    fn name(&self) -> &'static str;

    /// What the cache must keep for this method.
    fn cache_extras(&self) -> CacheExtras {
        CacheExtras::default()
    }

    /// Called after each chunk of a dense prefill: methods that score tokens by past attention start here.
    ///
    /// # Errors
    /// Whatever keeps the method from observing the chunk.
    fn observe_prefill(&mut self, _chunk: &PromptChunk<'_>, _sequence: &CachedSequence<'_>) -> Result<()> {
        Ok(())
    }

    /// Called after the sequence was cut back to fewer tokens: the method must be as if the tokens that
    /// are gone had never been there. A method that remembers nothing but the cached tokens returns
    /// `Ok`; others are brought back by a copy ([`DecodeMethod::fork`]) alone. A sequence without tokens means: begin
    /// anew. A method that refuses that cannot be released.
    ///
    /// # Errors
    /// [`Error::CannotGoBack`], unless the method says otherwise.
    fn truncate(&mut self, _sequence: &CachedSequence<'_>) -> Result<()> {
        Err(Error::CannotGoBack { method: self.name() })
    }

    /// A copy of the method as it is now, to go back to ([`crate::LayerState::mark`]) or for another sequence.
    /// `None`, unless the method says otherwise: it cannot be copied.
    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        None
    }

    /// Returns `method` with this one's state, if it is the same method and differs only in sizes that do not
    /// affect that state. So one prefill can be observed for several sizes. `None` for methods that observe
    /// nothing: a new one is as good.
    fn resume(&self, _method: &Method) -> Option<Box<dyn DecodeMethod>> {
        None
    }

    /// The operation that a step is where `live` positions are, if it is one: sequences that ask for the same
    /// are decoded together then, and [`DecodeMethod::decode`] is not called.
    fn operation(&self, _live: usize) -> Option<Operation> {
        None
    }

    /// Attends with the query of the last token, `q: [1, heads, 1, head_dim]` in f32. [`Decoded::transfer`] counts
    /// what the step has to read and write, [`CachedSequence::append_part`] and
    /// [`CachedSequence::mean_value_part`] among it.
    ///
    /// # Errors
    /// [`crate::Error`] for shapes that do not fit the cache or parts that it does not keep.
    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded>;
}

/// A chunk of a prompt, as a method sees it.
#[derive(Debug, Clone, Copy)]
pub struct PromptChunk<'a> {
    pub(crate) q: &'a Tensor<4>,
    pub(crate) plan: &'a AppendPlan,
    pub(crate) row: usize,
}

impl PromptChunk<'_> {
    /// Queries of the chunk, `[1, heads, width, head_dim]` in f32.
    pub fn queries(&self) -> Tensor<4> {
        match self.plan.as_slice().len() {
            1 => self.q.clone(),
            _ => self.q.clone().narrow(0, self.row, 1),
        }
    }

    /// Where its tokens went, as those of slot 0.
    pub fn plan(&self) -> AppendPlan {
        self.plan.alone(self.row)
    }
}

/// Which decode method to run, as plain data: one value makes the method of every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Read the whole cache.
    Dense,
    /// SparQ attention.
    Sparq(SparqConfig),
    /// SparQ attention that keeps what holds a stated part of the attention.
    SparqMass(SparqMassConfig),
    /// Top-k of the exact weights, not renormalised (FlexGen).
    ExactTopk(TopkConfig),
    /// Top-k of the exact weights, renormalised, counted as if the choice came for free: a bound.
    OracleTopk(TopkConfig),
    /// The first and the last tokens (LM-Infinite).
    Local(LocalConfig),
    /// Eviction of what past queries ignored.
    H2o(H2oConfig),
    /// Pages chosen by an upper bound.
    Quest(QuestConfig),
    /// SparQ's first step with components that are chosen once.
    DoubleSparsity(DoubleSparsityConfig),
}

impl Method {
    /// Name in reports, as [`DecodeMethod::name`].
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// True where the method has to see a prompt go through the model: it cannot take over a cache that
    /// was filled under another one.
    pub fn watches_prefill(&self) -> bool {
        match self {
            Self::H2o(_) => true,
            Self::DoubleSparsity(config) => config.channels.is_empty(),
            _ => false,
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
            Self::SparqMass(config) => Box::new(SparqMass::new(*config, shape)?),
            Self::ExactTopk(config) => Box::new(Topk::exact(*config)?),
            Self::OracleTopk(config) => Box::new(Topk::oracle(*config)?),
            Self::Local(config) => Box::new(Local::new(*config)?),
            Self::H2o(config) => Box::new(H2o::new(*config)?),
            Self::Quest(config) => Box::new(Quest::new(*config)?),
            Self::DoubleSparsity(config) => Box::new(DoubleSparsity::new(config.clone(), shape)?),
        })
    }
}
