//! What the attention operations need beside tensors.

use crate::{
    config::{AttentionLayer, SparqConfig},
    spans::{AppendPlan, Place, Spans},
};

/// Where the queries of an attention operation stand, and how their scores are made: the same for a prompt,
/// a dense and a SparQ step.
#[derive(Debug, Clone)]
pub struct AttendParams {
    /// The queries as new tokens: column `t` of a sequence sees its own and all earlier positions, of
    /// which the window leaves the last. The cache holds them already.
    pub queries: AppendPlan,
    /// How many positions a query sees, its own included; all up to its own where `None`.
    pub window: Option<usize>,
    /// Soft cap on the scaled logits, `cap · tanh(logit / cap)`.
    pub softcap: Option<f32>,
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
}

impl AttendParams {
    /// Queries of `layer`.
    pub fn new(queries: AppendPlan, layer: &AttentionLayer) -> Self {
        Self { queries, window: layer.window, softcap: layer.softcap, scale: layer.scale() }
    }

    /// Where the memory of sequence `b` lies, in tensors of `capacity` positions per slot if nothing else is said.
    pub(crate) fn place(&self, b: usize, capacity: usize) -> Place {
        self.queries.place(b, capacity)
    }

    /// The same for sequence `b` alone, in tensors of its own.
    pub(crate) fn alone(&self, b: usize) -> Self {
        Self { queries: self.queries.alone(b), ..self.clone() }
    }

    /// Positions that the last query of each sequence sees: with one query per sequence all that is read.
    pub fn spans(&self) -> Spans {
        self.queries.spans(self.window)
    }
}

/// What SparQ needs in addition.
#[derive(Debug, Clone)]
pub struct SparqParams {
    /// Queries and scores, one query per sequence. The cap is on the exact logits, and on the approximate
    /// ones before their softmax. A sum of logits over a group is taken before the cap.
    pub attend: AttendParams,
    /// Hyper-parameters, already checked against the layer's shape.
    pub config: SparqConfig,
    /// Compute α and the log-sum-exps even where the output does not need them. Without this and without
    /// the mean value an override may return anything for them.
    pub retained_mass: bool,
}
