//! H2O, heavy-hitter oracle (Zhang et al., 2023): tokens that past queries ignored are evicted.

use burn::tensor::{DType, Int, Tensor, activation::softmax};
use serde::{Deserialize, Serialize};

use super::{DecodeMethod, Decoded, Method, MethodKind, PromptChunk, Selection, check, parts};
use crate::{
    cache::CachedSequence,
    error::{Error, Result},
    ops,
    spans::AppendPlan,
    transfer::{Part, Transfer},
};

/// Attention weights that one chunk of a prefill may hold at a time (elements; 64 MiB in f32).
const CHUNK_WEIGHTS: usize = 1 << 24;

/// Sizes of [`H2o`].
///
/// The authors of SparQ count the current token apart: their `k` and `local_k` are `top_k - 1` and
/// `local_window - 1` here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct H2oConfig {
    /// `k`: tokens that stay alive.
    pub top_k: usize,
    /// `l`: most recent tokens that are never evicted, the current one included.
    pub local_window: usize,
}

impl H2oConfig {
    /// `top_k` tokens, a quarter of them recent.
    pub fn new(top_k: usize) -> Self {
        Self { top_k, local_window: (top_k / 4).max(1) }
    }
}

/// Keeps, per KV head, the `top_k` tokens with the most attention so far. The score of a token is the
/// sum over all queries of the weight that they gave it, averaged over the group's heads. The dense
/// prefill starts the scores; an evicted token never comes back.
///
/// A later prompt on the same cache is attended densely to all tokens, evicted ones included, as all
/// prompts are; its queries add to the scores of the living.
#[derive(Debug)]
pub struct H2o {
    config: H2oConfig,
    living: Option<Living>,
}

/// The tokens that are alive, and their scores, in no order.
#[derive(Debug, Clone)]
struct Living {
    /// `[batch, kv_heads, living]`; shorter sequences fill up with -1.
    positions: Tensor<3, Int>,
    /// `[batch, kv_heads, living]`, f32.
    scores: Tensor<3>,
}

impl Living {
    fn join(self, other: Self) -> Self {
        Self {
            positions: Tensor::cat(vec![self.positions, other.positions], 2),
            scores: Tensor::cat(vec![self.scores, other.scores], 2),
        }
    }

    fn len(&self) -> usize {
        self.scores.dims()[2]
    }
}

impl H2o {
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for a local window that is empty or longer than `top_k`.
    pub fn new(config: H2oConfig) -> Result<Self> {
        check::local_window(config.local_window, config.top_k)?;
        Ok(Self { config, living: None })
    }

    /// Adds new tokens at `positions` with their first scores to the living.
    fn admit(&mut self, positions: Tensor<3, Int>, scores: Tensor<3>) {
        let new = Living { positions, scores };
        self.living = Some(match self.living.take() {
            Some(living) => living.join(new),
            None => new,
        });
    }

    /// The living after evictions: recent tokens and those with the highest scores.
    fn evict(&self, living: Living, sequence: &CachedSequence<'_>) -> Result<Living> {
        let H2oConfig { top_k, local_window } = self.config;
        if living.len() <= top_k {
            return Ok(living);
        }
        let spans = sequence.spans();
        let positions = parts::live_only(living.positions, &spans);
        let recent =
            parts::per_sequence(&spans, |span| span.end as i64 - local_window as i64, &positions.device());
        let recent = positions.clone().greater_equal(recent.expand(positions.dims()));
        let dead = positions.clone().lower_elem(0);
        let rank = living.scores.clone().mask_fill(recent, f32::MAX).mask_fill(dead, parts::MASKED);
        let kept = parts::top(rank, top_k)?;
        Ok(Living { positions: positions.gather(2, kept.clone()), scores: living.scores.gather(2, kept) })
    }

    fn transfer(&self, sequence: &CachedSequence<'_>) -> Transfer {
        let kept = parts::kept(&sequence.spans(), self.config.top_k);
        let scores = 2 * kept * sequence.layer().shape.kv_heads;
        Transfer { state: Part::new(scores, DType::F32.size()), ..parts::rows_transfer(sequence, kept, kept) }
    }
}

impl DecodeMethod for H2o {
    fn name(&self) -> &'static str {
        MethodKind::H2o.name()
    }

    fn observe_prefill(&mut self, chunk: &PromptChunk<'_>, sequence: &CachedSequence<'_>) -> Result<()> {
        let plan = chunk.plan();
        let weights = received_weights(&chunk.queries(), sequence, &plan)?; // [1, kv_heads, len]
        let device = weights.device();
        let gather = |positions: &Tensor<3, Int>| {
            let filler = positions.clone().lower_elem(0);
            weights.clone().gather(2, positions.clone().clamp_min(0)).mask_fill(filler, 0.0)
        };
        if let Some(living) = &mut self.living {
            living.scores = living.scores.clone() + gather(&living.positions);
        }
        let [batch, kv_heads, _] = weights.dims();
        let width = plan.as_slice().iter().map(|append| append.take).max().unwrap_or(0);
        if width == 0 {
            return Ok(());
        }
        let row = |append: &crate::spans::Append| -> Vec<i64> {
            let mut row: Vec<i64> = (append.at..append.at + append.take).map(|at| at as i64).collect();
            row.resize(width, parts::FILLER);
            row
        };
        let rows: Vec<i64> = plan.as_slice().iter().flat_map(row).collect();
        let positions = parts::ints(rows, [batch, 1, width], &device).expand([batch, kv_heads, width]);
        let scores = gather(&positions);
        self.admit(positions, scores);
        Ok(())
    }

    fn resume(&self, method: &Method) -> Option<Box<dyn DecodeMethod>> {
        match method {
            Method::H2o(config) => Some(Box::new(Self { config: *config, living: self.living.clone() })),
            _ => None,
        }
    }

    fn truncate(&mut self, sequence: &CachedSequence<'_>) -> Result<()> {
        // What later queries added to the scores of the tokens that remain is in them, and tokens that
        // they evicted are gone: neither is recorded.
        if !sequence.is_empty() {
            return Err(Error::CannotGoBack { method: self.name() });
        }
        self.living = None;
        Ok(())
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        self.resume(&Method::H2o(self.config))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        ops::check_queries(&q, sequence.layer().shape, [1, 1])?;
        let shape = sequence.layer().shape;
        let device = q.device();
        let current = parts::per_sequence(&sequence.spans(), |span| span.end as i64 - 1, &device);
        let current = current.expand([1, shape.kv_heads, 1]);
        self.admit(current, Tensor::zeros([1, shape.kv_heads, 1], (&device, DType::F32)));
        let living = match self.living.take() {
            Some(living) => self.evict(living, sequence)?,
            None => return Err(Error::MissingInCache { missing: "a cached token" }),
        };
        let attended = parts::attend(parts::grouped(q, &shape), sequence, living.positions)?;
        let added = attended.weights.clone().mean_dim(2).squeeze_dim(2);
        self.living = Some(Living { positions: attended.positions.clone(), scores: living.scores + added });
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

/// The weight that each cached position gets from the real queries of a chunk, summed over them and
/// averaged over the group: `[batch, kv_heads, len]`.
fn received_weights(q: &Tensor<4>, sequence: &CachedSequence<'_>, plan: &AppendPlan) -> Result<Tensor<3>> {
    let shape = sequence.layer().shape;
    let [batch, heads, width, head_dim] = q.dims();
    let (kv_heads, group) = (shape.kv_heads, shape.group());
    let len = plan.lens_after().into_iter().max().unwrap_or(0).max(1);
    let device = q.device();
    let keys = sequence.k()?.narrow(2, 0, len).cast(DType::F32).swap_dims(2, 3);
    let chunk = (CHUNK_WEIGHTS / (batch * heads * len)).clamp(1, width);
    let mut sum = Tensor::zeros([batch, kv_heads, len], (&device, DType::F32));
    for first in (0..width).step_by(chunk) {
        let count = chunk.min(width - first);
        let queries = q.clone().narrow(2, first, count);
        let queries = parts::scaled(queries.reshape([batch, kv_heads, group * count, head_dim]), sequence);
        let logits = parts::soft_cap(queries.matmul(keys.clone()), sequence.layer().softcap);
        let hidden: Vec<bool> = (0..batch)
            .flat_map(|b| (first..first + count).map(move |t| (b, t)))
            .map(|(b, t)| plan.visible(b, t, sequence.layer().window))
            .flat_map(|span| (0..len).map(move |s| s < span.start || s >= span.end))
            .collect();
        let shape = [batch, kv_heads, group, count, len];
        let hidden = parts::bools(hidden, [batch, 1, 1, count, len], &device).expand(shape);
        let logits = parts::overflow_to_nan(logits).reshape(shape);
        let logits = logits.mask_fill(hidden.clone(), parts::MASKED);
        // Rows of padding see nothing: filling again takes their even weights away.
        let weights = softmax(logits, 4).mask_fill(hidden, 0.0);
        let of_queries = weights.sum_dim(3).reshape([batch, kv_heads, group, len]);
        sum = sum + of_queries.mean_dim(2).squeeze_dim(2);
    }
    Ok(sum)
}
