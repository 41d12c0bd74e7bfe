//! Dense decode over slices.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    Element, Sizes,
    attend::{KeyValues, Partial, attend},
    split::{is_parallel, part_of, parts},
};
use crate::ops::AttendParams;

thread_local! {
    /// Results of the parts, kept by the thread that asks.
    static PARTS: RefCell<Vec<Partial>> = RefCell::default();
}

/// See [`crate::ops::decode_dense`], with one query per sequence. Returns `[batch, heads, 1, head_dim]` and
/// the log-sum-exp `[batch, heads, 1]`.
pub(in crate::ops) fn decode_dense<E: Element>(
    q: &[f32],
    k: &[E],
    v: &[E],
    params: &AttendParams,
    sizes: Sizes,
) -> (Vec<f32>, Vec<f32>) {
    let spans = params.spans();
    let mut output = vec![0.0; q.len()];
    let mut log_sums = vec![0.0; q.len() / sizes.head_dim];
    let per_group = sizes.group * sizes.head_dim;
    let heads = q.len() / per_group;
    let chunks = spans.as_slice().iter().map(|&span| parts(span)).max().unwrap_or(1);
    let part = |(task, partial): (usize, &mut Partial)| {
        let (head, chunk) = (task / chunks, task % chunks);
        let sequence = head / sizes.kv_heads;
        let span = spans.as_slice()[sequence];
        let of_head = sizes.of_head(params.place(sequence, sizes.capacity), head % sizes.kv_heads);
        let kv = KeyValues {
            k: &k[of_head.clone()],
            v: &v[of_head],
            head_dim: sizes.head_dim,
            softcap: params.softcap,
            scale: params.scale,
        };
        let q = &q[head * per_group..][..per_group];
        attend(q, &kv, part_of(span, chunk), partial);
    };
    // Taken out while others work: a thread that waits for them may be given another decode step.
    let mut partials = PARTS.take();
    let tasks = heads * chunks;
    partials.resize_with(partials.len().max(tasks), Partial::default);
    match is_parallel(heads, spans.max_len(), 2 * sizes.head_dim) {
        true => partials[..tasks].par_iter_mut().enumerate().for_each(part),
        false => partials[..tasks].iter_mut().enumerate().for_each(part),
    }
    let heads = output.chunks_exact_mut(per_group).zip(log_sums.chunks_exact_mut(sizes.group));
    for (head, (out, log_sums)) in heads.enumerate() {
        let count = parts(spans.as_slice()[head / sizes.kv_heads]);
        let of_head = partials[head * chunks..][..count].iter();
        Partial::merge(of_head, sizes.head_dim, out, |head, log_sum| log_sums[head] = log_sum);
    }
    PARTS.set(partials);
    (output, log_sums)
}
