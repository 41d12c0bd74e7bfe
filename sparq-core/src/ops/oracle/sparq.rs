//! SparQ attention in its three steps (paper, Algorithm 1). `g` query heads share a KV head.

use burn::{
    backend::{
        Backend, TensorMetadata,
        tensor::{BoolTensor, FloatTensor, IntTensor},
    },
    tensor::{Shape, TensorData},
};

use super::{
    MASKED,
    attention::exponentials,
    bool_dtype, bools, dims, expand, f32, int_dtype, mask_dead, narrow, overflow_to_nan, position_mask,
    reshape, select_rows, slice,
    slots::{self, Part},
    soft_cap,
};
use crate::{
    config::GroupScores,
    ops::{AttendParams, SparqParams},
    spans::{Span, Spans},
};

/// See [`crate::ops::decode_sparq`].
pub fn decode_sparq<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    k_t: FloatTensor<B>,
    v: FloatTensor<B>,
    v_sum: FloatTensor<B>,
    params: &SparqParams,
) -> (FloatTensor<B>, IntTensor<B>, FloatTensor<B>) {
    let [batch, heads, _, head_dim] = dims(&q);
    let [slots, kv_heads, _, _] = dims(&k);
    let [_, _, _, value_dim] = dims(&v);
    let queries = &params.attend.queries;
    if !queries.is_rectangle(slots) {
        return sparq_each::<B>(q, [k, v], v_sum, params, |b| {
            Part::of_columns(&k_t, queries, b).get::<B>(k_t.clone())
        });
    }
    let (spans, config) = (params.attend.spans(), &params.config);
    let q = reshape::<B, 4>(q, [batch, kv_heads, heads / kv_heads, head_dim]);

    let logits = approximate_scores::<B>(q.clone(), k_t, &spans, config.rank, params.attend.scale);
    let overflow = overflow_of::<B>(logits.clone());
    let (positions, mass, approximate) = select_tokens::<B>(logits, params);
    let (output, positions, exact) = attend_selected::<B>(q, k, v, positions, &params.attend);
    let output = match config.mean_value {
        true => reallocate_to_mean::<B>(output, v_sum, mass.clone(), &spans),
        false => output,
    };
    let output = B::float_add(output.clone(), expand::<B, 4>(overflow, dims(&output)));
    let masses = B::float_cat(vec![mass, approximate, exact], 3);
    (
        reshape::<B, 4>(output, [batch, heads, 1, value_dim]),
        positions,
        reshape::<B, 3>(masses, [batch, heads, 3]),
    )
}

/// [`decode_sparq`] for one sequence after another; `k_t` gives the transposed keys of sequence `b`.
pub(super) fn sparq_each<B: Backend>(
    q: FloatTensor<B>,
    [k, v]: [FloatTensor<B>; 2],
    v_sum: FloatTensor<B>,
    params: &SparqParams,
    k_t: impl Fn(usize) -> FloatTensor<B>,
) -> (FloatTensor<B>, IntTensor<B>, FloatTensor<B>) {
    let queries = &params.attend.queries;
    let kept = params.config.top_k.min(params.attend.spans().max_end());
    let (mut outputs, mut positions, mut masses) = (vec![], vec![], vec![]);
    for (b, append) in queries.as_slice().iter().enumerate() {
        let alone = SparqParams { attend: params.attend.alone(b), ..params.clone() };
        let part = |x: &FloatTensor<B>| Part::of_rows(x, queries, b).get::<B>(x.clone());
        let v_sum = narrow::<B>(v_sum.clone(), 0, append.slot, 1);
        let found = decode_sparq::<B>(slots::row::<B>(&q, b), part(&k), k_t(b), part(&v), v_sum, &alone);
        outputs.push(found.0);
        positions.push(filled_up::<B>(found.1, kept));
        masses.push(found.2);
    }
    (slots::together::<B>(outputs), B::int_cat(positions, 0), slots::together::<B>(masses))
}

/// Positions `[1, kv_heads, n]` with -1 behind them, `[1, kv_heads, kept]`.
fn filled_up<B: Backend>(positions: IntTensor<B>, kept: usize) -> IntTensor<B> {
    let [_, kv_heads, count] = dims(&positions);
    let device = positions.device();
    match kept > count {
        true => {
            let filler = Shape::new([1, kv_heads, kept - count]);
            let filler = B::int_full(filler, (-1i64).into(), &device, int_dtype::<B>(&device));
            B::int_cat(vec![positions, filler], 2)
        }
        false => positions,
    }
}

/// 0 for each group whose logits `[batch, kv_heads, g, len]` are finite, else NaN, `[batch, kv_heads, 1, 1]`:
/// what a position would have weighed whose score overflowed is not known, so none may be left out.
pub fn overflow_of<B: Backend>(logits: FloatTensor<B>) -> FloatTensor<B> {
    let zeros = B::float_mul_scalar(logits, 0.0f32.into());
    B::float_sum_dim(B::float_sum_dim(zeros, 3), 2)
}

/// Step 1: `scale · √d · q[i1] · K[:, i1]ᵀ / τ` with `i1` the `rank` components where the group's `Σ|q|` is
/// largest and `τ = √(d · ‖q[i1]‖₁ / ‖q‖₁)` per head. With the usual scale `1 / √d` the first two factors are
/// one, as in the paper.
///
/// `q: [batch, kv_heads, g, head_dim]`, `k_t: [batch, kv_heads, head_dim, capacity]`; returns
/// logits `[batch, kv_heads, g, len]`, masked where a position is not live, NaN where one overflowed.
pub fn approximate_scores<B: Backend>(
    q: FloatTensor<B>,
    k_t: FloatTensor<B>,
    spans: &Spans,
    rank: usize,
    scale: f32,
) -> FloatTensor<B> {
    let [batch, kv_heads, group, head_dim] = dims(&q);
    let [_, _, _, capacity] = dims(&k_t);
    let len = spans.max_end();
    let magnitude = B::float_abs(q.clone());
    let of_group = B::float_sum_dim(magnitude.clone(), 2);
    let i1 = largest::<B>(of_group, rank); // [batch, kv_heads, 1, rank]

    let wide = B::int_expand(i1.clone(), Shape::new([batch, kv_heads, group, rank]));
    let q_hat = B::float_gather(3, q, wide);
    let kept = B::float_sum_dim(B::float_abs(q_hat.clone()), 3);
    // Guards ‖q‖₁ = 0: then every logit is 0 whatever τ is.
    let all = B::float_clamp_min(B::float_sum_dim(magnitude, 3), f32::MIN_POSITIVE.into());
    let tau_squared = B::float_mul_scalar(B::float_div(kept, all), (head_dim as f32).into());
    // τ² ≥ r ≥ 1 for any other query, since the largest components were kept.
    let tau = B::float_sqrt(B::float_clamp_min(tau_squared, 1.0f32.into()));
    let q_hat = B::float_div(q_hat, expand::<B, 4>(tau, [batch, kv_heads, group, rank]));
    let q_hat = match scale_beyond_usual(scale, head_dim) {
        Some(factor) => B::float_mul_scalar(q_hat, factor.into()),
        None => q_hat,
    };

    let rows = reshape::<B, 3>(k_t, [batch * kv_heads, head_dim, capacity]);
    let rows = select_rows::<B>(rows, B::int_reshape(i1, Shape::new([batch * kv_heads, rank])));
    let rows = f32::<B>(narrow::<B>(rows, 2, 0, len));
    let rows = reshape::<B, 4>(rows, [batch, kv_heads, rank, len]);
    mask_dead::<B>(overflow_to_nan::<B>(B::float_matmul(q_hat, rows)), spans)
}

/// `scale · √d`, where that is not one.
pub(in crate::ops) fn scale_beyond_usual(scale: f32, head_dim: usize) -> Option<f32> {
    let usual = 1.0 / (head_dim as f32).sqrt();
    (scale != usual).then(|| scale / usual)
}

/// Step 2, first half: the `top_k` positions `[batch, kv_heads, kept]` that the whole group reads,
/// the last `local_window` always among them, chosen as [`crate::config::TopkRule`] says, and each head's approximate mass there,
/// `α = Σ ŝ[i2]: [batch, kv_heads, g, 1]`; and the log-sum-exp of the capped logits, of the same shape.
pub fn select_tokens<B: Backend>(
    logits: FloatTensor<B>,
    params: &SparqParams,
) -> (IntTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (spans, config) = (&params.attend.spans(), &params.config);
    let [batch, kv_heads, group, len] = dims(&logits);
    let device = logits.device();
    let softcap = params.attend.softcap;
    let capped = match softcap {
        Some(_) => mask_dead::<B>(soft_cap::<B>(logits.clone(), softcap), spans),
        None => logits.clone(),
    };
    let (weights, sums, log_sum) = exponentials::<B>(capped);
    let s_hat = B::float_div(weights, expand::<B, 4>(sums, [batch, kv_heads, group, len]));
    let of_group = match config.group_scores {
        GroupScores::ScaledLogits => logits,
        GroupScores::Softmax => s_hat.clone(),
    };
    let of_group = mask_dead::<B>(B::float_sum_dim(of_group, 2), spans);
    let local = |span: Span, s: usize| s >= span.start && s < span.end && span.end - s <= config.local_window;
    let mask = position_mask::<B>(spans, [batch, kv_heads, 1, len], &device, local);
    let of_group = match config.buckets() {
        Some(buckets) => {
            let candidates = B::float_mask_fill(of_group.clone(), mask.clone(), MASKED.into());
            B::float_mask_fill(of_group, third_or_later::<B>(candidates, buckets), BEATEN.into())
        }
        None => of_group,
    };
    let of_group = B::float_mask_fill(of_group, mask, f32::MAX.into());

    let kept = config.top_k.min(len);
    let i2 = largest::<B>(of_group, kept); // [batch, kv_heads, 1, kept]
    let wide = B::int_expand(i2.clone(), Shape::new([batch, kv_heads, group, kept]));
    let alpha = B::float_sum_dim(B::float_gather(3, s_hat, wide), 3);
    (B::int_reshape(i2, Shape::new([batch, kv_heads, kept])), alpha, log_sum)
}

/// What a live position counts for that others of its bucket beat: less than any score, and more than
/// what is not live.
const BEATEN: f32 = MASKED / 2.0;

/// Where scores `[batch, kv_heads, 1, len]` are not among the best two of their bucket.
fn third_or_later<B: Backend>(scores: FloatTensor<B>, buckets: usize) -> BoolTensor<B> {
    let [batch, kv_heads, _, len] = dims(&scores);
    let (device, dtype) = (scores.device(), scores.dtype().into());
    let rounds = len.div_ceil(buckets);
    let missing = Shape::new([batch, kv_heads, 1, rounds * buckets - len]);
    let padded = match rounds * buckets > len {
        true => {
            let padding = B::float_full(missing, MASKED.into(), &device, dtype);
            B::float_cat(vec![scores, padding], 3)
        }
        false => scores,
    };
    let of_bucket = reshape::<B, 4>(padded, [batch, kv_heads, rounds, buckets]);
    let int = int_dtype::<B>(&device);
    let order = B::float_argsort(of_bucket, 2, true, int);
    let ranks = B::int_argsort(order, 2, false);
    let ranks = B::int_reshape(ranks, Shape::new([batch, kv_heads, 1, rounds * buckets]));
    let ranks = B::int_slice(ranks, &[slice(0, batch), slice(0, kv_heads), slice(0, 1), slice(0, len)]);
    B::int_greater_elem(ranks, 1i64.into(), bool_dtype::<B>(&device))
}

/// Indices of the `k` largest along the last of four axes, the largest first.
///
/// By sorting, which Cube backends leave to the host: their top-k spells itself out k times in one
/// kernel, and its compilation takes time with the square of that.
fn largest<B: Backend>(x: FloatTensor<B>, k: usize) -> IntTensor<B> {
    let [batch, heads, queries, _] = dims(&x);
    let out_dtype = int_dtype::<B>(&x.device());
    let sorted = B::float_argsort(x, 3, true, out_dtype);
    B::int_slice(sorted, &[slice(0, batch), slice(0, heads), slice(0, queries), slice(0, k)])
}

/// Step 2, second half: `softmax(scale · q · K[i2]ᵀ) · V[i2]`, renormalised over the kept positions:
/// `[batch, kv_heads, g, head_dim]`. Kept positions that are not live (a sequence shorter than
/// `top_k`) get no weight and come back as -1. The log-sum-exp over the kept ones is
/// `[batch, kv_heads, g, 1]`.
pub fn attend_selected<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    positions: IntTensor<B>,
    params: &AttendParams,
) -> (FloatTensor<B>, IntTensor<B>, FloatTensor<B>) {
    let spans = &params.spans();
    let [batch, kv_heads, group, _] = dims(&q);
    let [_, _, kept] = dims(&positions);
    let device = q.device();
    let groups = batch * kv_heads;
    let flat = B::int_reshape(positions.clone(), Shape::new([groups, kept]));
    let pick = |x: FloatTensor<B>| {
        let [_, _, capacity, size] = dims(&x);
        let rows = select_rows::<B>(reshape::<B, 3>(x, [groups, capacity, size]), flat.clone());
        f32::<B>(reshape::<B, 4>(rows, [batch, kv_heads, kept, size]))
    };
    let q = B::float_mul_scalar(q, params.scale.into());
    let logits = soft_cap::<B>(B::float_matmul(q, B::float_swap_dims(pick(k), 2, 3)), params.softcap);
    let mut logits = overflow_to_nan::<B>(logits);
    let mut positions = positions;
    if !spans.is_full() {
        let live = |span: Span, s: usize| s >= span.start && s < span.end;
        let mask = position_mask::<B>(spans, [batch, kv_heads, 1, spans.max_end()], &device, live);
        let live = B::bool_into_int(mask, int_dtype::<B>(&device));
        let index = B::int_reshape(positions.clone(), Shape::new([batch, kv_heads, 1, kept]));
        let dead = B::int_equal_elem(B::int_gather(3, live, index), 0i64.into(), bool_dtype::<B>(&device));
        positions = B::int_mask_fill(
            positions,
            B::bool_reshape(dead.clone(), Shape::new([batch, kv_heads, kept])),
            (-1i64).into(),
        );
        let dead = B::bool_expand(dead, Shape::new([batch, kv_heads, group, kept]));
        logits = B::float_mask_fill(logits, dead, MASKED.into());
    }
    let v = pick(v);
    let [_, _, _, value_dim] = dims(&v);
    let (weights, sums, log_sum) = exponentials::<B>(logits);
    let sums = expand::<B, 4>(sums, [batch, kv_heads, group, value_dim]);
    (B::float_div(B::float_matmul(weights, v), sums), positions, log_sum)
}

/// Step 3: `α · y + (1 − α) · v̄`, with v̄ the mean of all values. Where a window leaves some of them
/// out, their mean is not that of the live ones and `y` stays as it is.
///
/// `output: [batch, kv_heads, g, head_dim]`, `v_sum: [batch, kv_heads, head_dim]`,
/// `alpha: [batch, kv_heads, g, 1]`.
pub fn reallocate_to_mean<B: Backend>(
    output: FloatTensor<B>,
    v_sum: FloatTensor<B>,
    alpha: FloatTensor<B>,
    spans: &Spans,
) -> FloatTensor<B> {
    let shape @ [batch, kv_heads, _, head_dim] = dims::<4>(&output);
    let device = output.device();
    let lens: Vec<f32> = spans.as_slice().iter().map(|span| span.len().max(1) as f32).collect();
    let lens = B::float_from_data(TensorData::new(lens, [batch, 1, 1, 1]), &device);
    let sum = reshape::<B, 4>(v_sum, [batch, kv_heads, 1, head_dim]);
    let mean = B::float_div(sum, expand::<B, 4>(lens, [batch, kv_heads, 1, head_dim]));
    let alpha = expand::<B, 4>(alpha, shape);
    let rest = B::float_add_scalar(B::float_neg(alpha.clone()), 1.0f32.into());
    let spread = B::float_mul(rest, expand::<B, 4>(mean, shape));
    let mixed = B::float_add(B::float_mul(output.clone(), alpha), spread);
    let windowed: Vec<bool> = spans.as_slice().iter().map(|span| span.start > 0).collect();
    let windowed = bools::<B, 4>(windowed, [batch, 1, 1, 1], &device);
    B::float_mask_where(mixed, B::bool_expand(windowed, Shape::new(shape)), output)
}
