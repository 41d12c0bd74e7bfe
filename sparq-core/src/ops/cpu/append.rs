//! In-place writes of new tokens: `O(d)` per token and head.

use super::{Element, Sizes};
use crate::spans::AppendPlan;

/// Calls `write(sequence and head, row, position)` for each real row of `rows`
/// `[batch, kv_heads, width, head_dim]`.
fn each_row(rows: &[f32], plan: &AppendPlan, sizes: Sizes, mut write: impl FnMut(usize, &[f32], usize)) {
    let Sizes { kv_heads, head_dim, .. } = sizes;
    for (b, append) in plan.as_slice().iter().enumerate() {
        for head in b * kv_heads..(b + 1) * kv_heads {
            for t in 0..append.take {
                let first = (head * plan.width() + append.skip + t) * head_dim;
                write(head, &rows[first..first + head_dim], append.at + t);
            }
        }
    }
}

/// See [`crate::ops::append_rows`].
pub(in crate::ops) fn append_rows<E: Element>(
    cache: &mut [E],
    rows: &[f32],
    plan: &AppendPlan,
    sizes: Sizes,
) {
    each_row(rows, plan, sizes, |head, row, position| {
        let first = (head * sizes.capacity + position) * sizes.head_dim;
        for (stored, &value) in cache[first..].iter_mut().zip(row) {
            *stored = E::narrow(value);
        }
    });
}

/// See [`crate::ops::append_columns`].
pub(in crate::ops) fn append_columns<E: Element>(
    index: &mut [E],
    rows: &[f32],
    plan: &AppendPlan,
    sizes: Sizes,
) {
    each_row(rows, plan, sizes, |head, row, position| {
        let first = head * sizes.head_dim * sizes.capacity + position;
        for (stored, &value) in index[first..].iter_mut().step_by(sizes.capacity).zip(row) {
            *stored = E::narrow(value);
        }
    });
}

/// See [`crate::ops::accumulate`].
pub(in crate::ops) fn accumulate(sum: &mut [f32], rows: &[f32], plan: &AppendPlan, sizes: Sizes) {
    each_row(rows, plan, sizes, |head, row, _| {
        for (sum, value) in sum[head * sizes.head_dim..].iter_mut().zip(row) {
            *sum += value;
        }
    });
}
