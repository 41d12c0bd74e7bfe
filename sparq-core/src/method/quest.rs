//! Quest (Tang et al., 2024): pages of keys are chosen by an upper bound of their scores.

use burn::tensor::{DType, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{DecodeMethod, Decoded, Dense, Method, MethodKind, PromptChunk, Selection, check, parts};
use crate::{
    cache::CachedSequence,
    error::Result,
    ops,
    spans::{Span, Spans},
    transfer::{Part, Transfer},
};

/// Sizes of [`Quest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestConfig {
    /// `k`: positions that are read at most, in whole pages: the token budget.
    pub top_k: usize,
    /// Positions per page.
    pub page: usize,
}

impl QuestConfig {
    /// The authors' page size.
    pub const PAGE: usize = 16;

    /// A budget in pages of 16.
    pub fn new(top_k: usize) -> Self {
        Self { top_k, page: Self::PAGE }
    }

    /// Pages that are read.
    pub fn pages(&self) -> usize {
        self.top_k / self.page
    }
}

/// Keeps the smallest and the largest value of every key component per page. They bound the score of
/// any token in the page, `Σ_c max(q_c · min_c, q_c · max_c)`; the pages with the highest bounds,
/// summed over the group's heads, are read whole. The page of the current token is always read.
#[derive(Debug)]
pub struct Quest {
    config: QuestConfig,
    bounds: Option<Bounds>,
    /// Tokens that the bounds cover.
    covered: usize,
}

/// Smallest and largest key components, `[1, kv_heads, pages, head_dim]` in the cache's dtype.
#[derive(Debug, Clone)]
struct Bounds {
    min: Tensor<4>,
    max: Tensor<4>,
}

impl Quest {
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for a page of 0, or a budget below one page.
    pub fn new(config: QuestConfig) -> Result<Self> {
        check::at_least_one("page", config.page)?;
        if config.top_k < config.page {
            let reason = format!("it must hold at least one page of {}", config.page);
            return check::refuse("top_k", config.top_k, reason);
        }
        Ok(Self { config, bounds: None, covered: 0 })
    }

    /// Brings the bounds up to date: recomputes the pages from the first uncovered token on. While the
    /// budget holds all tokens, none is read and none is made: pages may be larger than any cache.
    fn refresh(&mut self, sequence: &CachedSequence<'_>) -> Result<()> {
        if sequence.spans().max_len() <= self.config.top_k {
            return Ok(());
        }
        let mut bounds = self.grown(sequence)?;
        if sequence.len() > self.covered {
            bounds = self.recompute(bounds, sequence)?;
        }
        self.bounds = Some(bounds);
        self.covered = sequence.len();
        Ok(())
    }

    /// The bounds with room for all pages of the sequence.
    fn grown(&mut self, sequence: &CachedSequence<'_>) -> Result<Bounds> {
        let shape = sequence.layer().shape;
        let pages = sequence.capacity().div_ceil(self.config.page);
        let k = sequence.k()?;
        let grow = |old: Option<Tensor<4>>| {
            let size = [1, shape.kv_heads, pages, shape.head_dim];
            let new = || Tensor::zeros(size, (&k.device(), k.dtype()));
            match old {
                Some(old) if old.dims() == size => old,
                Some(old) => {
                    let live = [0..1, 0..shape.kv_heads, 0..pages.min(old.dims()[2]), 0..shape.head_dim];
                    new().slice_assign(live.clone(), old.slice(live))
                }
                None => new(),
            }
        };
        let (min, max) = match self.bounds.take() {
            Some(bounds) => (Some(bounds.min), Some(bounds.max)),
            None => (None, None),
        };
        Ok(Bounds { min: grow(min), max: grow(max) })
    }

    /// Recomputes the pages from that of the first uncovered token on.
    fn recompute(&self, bounds: Bounds, sequence: &CachedSequence<'_>) -> Result<Bounds> {
        let page = self.config.page;
        let first = self.covered / page;
        let count = sequence.len() - first * page;
        let pages = count.div_ceil(page);
        let rows = sequence.k()?.narrow(2, first * page, count);
        let [_, kv_heads, _, head_dim] = rows.dims();
        // The last row fills up the last page: it changes no bound.
        let missing = pages * page - count;
        let rows = match missing {
            0 => rows,
            _ => Tensor::cat(vec![rows.clone(), rows.narrow(2, count - 1, 1).repeat_dim(2, missing)], 2),
        };
        let rows = rows.reshape([1, kv_heads, pages, page, head_dim]);
        let place = [0..1, 0..kv_heads, first..first + pages, 0..head_dim];
        Ok(Bounds {
            min: bounds.min.slice_assign(place.clone(), rows.clone().min_dim(3).squeeze_dim(3)),
            max: bounds.max.slice_assign(place, rows.max_dim(3).squeeze_dim(3)),
        })
    }

    /// The positions in the chosen pages, `[batch, kv_heads, pages · page]`.
    fn choose(&self, q: Tensor<4>, bounds: &Bounds, spans: &Spans) -> Result<Tensor<3, Int>> {
        let page = self.config.page;
        let pages = spans.max_end().div_ceil(page);
        let part = |x: &Tensor<4>| x.clone().narrow(2, 0, pages).cast(DType::F32).swap_dims(2, 3);
        let scores =
            q.clone().clamp_min(0.0).matmul(part(&bounds.max)) + q.clamp_max(0.0).matmul(part(&bounds.min));
        let scores = parts::sum_group(scores).unsqueeze_dim::<4>(2);
        let dead = |span: Span, p: usize| p < span.start / page || p * page >= span.end;
        let scores = parts::mark(scores, spans, parts::MASKED, dead);
        let current = |span: Span, p: usize| p == (span.end - 1) / page;
        let scores = parts::mark(scores, spans, f32::MAX, current).squeeze_dim(2);
        let chosen = parts::top(scores, self.config.pages())?;
        let [batch, kv_heads, count] = chosen.dims();
        let offsets = Tensor::arange(0..page as i64, &chosen.device()).reshape([1, 1, 1, page]);
        let firsts = chosen.mul_scalar(page as i64).unsqueeze_dim::<4>(3);
        let wide = [batch, kv_heads, count, page];
        Ok((firsts.expand(wide) + offsets.expand(wide)).reshape([batch, kv_heads, count * page]))
    }

    /// Counts two bounds per page, the rows of the chosen pages, and the bounds of the current page
    /// read and written.
    fn transfer(&self, sequence: &CachedSequence<'_>) -> Transfer {
        let QuestConfig { page, .. } = self.config;
        let spans = sequence.spans();
        let rows = |span: &Span| {
            let last = (span.end - 1) % page + 1;
            span.len().min((self.config.pages() - 1) * page + last)
        };
        let kept = spans.as_slice().iter().map(rows).sum();
        let pages: usize =
            spans.as_slice().iter().map(|span| span.end.div_ceil(page) - span.start / page).sum();
        let vector = sequence.layer().shape.kv_heads * sequence.layer().shape.head_dim;
        let size = sequence.element_size();
        Transfer {
            k_t: Part::new(2 * pages * vector, size),
            state: Part::new(4 * vector, size),
            ..parts::rows_transfer(sequence, kept, kept)
        }
    }
}

impl DecodeMethod for Quest {
    fn name(&self) -> &'static str {
        MethodKind::Quest.name()
    }

    fn observe_prefill(&mut self, _chunk: &PromptChunk<'_>, sequence: &CachedSequence<'_>) -> Result<()> {
        self.refresh(sequence)
    }

    fn resume(&self, method: &Method) -> Option<Box<dyn DecodeMethod>> {
        match method {
            Method::Quest(config) if config.page == self.config.page => {
                let (bounds, covered) = (self.bounds.clone(), self.covered);
                Some(Box::new(Self { config: *config, bounds, covered }))
            }
            _ => None,
        }
    }

    fn truncate(&mut self, sequence: &CachedSequence<'_>) -> Result<()> {
        // Bounds are those of the keys alone. A page that lost tokens gets new ones when a token joins it.
        self.covered = self.covered.min(sequence.len());
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        self.resume(&Method::Quest(self.config))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        ops::check_queries(&q, sequence.layer().shape, [1, 1])?;
        self.refresh(sequence)?;
        let spans = sequence.spans();
        let Some(bounds) = self.bounds.as_ref().filter(|_| spans.max_len() > self.config.top_k) else {
            return Dense.decode(q, sequence);
        };
        let q = parts::grouped(q, &sequence.layer().shape);
        let positions = self.choose(q.clone(), bounds, &spans)?;
        let attended = parts::attend(q, sequence, positions)?;
        Ok(Decoded {
            output: attended.output,
            transfer: self.transfer(sequence),
            selection: Some(Selection {
                positions: attended.positions,
                masses: None,
                weights: Some(parts::by_head(attended.weights)),
            }),
        })
    }
}
