//! Filling in sizes, so that every method moves the same part of what dense attention moves.

use sparq_core::{
    AttentionLayer, DoubleSparsityConfig, H2oConfig, LocalConfig, Method, MethodKind, QuestConfig,
    SparqConfig, SparqMassConfig, TopkConfig,
};

use super::{DenseBelow, MethodSpec, SpecKeys, spec::keys_of};
use crate::error::{Error, Result};

/// The mass that `sparq-mass` reaches where none is stated.
const MASS: f32 = 0.9;

impl MethodSpec {
    /// The method for a layer, in runs up to `seq_len` tokens (the window, where that is shorter).
    ///
    /// Sizes that are stated stay; the others are chosen so that a step at the end of the run moves about
    /// one part in the ratio of what dense attention moves, by the formulas of [`sparq_core::transfer`] in
    /// elements, without the terms that do not grow (transposed keys in few bits move less than that). A mass
    /// budget moves at most that part.
    ///
    /// # Errors
    /// [`Error::Compression`] where the method cannot move as little, [`Error::Core`] for sizes out of
    /// range, [`Error::MethodSpec`] for `dense-below=auto`, which only a run of text measures
    /// ([`crate::crossover::settle`]).
    pub fn resolve(&self, layer: &AttentionLayer, seq_len: usize) -> Result<Method> {
        if self.keys.dense_below == Some(DenseBelow::Auto) {
            let reason = "`dense-below=auto` is measured for `sparq` where a text is written; a number of \
                          tokens is needed here";
            return Err(Error::MethodSpec { text: self.to_string(), reason: reason.into() });
        }
        let ratio = self.compression.unwrap_or(self.default_compression());
        let live = layer.window.map_or(seq_len, |window| window.min(seq_len)).max(1);
        let head_dim = layer.shape.head_dim as f64;
        let open = Open { spec: self, ratio, live: live as f64 };
        let mut method = match self.kind {
            MethodKind::Dense => Method::Dense,
            MethodKind::Sparq => Method::Sparq(self.sparq(layer, live, &open)?),
            MethodKind::SparqMass => {
                Method::SparqMass(SparqMassConfig { sparq: self.sparq(layer, live, &open)?, mass: MASS })
            }
            // S·d + k·d of 2·S·d.
            MethodKind::ExactTopk => {
                Method::ExactTopk(TopkConfig { top_k: open.top_k(2.0 / ratio - 1.0, 2.0)? })
            }
            MethodKind::OracleTopk => {
                Method::OracleTopk(TopkConfig { top_k: open.top_k(1.0 / ratio, f64::INFINITY)? })
            }
            MethodKind::Local => Method::Local(LocalConfig::new(open.top_k(1.0 / ratio, f64::INFINITY)?)),
            // A score, read and written, beside each key and value.
            MethodKind::H2o => {
                let part = head_dim / (ratio * (head_dim + 1.0));
                Method::H2o(H2oConfig::new(open.top_k(part, f64::INFINITY)?))
            }
            // Two bounds per page, and the rows in whole pages.
            MethodKind::Quest => {
                let page = self.keys.page.unwrap_or(QuestConfig::PAGE);
                let budget = open.top_k(1.0 / ratio - 1.0 / page as f64, page as f64)?;
                let pages = (budget as f64 / page as f64).round().max(1.0) as usize;
                Method::Quest(QuestConfig { top_k: pages * page, page })
            }
            MethodKind::DoubleSparsity => {
                let SparqConfig { rank, top_k, .. } = self.sparq(layer, live, &open)?;
                Method::DoubleSparsity(DoubleSparsityConfig::new(rank, top_k))
            }
        };
        for key in keys_of(self.kind) {
            key.apply(&self.keys, &mut method);
        }
        // Sizes are checked here, where the notation can still be named, and not in the first layer.
        method.for_layer(&layer.shape)?;
        Ok(method)
    }

    /// SparQ's sizes: half of the bytes go into each step, unless one size is stated.
    fn sparq(&self, layer: &AttentionLayer, live: usize, open: &Open<'_>) -> Result<SparqConfig> {
        let head_dim = layer.shape.head_dim as f64;
        let least = self.keys.min_top_k.unwrap_or(1);
        let (rank, top_k) = match (self.keys.rank, self.keys.top_k) {
            (Some(rank), Some(top_k)) => (rank, top_k),
            // One component of each key is the least that step 1 reads.
            (None, None) if open.ratio > 2.0 * head_dim => return Err(open.out_of_reach(2.0 * head_dim)),
            (None, None) => {
                return Ok(SparqConfig::from_compression_ratio(&layer.shape, open.ratio, live, least)?);
            }
            // S·r + 2·k·d of 2·S·d.
            (Some(rank), None) => {
                let part = 1.0 / open.ratio - rank as f64 / (2.0 * head_dim);
                (rank, open.top_k(part, 2.0 * head_dim / rank as f64)?.max(least))
            }
            // What covers all positions is dense, whatever the rank.
            (None, Some(top_k)) if top_k >= live => (1, top_k),
            (None, Some(top_k)) => {
                let rank = 2.0 * head_dim * (1.0 / open.ratio - top_k as f64 / open.live);
                if rank < 0.5 {
                    return Err(open.out_of_reach(open.live / top_k as f64));
                }
                ((rank.round() as usize).min(layer.shape.head_dim), top_k)
            }
        };
        Ok(SparqConfig::new(&layer.shape, rank, top_k))
    }
}

/// A ratio to be met at a length.
struct Open<'s> {
    spec: &'s MethodSpec,
    ratio: f64,
    live: f64,
}

impl Open<'_> {
    /// The stated `k`, else `part` of the live positions. `least` is the ratio that the method cannot
    /// reach.
    fn top_k(&self, part: f64, least: f64) -> Result<usize> {
        match self.spec.keys.top_k {
            Some(top_k) => Ok(top_k),
            None if part <= 0.0 => Err(self.out_of_reach(least)),
            None => Ok(((self.live * part).round() as usize).max(1)),
        }
    }

    fn out_of_reach(&self, least: f64) -> Error {
        // The smallest k plays no part in it.
        let keys = SpecKeys { min_top_k: None, ..self.spec.keys };
        let method = MethodSpec { keys, ..*self.spec }.to_string();
        Error::Compression { method, ratio: self.ratio, least }
    }
}
