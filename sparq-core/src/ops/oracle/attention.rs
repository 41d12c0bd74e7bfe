//! Dense attention: causal prefill and one-token decode.

use burn::{
    backend::{Backend, TensorMetadata, tensor::FloatTensor},
    tensor::Shape,
};

use super::{MASKED, bools, dims, f32, mask_dead, narrow, overflow_to_nan, reshape, soft_cap};
use crate::ops::{DenseStep, PrefillStep};

/// Scores that one prefill chunk may hold at a time (elements; 64 MiB in f32).
const CHUNK_SCORES: usize = 1 << 24;
/// Queries per chunk even where that is exceeded: fewer would starve the matrix product.
const MIN_CHUNK: usize = 16;

/// See [`crate::ops::decode_dense`]: `softmax(q · kᵀ / √d) · v` over the live positions, grouped query
/// heads folded into the query axis, in f32.
pub fn decode_dense<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    step: &DenseStep,
) -> FloatTensor<B> {
    let [batch, heads, _, head_dim] = dims(&q);
    let [_, kv_heads, _, _] = dims(&k);
    let len = step.spans.max_end();
    let q = reshape::<B, 4>(q, [batch, kv_heads, heads / kv_heads, head_dim]);
    let k = f32::<B>(narrow::<B>(k, 2, 0, len));
    let v = f32::<B>(narrow::<B>(v, 2, 0, len));
    let scores = overflow_to_nan::<B>(scores::<B>(q, k, step.softcap));
    let scores = mask_dead::<B>(scores, &step.spans);
    reshape::<B, 4>(B::float_matmul(B::softmax(scores, 3), v), [batch, heads, 1, head_dim])
}

/// See [`crate::ops::prefill`]. Queries go in chunks and are multiplied with the keys that one of
/// them sees, so memory grows with the length, not with its square.
pub fn prefill<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    step: &PrefillStep,
) -> FloatTensor<B> {
    prefill_with::<B>(q, k, v, step, |scores, block| hide::<B>(overflow_to_nan::<B>(scores), step, block))
}

/// A part of the scores of a prefill.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Block {
    /// First column of the batch, and how many.
    pub(in crate::ops) columns: (usize, usize),
    /// First position, and how many.
    pub(in crate::ops) positions: (usize, usize),
}

/// [`prefill`] with `limit`, which is given capped scores `[batch, kv_heads, g · columns, positions]`
/// of a block, fills those that a column does not see with [`MASKED`], and makes others that are not
/// finite NaN.
pub(in crate::ops) fn prefill_with<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    step: &PrefillStep,
    limit: impl Fn(FloatTensor<B>, Block) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let [batch, heads, width, head_dim] = dims(&q);
    let [_, kv_heads, _, _] = dims(&k);
    let len = step.plan.lens_after().into_iter().max().unwrap_or(0);
    let chunk = (CHUNK_SCORES / (batch * heads * len).max(1)).max(MIN_CHUNK).min(width);
    let mut outputs = Vec::with_capacity(width.div_ceil(chunk));
    for first in (0..width).step_by(chunk) {
        let count = chunk.min(width - first);
        let columns = (0..batch).flat_map(|b| (first..first + count).map(move |t| (b, t)));
        let seen = || {
            columns.clone().map(|(b, t)| step.plan.visible(b, t, step.window)).filter(|span| !span.is_empty())
        };
        let start = seen().map(|span| span.start).min().unwrap_or(0);
        let len = seen().map(|span| span.end - start).max().unwrap_or(1);

        let queries = narrow::<B>(q.clone(), 2, first, count);
        let queries = reshape::<B, 4>(queries, [batch, kv_heads, heads / kv_heads * count, head_dim]);
        let k = f32::<B>(narrow::<B>(k.clone(), 2, start, len));
        let v = f32::<B>(narrow::<B>(v.clone(), 2, start, len));
        let scores = scores::<B>(queries, k, step.softcap);
        let scores = limit(scores, Block { columns: (first, count), positions: (start, len) });
        let output = B::float_matmul(B::softmax(scores, 3), v);
        outputs.push(reshape::<B, 4>(output, [batch, heads, count, head_dim]));
    }
    match outputs.len() {
        1 => outputs.remove(0),
        _ => B::float_cat(outputs, 2),
    }
}

/// Fills scores that a column does not see.
fn hide<B: Backend>(scores: FloatTensor<B>, step: &PrefillStep, block: Block) -> FloatTensor<B> {
    let [batch, kv_heads, rows, len] = dims(&scores);
    let ((first, count), (start, _)) = (block.columns, block.positions);
    let shape = [batch, kv_heads, rows / count, count, len];
    let hidden = (0..batch)
        .flat_map(|b| (first..first + count).map(move |t| (b, t)))
        .map(|(b, t)| step.plan.visible(b, t, step.window))
        .flat_map(|span| (start..start + len).map(move |s| s < span.start || s >= span.end))
        .collect();
    let mask = bools::<B, 5>(hidden, [batch, 1, 1, count, len], &scores.device());
    let mask = B::bool_expand(mask, Shape::new(shape));
    let scores = B::float_mask_fill(reshape::<B, 5>(scores, shape), mask, MASKED.into());
    reshape::<B, 4>(scores, [batch, kv_heads, rows, len])
}

/// `q · kᵀ / √d`, the query divided first, capped.
fn scores<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, softcap: Option<f32>) -> FloatTensor<B> {
    let [_, _, _, head_dim] = dims(&q);
    let q = B::float_mul_scalar(q, (1.0 / (head_dim as f32).sqrt()).into());
    soft_cap::<B>(B::float_matmul(q, B::float_swap_dims(k, 2, 3)), softcap)
}
