//! Filling in sizes, so that every method moves the same part of what dense attention moves.

use sparq_core::{
    AttentionLayer, DoubleSparsityConfig, H2oConfig, LocalConfig, Method, QuestConfig, SparqConfig,
    SparqMassConfig, TopkConfig,
};

use super::{MethodName, MethodSpec, SparqOptions, SparqSize};
use crate::error::{Error, Result};

/// The mass that `sparq-mass` reaches where none is stated.
const MASS: f32 = 0.9;

impl MethodSpec {
    /// The method for a layer, in runs up to `seq_len` tokens (the window, where that is shorter).
    ///
    /// Sizes that are stated stay; the others are chosen so that a step at the end of the run moves
    /// about one part in `compression` of what dense attention moves, by the formulas of
    /// [`sparq_core::transfer`] in elements, without the terms that do not grow (an index in few bits
    /// moves less than that); the ratio of the notation wins over
    /// the argument. A mass budget moves at most that part.
    ///
    /// # Errors
    /// [`Error::Compression`] where the method cannot move as little, [`Error::Core`] for sizes out of
    /// range.
    pub fn resolve(&self, layer: &AttentionLayer, seq_len: usize, compression: f64) -> Result<Method> {
        let ratio = self.compression.unwrap_or(compression);
        let live = layer.window.map_or(seq_len, |window| window.min(seq_len)).max(1);
        let head_dim = layer.shape.head_dim as f64;
        let open = Open { spec: self, ratio, live: live as f64 };
        let method = match self.name {
            MethodName::Dense => Method::Dense,
            MethodName::Sparq => Method::Sparq(self.sparq(layer, live, &open)?),
            MethodName::SparqMass => Method::SparqMass(SparqMassConfig {
                sparq: self.sparq(layer, live, &open)?,
                mass: self.mass.unwrap_or(MASS),
            }),
            // S·d + k·d of 2·S·d.
            MethodName::ExactTopk => {
                Method::ExactTopk(TopkConfig { top_k: open.top_k(2.0 / ratio - 1.0, 2.0)? })
            }
            MethodName::OracleTopk => {
                Method::OracleTopk(TopkConfig { top_k: open.top_k(1.0 / ratio, f64::INFINITY)? })
            }
            MethodName::Local => {
                let config = LocalConfig::new(open.top_k(1.0 / ratio, f64::INFINITY)?);
                Method::Local(LocalConfig { initial: self.initial.unwrap_or(config.initial), ..config })
            }
            // A score, read and written, beside each key and value.
            MethodName::H2o => {
                let part = head_dim / (ratio * (head_dim + 1.0));
                let config = H2oConfig::new(open.top_k(part, f64::INFINITY)?);
                let local_window = self.local_window.unwrap_or(config.local_window);
                Method::H2o(H2oConfig { local_window, ..config })
            }
            // Two bounds per page, and the rows in whole pages.
            MethodName::Quest => {
                let page = self.page.unwrap_or(QuestConfig::PAGE);
                let budget = open.top_k(1.0 / ratio - 1.0 / page as f64, page as f64)?;
                let pages = (budget as f64 / page as f64).round().max(1.0) as usize;
                Method::Quest(QuestConfig { top_k: self.top_k.unwrap_or(pages * page), page })
            }
            MethodName::DoubleSparsity => {
                let SparqConfig { rank, top_k, .. } = self.sparq(layer, live, &open)?;
                let local_window = self.local_window.unwrap_or(1);
                let config = DoubleSparsityConfig { local_window, ..DoubleSparsityConfig::new(rank, top_k) };
                Method::DoubleSparsity(config)
            }
        };
        // Sizes are checked here, where the notation can still be named, and not in the first layer.
        method.for_layer(&layer.shape)?;
        Ok(method)
    }

    /// SparQ's sizes: half of the bytes go into each step, unless one size is stated.
    fn sparq(&self, layer: &AttentionLayer, live: usize, open: &Open<'_>) -> Result<SparqConfig> {
        let head_dim = layer.shape.head_dim as f64;
        let size = match (self.rank, self.top_k) {
            (Some(rank), Some(top_k)) => SparqSize::Explicit { rank, top_k },
            // One component of each key is the least that step 1 reads.
            (None, None) if open.ratio > 2.0 * head_dim => return Err(open.out_of_reach(2.0 * head_dim)),
            (None, None) => {
                SparqSize::Ratio { ratio: open.ratio, min_top_k: self.min_top_k.unwrap_or(1).max(1) }
            }
            // S·r + 2·k·d of 2·S·d.
            (Some(rank), None) => {
                let part = 1.0 / open.ratio - rank as f64 / (2.0 * head_dim);
                let top_k = open.top_k(part, 2.0 * head_dim / rank as f64)?;
                SparqSize::Explicit { rank, top_k: top_k.max(self.min_top_k.unwrap_or(1)) }
            }
            // What covers all positions is dense, whatever the rank.
            (None, Some(top_k)) if top_k >= live => SparqSize::Explicit { rank: 1, top_k },
            (None, Some(top_k)) => {
                let rank = 2.0 * head_dim * (1.0 / open.ratio - top_k as f64 / open.live);
                if rank < 0.5 {
                    return Err(open.out_of_reach(open.live / top_k as f64));
                }
                SparqSize::Explicit { rank: (rank.round() as usize).min(layer.shape.head_dim), top_k }
            }
        };
        let options = SparqOptions {
            size,
            local_window: self.local_window,
            mean_value: self.mean_value,
            group_scores: self.group_scores.unwrap_or_default(),
            dense_below: self.dense_below.unwrap_or(0),
            index: self.index.unwrap_or_default(),
            choice: self.choice.unwrap_or_default(),
        };
        options.resolve(&layer.shape, live)
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
        match self.spec.top_k {
            Some(top_k) => Ok(top_k),
            None if part <= 0.0 => Err(self.out_of_reach(least)),
            None => Ok(((self.live * part).round() as usize).max(1)),
        }
    }

    fn out_of_reach(&self, least: f64) -> Error {
        // The smallest k plays no part in it.
        let method = MethodSpec { min_top_k: None, ..self.spec.clone() }.to_string();
        Error::Compression { method, ratio: self.ratio, least }
    }
}
