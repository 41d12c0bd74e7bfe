//! Pieces that the methods share, made of Burn ops: they run on every backend as they are.
//!
//! `g` query heads share a KV head; a group's scores are `[batch, kv_heads, g, len]`.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData, activation::softmax};

use crate::{
    cache::CachedSequence,
    config::AttentionShape,
    device::{Kind, kind},
    error::{Error, Result},
    spans::{Span, Spans},
    transfer::Transfer,
};

/// Stands for minus infinity, as in [`crate::ops::oracle`].
pub(super) const MASKED: f32 = -1e30;

/// Position of a filler.
pub(super) const FILLER: i64 = -1;

/// What [`attend`] gives back.
pub(super) struct Attended {
    /// `[batch, heads, 1, head_dim]`.
    pub(super) output: Tensor<4>,
    /// Weights `[batch, kv_heads, g, kept]`; they sum to one over the live positions.
    pub(super) weights: Tensor<4>,
    /// The positions, those that are not live replaced by [`FILLER`].
    pub(super) positions: Tensor<3, Int>,
}

/// Queries `[batch, heads, 1, head_dim]` by group: `[batch, kv_heads, g, head_dim]`.
pub(super) fn grouped(q: Tensor<4>, shape: &AttentionShape) -> Tensor<4> {
    let [batch, _, _, head_dim] = q.dims();
    q.reshape([batch, shape.kv_heads, shape.group(), head_dim])
}

/// Values per group `[batch, kv_heads, g, n]` by head: `[batch, heads, n]`.
pub(super) fn by_head(x: Tensor<4>) -> Tensor<3> {
    let [batch, kv_heads, group, n] = x.dims();
    x.reshape([batch, kv_heads * group, n])
}

/// `scale · q · kᵀ` of grouped queries with all keys up to the last live one, capped; positions that are
/// not live are masked: `[batch, kv_heads, g, len]`.
pub(super) fn exact_logits(q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Tensor<4>> {
    let spans = sequence.spans();
    let k = sequence.k()?.narrow(2, 0, spans.max_end()).cast(DType::F32);
    let logits = soft_cap(scaled(q, sequence).matmul(k.swap_dims(2, 3)), sequence.layer().softcap);
    Ok(mask_dead(overflow_to_nan(logits), &spans))
}

/// Exact attention of grouped queries over `positions: [batch, kv_heads, kept]`, renormalised over
/// them. Fillers and positions that are not live get no weight, and no row is read for them.
pub(super) fn attend(
    q: Tensor<4>,
    sequence: &CachedSequence<'_>,
    positions: Tensor<3, Int>,
) -> Result<Attended> {
    let [batch, kv_heads, group, _] = q.dims();
    let [_, _, kept] = positions.dims();
    let positions = live_only(positions, &sequence.spans());
    let k = rows(sequence.k()?, &positions, &sequence.spans());
    let logits = soft_cap(scaled(q, sequence).matmul(k.swap_dims(2, 3)), sequence.layer().softcap);
    let logits = overflow_to_nan(logits);
    let dead = positions.clone().lower_elem(0).unsqueeze_dim::<4>(2).expand([batch, kv_heads, group, kept]);
    let weights = softmax(logits.mask_fill(dead, MASKED), 3);
    let v = rows(sequence.v()?, &positions, &sequence.spans());
    let [_, _, _, value_dim] = v.dims();
    let output = weights.clone().matmul(v).reshape([batch, kv_heads * group, 1, value_dim]);
    Ok(Attended { output, weights, positions })
}

/// `weights · V` over `positions`, not renormalised: `[batch, heads, 1, head_dim]`.
pub(super) fn weigh(
    weights: Tensor<4>,
    sequence: &CachedSequence<'_>,
    positions: &Tensor<3, Int>,
) -> Result<Tensor<4>> {
    let [batch, kv_heads, group, _] = weights.dims();
    let v = rows(sequence.v()?, positions, &sequence.spans());
    let [_, _, _, value_dim] = v.dims();
    Ok(weights.matmul(v).reshape([batch, kv_heads * group, 1, value_dim]))
}

/// Replaces positions outside of the spans by [`FILLER`].
pub(super) fn live_only(positions: Tensor<3, Int>, spans: &Spans) -> Tensor<3, Int> {
    let shape = positions.dims();
    let starts = per_sequence(spans, |span| span.start as i64, &positions.device()).expand(shape);
    let ends = per_sequence(spans, |span| span.end as i64, &positions.device()).expand(shape);
    let dead = positions.clone().lower(starts).bool_or(positions.clone().greater_equal(ends));
    positions.mask_fill(dead, FILLER)
}

/// The `k` positions that score highest: `scores: [batch, kv_heads, len]` to
/// `[batch, kv_heads, min(k, len)]`, best first.
///
/// # Errors
/// [`Error::ReadBack`] where the device fails.
pub(super) fn top(scores: Tensor<3>, k: usize) -> Result<Tensor<3, Int>> {
    let [batch, kv_heads, len] = scores.dims();
    let k = k.min(len);
    let device = scores.device();
    if kind(&device) != Kind::Cpu {
        // By sorting: top-k of a Cube backend is compiled in time with the square of k.
        return Ok(scores.argsort_descending(2).narrow(2, 0, k));
    }
    let scores: Vec<f32> = scores.into_data().try_to_vec().map_err(read_back)?;
    let mut best = Vec::with_capacity(batch * kv_heads * k);
    let mut order: Vec<u32> = vec![];
    for row in scores.chunks_exact(len.max(1)) {
        let better = |&a: &u32, &b: &u32| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b));
        order.clear();
        order.extend(0..len as u32);
        if k < len {
            order.select_nth_unstable_by(k, better);
        }
        order[..k].sort_unstable_by(better);
        best.extend(order[..k].iter().map(|&position| i64::from(position)));
    }
    Ok(ints(best, [batch, kv_heads, k], &device))
}

/// Scores that overflowed as NaN, as in [`crate::ops::oracle`]: no softmax may hide them.
pub(super) fn overflow_to_nan(scores: Tensor<4>) -> Tensor<4> {
    scores.clone() + scores.mul_scalar(0.0)
}

/// `output: [batch, heads, 1, head_dim]`, NaN where the scores `[batch, kv_heads, g, n]` that a choice
/// was made by are not all finite.
pub(super) fn unless_overflowed(output: Tensor<4>, scores: Tensor<4>) -> Tensor<4> {
    let [batch, heads, _, head_dim] = output.dims();
    let [_, kv_heads, _, _] = scores.dims();
    let zeros = scores.mul_scalar(0.0).sum_dim(3).sum_dim(2);
    let of_heads = zeros.expand([batch, kv_heads, heads / kv_heads, head_dim]);
    output + of_heads.reshape([batch, heads, 1, head_dim])
}

/// Sums group scores `[batch, kv_heads, g, len]` to `[batch, kv_heads, len]`.
pub(super) fn sum_group(scores: Tensor<4>) -> Tensor<3> {
    scores.sum_dim(2).squeeze_dim(2)
}

/// Group scores at positions `[batch, kv_heads, kept]`, fillers allowed: `[batch, kv_heads, g, kept]`.
pub(super) fn at(scores: Tensor<4>, positions: &Tensor<3, Int>) -> Tensor<4> {
    let [batch, kv_heads, group, _] = scores.dims();
    let [_, _, kept] = positions.dims();
    let index = positions.clone().clamp_min(0).unsqueeze_dim::<4>(2);
    scores.gather(3, index.expand([batch, kv_heads, group, kept]))
}

/// Masks positions that are not live in `scores: [batch, _, _, len]`.
pub(super) fn mask_dead(scores: Tensor<4>, spans: &Spans) -> Tensor<4> {
    match spans.is_full() {
        true => scores,
        false => mark(scores, spans, MASKED, |span, s| s < span.start || s >= span.end),
    }
}

/// Lets the last `count` live positions win: their scores become the largest number.
pub(super) fn force_last(scores: Tensor<3>, spans: &Spans, count: usize) -> Tensor<3> {
    let local = |span: Span, s: usize| s >= span.start && s < span.end && span.end - s <= count;
    mark(scores.unsqueeze_dim::<4>(2), spans, f32::MAX, local).squeeze_dim(2)
}

/// Sets `value` where `test(span, position)` holds, in `scores: [batch, _, _, len]`.
pub(super) fn mark(
    scores: Tensor<4>,
    spans: &Spans,
    value: f32,
    test: impl Fn(Span, usize) -> bool,
) -> Tensor<4> {
    let shape @ [batch, _, _, len] = scores.dims();
    let row = |span: &Span| (0..len).map(|s| test(*span, s)).collect::<Vec<_>>();
    let marks: Vec<bool> = spans.as_slice().iter().flat_map(row).collect();
    let marks = bools(marks, [batch, 1, 1, len], &scores.device());
    scores.mask_fill(marks.expand(shape), value)
}

/// Queries times the layer's scale.
pub(super) fn scaled(q: Tensor<4>, sequence: &CachedSequence<'_>) -> Tensor<4> {
    q.mul_scalar(sequence.layer().scale())
}

/// `cap · tanh(x / cap)`, where there is a cap.
pub(super) fn soft_cap(x: Tensor<4>, cap: Option<f32>) -> Tensor<4> {
    match cap {
        Some(cap) => x.div_scalar(cap).tanh().mul_scalar(cap),
        None => x,
    }
}

/// One number per sequence, `[batch, 1, 1]`.
pub(super) fn per_sequence(spans: &Spans, value: impl Fn(&Span) -> i64, device: &Device) -> Tensor<3, Int> {
    let values: Vec<i64> = spans.as_slice().iter().map(value).collect();
    ints(values, [spans.as_slice().len(), 1, 1], device)
}

/// An integer tensor of row-major values.
pub(super) fn ints<const D: usize>(values: Vec<i64>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor of row-major truth values.
pub(super) fn bools<const D: usize>(
    values: Vec<bool>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Bool> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Rows of `x: [batch, kv_heads, capacity, width]` at the positions, in f32:
/// `[batch, kv_heads, kept, width]`. Fillers repeat the last live row.
pub(super) fn rows(x: Tensor<4>, positions: &Tensor<3, Int>, spans: &Spans) -> Tensor<4> {
    let [batch, kv_heads, capacity, width] = x.dims();
    let shape @ [_, _, kept] = positions.dims();
    let device = positions.device();
    let last = per_sequence(spans, |span| span.end as i64 - 1, &device).expand(shape);
    let filler = positions.clone().lower_elem(0);
    let positions = positions.clone().mask_where(filler, last);
    let firsts = (0..batch * kv_heads).map(|group| (group * capacity) as i64).collect();
    let firsts = ints(firsts, [batch, kv_heads, 1], &device).expand(shape);
    let flat = (positions + firsts).reshape([batch * kv_heads * kept]);
    let picked = x.reshape([batch * kv_heads * capacity, width]).select(0, flat);
    picked.reshape([batch, kv_heads, kept, width]).cast(DType::F32)
}

/// Transfers of a step that reads `keys` and `values` whole rows per KV head, and writes the new token.
pub(super) fn rows_transfer(sequence: &CachedSequence<'_>, keys: usize, values: usize) -> Transfer {
    Transfer {
        k: sequence.key_rows(keys),
        v: sequence.value_rows(values),
        append: sequence.append_part(),
        mean_value: sequence.mean_value_part(),
        ..Transfer::default()
    }
}

/// Live positions of all sequences together.
pub(super) fn live(spans: &Spans) -> usize {
    spans.as_slice().iter().map(Span::len).sum()
}

/// Positions kept of all sequences together where each keeps at most `top_k`.
pub(super) fn kept(spans: &Spans, top_k: usize) -> usize {
    spans.as_slice().iter().map(|span| span.len().min(top_k)).sum()
}

/// Rows of the transposed keys named by `components: [batch, kv_heads, n]`, up to the last live
/// position, in f32: `[batch, kv_heads, n, len]`.
pub(super) fn kt_rows(sequence: &CachedSequence<'_>, components: &Tensor<3, Int>) -> Result<Tensor<4>> {
    let k_t = sequence.k_t()?;
    let [batch, kv_heads, head_dim, capacity] = k_t.dims();
    let [_, _, count] = components.dims();
    let firsts = (0..batch * kv_heads).map(|group| (group * head_dim) as i64).collect();
    let firsts = ints(firsts, [batch, kv_heads, 1], &components.device()).expand([batch, kv_heads, count]);
    let flat = (components.clone() + firsts).reshape([batch * kv_heads * count]);
    let picked = k_t.reshape([batch * kv_heads * head_dim, capacity]).select(0, flat);
    let picked = picked.narrow(1, 0, sequence.spans().max_end()).cast(DType::F32);
    Ok(picked.reshape([batch, kv_heads, count, sequence.spans().max_end()]))
}

/// The error for values that a device did not hand out.
pub(super) fn read_back(error: impl std::fmt::Debug) -> Error {
    Error::ReadBack { message: format!("{error:?}") }
}
