//! Dense decode over slices.

use rayon::prelude::*;

use super::{Element, Sizes, attend::Attend};
use crate::ops::DenseStep;

/// See [`crate::ops::decode_dense`]. Returns `[batch, heads, 1, head_dim]`.
pub(in crate::ops) fn decode_dense<E: Element>(
    q: &[f32],
    k: &[E],
    v: &[E],
    step: &DenseStep,
    sizes: Sizes,
) -> Vec<f32> {
    let mut output = vec![0.0; q.len()];
    let per_group = sizes.group * sizes.head_dim;
    let per_head = sizes.capacity * sizes.head_dim;
    let attend = |(head, out): (usize, &mut [f32])| {
        let span = step.spans.as_slice()[head / sizes.kv_heads];
        let of_head = head * per_head..(head + 1) * per_head;
        let mut attend = Attend::new(&q[head * per_group..][..per_group], sizes.head_dim, step.softcap, out);
        attend.feed(&k[of_head.clone()], &v[of_head], span.start..span.end);
        attend.finish();
    };
    let heads = q.len() / per_group;
    match sizes.is_parallel(2 * step.spans.max_len(), heads) {
        true => output.par_chunks_mut(per_group).enumerate().for_each(attend),
        false => output.chunks_mut(per_group).enumerate().for_each(attend),
    }
    output
}
