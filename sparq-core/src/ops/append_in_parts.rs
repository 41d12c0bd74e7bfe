//! Appends to several parts of a cache, one part after another: what a backend does that has no operation
//! for all of them, or none that covers the problem.

use burn::{
    backend::{TensorMetadata, tensor::FloatTensor},
    tensor::{DType, FloatDType},
};

use super::{SparqOps, oracle};
use crate::spans::AppendPlan;

/// See [`SparqOps::append`].
pub(super) fn append<B: SparqOps>(
    [k, v]: [FloatTensor<B>; 2],
    [k_rows, v_rows]: [FloatTensor<B>; 2],
    plan: AppendPlan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    (B::append_rows(k, k_rows, plan.clone()), B::append_rows(v, v_rows, plan))
}

/// See [`SparqOps::append_with_kt`].
pub(super) fn append_with_kt<B: SparqOps>(
    [k, v, k_t, v_sum]: [FloatTensor<B>; 4],
    [k_rows, v_rows]: [FloatTensor<B>; 2],
    plan: AppendPlan,
    mean_value: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let v_sum = match mean_value {
        true => B::accumulate(v_sum, stored::<B>(v_rows.clone(), v.dtype()), plan.clone()),
        false => v_sum,
    };
    let k_t = B::append_columns(k_t, k_rows.clone(), plan.clone());
    let (k, v) = B::append(k, v, k_rows, v_rows, plan);
    (k, v, k_t, v_sum)
}

/// `rows` as a cache of this dtype gives them back, f32.
pub(super) fn stored<B: SparqOps>(rows: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    match dtype {
        DType::F32 => rows,
        _ => B::float_cast(oracle::cached::<B>(rows, dtype.into()), FloatDType::F32),
    }
}
