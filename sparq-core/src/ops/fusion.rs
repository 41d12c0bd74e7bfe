//! What the operations return, told before they have run: fusion queues them as opaque operations.

use burn::{
    backend::fusion::custom::TensorSpec,
    tensor::{DType, Shape},
};

use super::{AttendParams, SparqParams};
use crate::spans::AppendPlan;

/// Keys and values of [`super::SparqOps::append`].
pub(super) fn appended(
    k: &TensorSpec,
    v: &TensorSpec,
    _k_rows: &TensorSpec,
    _v_rows: &TensorSpec,
    _plan: &AppendPlan,
) -> (TensorSpec, TensorSpec) {
    (k.clone(), v.clone())
}

/// The parts of [`super::SparqOps::append_with_kt`].
#[allow(clippy::too_many_arguments)] // As many as the operation has.
pub(super) fn appended_with_kt(
    k: &TensorSpec,
    v: &TensorSpec,
    k_t: &TensorSpec,
    v_sum: &TensorSpec,
    _k_rows: &TensorSpec,
    _v_rows: &TensorSpec,
    _plan: &AppendPlan,
    _mean_value: &bool,
) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
    (k.clone(), v.clone(), k_t.clone(), v_sum.clone())
}

/// An output for each query, as wide as the values.
fn output(q: &TensorSpec, v: &TensorSpec) -> TensorSpec {
    let ([batch, heads, width, _], [_, _, _, value_dim]) = (q.shape.dims(), v.shape.dims());
    TensorSpec::new(Shape::new([batch, heads, width, value_dim]), q.dtype)
}

/// Output and log-sum-exp of [`super::SparqOps::prefill`] and [`super::SparqOps::decode_dense`].
pub(super) fn attended(
    q: &TensorSpec,
    _k: &TensorSpec,
    v: &TensorSpec,
    _params: &AttendParams,
) -> (TensorSpec, TensorSpec) {
    let [batch, heads, width, _] = q.shape.dims();
    (output(q, v), TensorSpec::new(Shape::new([batch, heads, width]), q.dtype))
}

/// Output, positions and masses of [`super::SparqOps::decode_sparq`].
pub(super) fn sparq_outputs(
    q: &TensorSpec,
    k: &TensorSpec,
    _k_t: &TensorSpec,
    v: &TensorSpec,
    _v_sum: &TensorSpec,
    params: &SparqParams,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let [batch, heads, _, _] = q.shape.dims();
    let [_, kv_heads, _, _] = k.shape.dims();
    let kept = params.config.top_k.min(params.attend.spans().max_end());
    (
        output(q, v),
        TensorSpec::new(Shape::new([batch, kv_heads, kept]), DType::I32),
        TensorSpec::new(Shape::new([batch, heads, 3]), q.dtype),
    )
}

/// The same of [`super::SparqOps::decode_sparq_quantized`].
pub(super) fn quantized_outputs(
    q: &TensorSpec,
    k: &TensorSpec,
    words: &TensorSpec,
    _scales: &TensorSpec,
    v: &TensorSpec,
    v_sum: &TensorSpec,
    params: &SparqParams,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    sparq_outputs(q, k, words, v, v_sum, params)
}

/// Words and scales of [`super::SparqOps::append_quantized`].
pub(super) fn quantized_kt(
    words: &TensorSpec,
    scales: &TensorSpec,
    _k: &TensorSpec,
    _plan: &AppendPlan,
) -> (TensorSpec, TensorSpec) {
    (words.clone(), scales.clone())
}

/// Output of [`super::SparqOps::linear_quantized`].
pub(super) fn linear_quantized_output(
    x: &TensorSpec,
    words: &TensorSpec,
    _scales: &TensorSpec,
) -> TensorSpec {
    linear_output(x, words)
}

/// Output of [`super::SparqOps::linear`].
pub(super) fn linear_output(x: &TensorSpec, weight: &TensorSpec) -> TensorSpec {
    let ([tokens, _], [outputs, _]) = (x.shape.dims(), weight.shape.dims());
    TensorSpec::new(Shape::new([tokens, outputs]), x.dtype)
}
