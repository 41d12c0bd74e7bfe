//! Dense attention: any number of causal queries per sequence.

use burn::{
    backend::{Backend, TensorMetadata, tensor::FloatTensor},
    tensor::Shape,
};

use super::{
    MASKED, bools, dims, expand, f32, narrow, overflow_to_nan, reshape,
    slots::{self, Part},
    soft_cap,
};
use crate::ops::AttendParams;

/// Scores that one chunk may hold at a time (elements; 64 MiB in f32).
const CHUNK_SCORES: usize = 1 << 24;
/// Queries per chunk even where that is exceeded: fewer would starve the matrix product.
const MIN_CHUNK: usize = 16;

/// See [`crate::ops::prefill`] and [`crate::ops::decode_dense`]: `softmax(scale · q · kᵀ) · v` over the
/// positions that each query sees, grouped query heads folded into the query axis, in f32; and the
/// log-sum-exp `[batch, heads, width]`.
///
/// Queries go in chunks and are multiplied with the keys that one of them sees, so memory grows with the
/// length, not with its square.
pub fn attend<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    params: &AttendParams,
) -> (FloatTensor<B>, FloatTensor<B>) {
    attend_with::<B>(q, k, v, params, |scores, params, block| {
        hide::<B>(overflow_to_nan::<B>(scores), params, block)
    })
}

/// A part of the scores of a prefill.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Block {
    /// First column of the batch, and how many.
    pub(in crate::ops) columns: (usize, usize),
    /// First position, and how many.
    pub(in crate::ops) positions: (usize, usize),
}

/// [`attend`] with `limit`, which is given capped scores `[batch, kv_heads, g · columns, positions]`
/// of a block, fills those that a column does not see with [`MASKED`], and makes others that are not
/// finite NaN. Its parameters are those of the sequences that it is given.
pub(in crate::ops) fn attend_with<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    params: &AttendParams,
    limit: impl Fn(FloatTensor<B>, &AttendParams, Block) -> FloatTensor<B> + Copy,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [batch, heads, width, head_dim] = dims(&q);
    if !params.queries.is_rectangle(dims::<4>(&k)[0]) {
        let of_sequence = |b| {
            let (k_part, v_part) =
                (Part::of_rows(&k, &params.queries, b), Part::of_rows(&v, &params.queries, b));
            let (k, v) = (k_part.get::<B>(k.clone()), v_part.get::<B>(v.clone()));
            attend_with::<B>(slots::row::<B>(&q, b), k, v, &params.alone(b), limit)
        };
        let (outputs, log_sums) = (0..batch).map(of_sequence).unzip();
        return (slots::together::<B>(outputs), slots::together::<B>(log_sums));
    }
    let [_, kv_heads, _, _] = dims(&k);
    let [_, _, _, value_dim] = dims(&v);
    let plan = &params.queries;
    let len = plan.lens_after().into_iter().max().unwrap_or(0);
    let chunk = (CHUNK_SCORES / (batch * heads * len).max(1)).max(MIN_CHUNK).min(width);
    let (mut outputs, mut log_sums) = (vec![], vec![]);
    for first in (0..width).step_by(chunk.max(1)) {
        let count = chunk.min(width - first);
        let columns = (0..batch).flat_map(|b| (first..first + count).map(move |t| (b, t)));
        let seen = || {
            columns.clone().map(|(b, t)| plan.visible(b, t, params.window)).filter(|span| !span.is_empty())
        };
        let start = seen().map(|span| span.start).min().unwrap_or(0);
        let len = seen().map(|span| span.end - start).max().unwrap_or(1);

        let rows = heads / kv_heads * count;
        let queries = narrow::<B>(q.clone(), 2, first, count);
        let queries = reshape::<B, 4>(queries, [batch, kv_heads, rows, head_dim]);
        let k = f32::<B>(narrow::<B>(k.clone(), 2, start, len));
        let v = f32::<B>(narrow::<B>(v.clone(), 2, start, len));
        // The query first: a product may overflow that its scale would have kept small.
        let queries = B::float_mul_scalar(queries, params.scale.into());
        let scores = B::float_matmul(queries, B::float_swap_dims(k, 2, 3));
        let scores = soft_cap::<B>(scores, params.softcap);
        let scores = limit(scores, params, Block { columns: (first, count), positions: (start, len) });

        let (weights, sums, log_sum) = exponentials::<B>(scores);
        let sums = expand::<B, 4>(sums, [batch, kv_heads, rows, value_dim]);
        let output = B::float_div(B::float_matmul(weights, v), sums);
        outputs.push(reshape::<B, 4>(output, [batch, heads, count, value_dim]));
        log_sums.push(reshape::<B, 3>(log_sum, [batch, heads, count]));
    }
    (together::<B>(outputs), together::<B>(log_sums))
}

/// `exp(x − max)` along the last of four axes, its sum and the logarithm of the sum of `exp(x)`, both with
/// one element along that axis.
pub(super) fn exponentials<B: Backend>(
    scores: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = dims::<4>(&scores);
    let maximum = B::float_max_dim(scores.clone(), 3);
    let weights = B::float_exp(B::float_sub(scores, expand::<B, 4>(maximum.clone(), shape)));
    let sums = B::float_sum_dim(weights.clone(), 3);
    let log_sum = B::float_add(maximum, B::float_log(sums.clone()));
    (weights, sums, log_sum)
}

/// Chunks along the third axis, which is that of the columns.
fn together<B: Backend>(mut chunks: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match chunks.len() {
        1 => chunks.remove(0),
        _ => B::float_cat(chunks, 2),
    }
}

/// Fills scores that a column does not see.
fn hide<B: Backend>(scores: FloatTensor<B>, params: &AttendParams, block: Block) -> FloatTensor<B> {
    let [batch, kv_heads, rows, len] = dims(&scores);
    let ((first, count), (start, _)) = (block.columns, block.positions);
    let shape = [batch, kv_heads, rows / count, count, len];
    let hidden: Vec<bool> = (0..batch)
        .flat_map(|b| (first..first + count).map(move |t| (b, t)))
        .map(|(b, t)| params.queries.visible(b, t, params.window))
        .flat_map(|span| (start..start + len).map(move |s| s < span.start || s >= span.end))
        .collect();
    if !hidden.contains(&true) {
        return scores;
    }
    let mask = bools::<B, 5>(hidden, [batch, 1, 1, count, len], &scores.device());
    let mask = B::bool_expand(mask, Shape::new(shape));
    let scores = B::float_mask_fill(reshape::<B, 5>(scores, shape), mask, MASKED.into());
    reshape::<B, 4>(scores, [batch, kv_heads, rows, len])
}
