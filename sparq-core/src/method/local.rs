//! LM-Infinite (Han et al., 2023) as the SparQ authors evaluate it: the first and the last tokens.

use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{DecodeMethod, Decoded, Dense, MethodKind, Selection, check, parts};
use crate::{
    cache::CachedSequence,
    error::Result,
    ops,
    spans::{Span, Spans},
};

/// Sizes of [`Local`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalConfig {
    /// `k`: positions that are read in all.
    pub top_k: usize,
    /// How many of them are the first ones; the others are the most recent, the current one included.
    pub initial: usize,
}

impl LocalConfig {
    /// The authors' number of first tokens.
    pub const INITIAL: usize = 16;

    /// `top_k` positions, of which 16 are the first, at most a half.
    pub fn new(top_k: usize) -> Self {
        Self { top_k, initial: Self::INITIAL.min(top_k / 2) }
    }
}

/// Reads the first `initial` and the last `top_k − initial` positions; positions keep their rotary
/// encoding.
#[derive(Debug, Clone, Copy)]
pub struct Local {
    config: LocalConfig,
}

impl Local {
    /// # Errors
    /// [`crate::Error::InvalidConfig`] where no position would be left for the current token.
    pub fn new(config: LocalConfig) -> Result<Self> {
        check::at_least_one("top_k", config.top_k)?;
        if config.initial >= config.top_k {
            let reason = format!("it must be less than top_k = {}", config.top_k);
            return check::refuse("initial", config.initial, reason);
        }
        Ok(Self { config })
    }

    /// The positions read, `[batch, kv_heads, kept]`.
    fn positions(&self, spans: &Spans, kv_heads: usize, device: &Device) -> Tensor<3, Int> {
        let LocalConfig { top_k, initial } = self.config;
        let kept = top_k.min(spans.max_len());
        let row = |span: &Span| -> Vec<i64> {
            let first = span.start..span.end.min(span.start + initial);
            let last = span.end.saturating_sub(top_k - initial).max(first.end)..span.end;
            let mut row: Vec<i64> = first.chain(last).map(|position| position as i64).collect();
            row.resize(kept, parts::FILLER);
            row
        };
        let rows: Vec<i64> = spans.as_slice().iter().flat_map(row).collect();
        let batch = spans.as_slice().len();
        parts::ints(rows, [batch, 1, kept], device).expand([batch, kv_heads, kept])
    }
}

impl DecodeMethod for Local {
    fn name(&self) -> &'static str {
        MethodKind::Local.name()
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
        let shape = sequence.layer().shape;
        let positions = self.positions(&spans, shape.kv_heads, &q.device());
        let attended = parts::attend(parts::grouped(q, &shape), sequence, positions)?;
        let kept = parts::kept(&spans, self.config.top_k);
        Ok(Decoded {
            output: attended.output,
            transfer: parts::rows_transfer(sequence, kept, kept),
            selection: Some(Selection {
                positions: attended.positions,
                masses: None,
                weights: Some(parts::by_head(attended.weights)),
            }),
        })
    }
}
