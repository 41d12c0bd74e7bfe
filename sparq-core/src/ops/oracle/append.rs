//! Writing new tokens into the cache.

use burn::{
    backend::{Backend, TensorMetadata, tensor::FloatTensor},
    tensor::FloatDType,
};

use super::{
    cached, dims, f32, narrow, reshape, slice,
    slots::{self, Part},
};
use crate::spans::{Append, AppendPlan};

/// See [`crate::ops::append_rows`].
pub fn append_rows<B: Backend>(
    cache: FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
) -> FloatTensor<B> {
    let [batch, kv_heads, _, head_dim] = dims(&cache);
    if !plan.is_rectangle(batch) {
        return each_sequence::<B>(cache, plan, |cache, b| {
            let part = Part::of_rows(&cache, plan, b);
            let written =
                append_rows::<B>(part.get::<B>(cache.clone()), slots::row::<B>(&rows, b), &plan.alone(b));
            part.set::<B>(cache, written)
        });
    }
    let dtype = FloatDType::from(cache.dtype());
    each_block::<B>(cache, rows, plan, |cache, block, sequences, append| {
        let place = [sequences, slice(0, kv_heads), slice(append.at, append.take), slice(0, head_dim)];
        B::float_slice_assign(cache, &place, cached::<B>(block, dtype))
    })
}

/// See [`crate::ops::append_columns`].
pub fn append_columns<B: Backend>(
    k_t: FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
) -> FloatTensor<B> {
    let [batch, kv_heads, head_dim, _] = dims(&k_t);
    if !plan.is_rectangle(batch) {
        return each_sequence::<B>(k_t, plan, |k_t, b| {
            let part = Part::of_columns(&k_t, plan, b);
            let written =
                append_columns::<B>(part.get::<B>(k_t.clone()), slots::row::<B>(&rows, b), &plan.alone(b));
            part.set::<B>(k_t, written)
        });
    }
    let dtype = FloatDType::from(k_t.dtype());
    each_block::<B>(k_t, rows, plan, |k_t, block, sequences, append| {
        let place = [sequences, slice(0, kv_heads), slice(0, head_dim), slice(append.at, append.take)];
        let columns = B::float_swap_dims(cached::<B>(block, dtype), 2, 3);
        B::float_slice_assign(k_t, &place, columns)
    })
}

/// See [`crate::ops::accumulate`].
pub fn accumulate<B: Backend>(
    sum: FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
) -> FloatTensor<B> {
    let [batch, kv_heads, head_dim] = dims(&sum);
    if !plan.is_rectangle(batch) {
        return each_sequence::<B>(sum, plan, |sum, b| {
            let slot = plan.as_slice()[b].slot;
            let of_slot = [slice(slot, 1), slice(0, kv_heads), slice(0, head_dim)];
            let before = B::float_slice(sum.clone(), &of_slot);
            let after = accumulate::<B>(before, slots::row::<B>(&rows, b), &plan.alone(b));
            B::float_slice_assign(sum, &of_slot, after)
        });
    }
    each_block::<B>(sum, rows, plan, |sum, block, sequences, _| {
        let place = [sequences, slice(0, kv_heads), slice(0, head_dim)];
        let [count, _, _, _] = dims(&block);
        let added = reshape::<B, 3>(B::float_sum_dim(f32::<B>(block), 2), [count, kv_heads, head_dim]);
        let before = B::float_slice(sum.clone(), &place);
        B::float_slice_assign(sum, &place, B::float_add(before, added))
    })
}

/// Runs `write` on the sequences that get rows, one after another.
fn each_sequence<B: Backend>(
    target: FloatTensor<B>,
    plan: &AppendPlan,
    write: impl Fn(FloatTensor<B>, usize) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let appends = plan.as_slice().iter().enumerate().filter(|(_, append)| append.take > 0);
    appends.fold(target, |target, (b, _)| write(target, b))
}

/// Runs `write` on the real rows: once for the whole batch where all sequences place theirs alike,
/// else once per sequence. Padding is never touched, so whatever it holds cannot spread.
fn each_block<B: Backend>(
    mut target: FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
    write: impl Fn(FloatTensor<B>, FloatTensor<B>, burn::tensor::Slice, Append) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let batch = plan.as_slice().len();
    if let Some(append) = plan.uniform() {
        if append.take == 0 {
            return target;
        }
        let block = narrow::<B>(rows, 2, append.skip, append.take);
        return write(target, block, slice(0, batch), append);
    }
    for (b, append) in plan.as_slice().iter().enumerate().filter(|(_, append)| append.take > 0) {
        let block = narrow::<B>(narrow::<B>(rows.clone(), 0, b, 1), 2, append.skip, append.take);
        target = write(target, block, slice(b, 1), *append);
    }
    target
}
