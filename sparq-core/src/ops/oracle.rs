//! The definition of every operation, in plain Burn ops: slow, obvious, and right on any backend.
//!
//! Fast paths are tested against these functions; nothing here is ever tuned. They are generic
//! over the backend, so `oracle::decode_dense::<Dispatch>(…)` runs the definition on any device
//! even where that device's backend overrides the operation.

mod append;
mod attention;
mod quantized;
mod slots;
mod sparq;

use burn::{
    backend::{
        Backend, TensorMetadata, get_or_init_device_settings,
        tensor::{BoolTensor, Device, FloatTensor, IntTensor},
    },
    tensor::{BoolDType, FloatDType, IntDType, Shape, Slice, TensorData},
};

pub use append::{accumulate, append_columns, append_rows};
pub use attention::attend;
#[cfg(feature = "cube")]
pub(super) use attention::{Block, attend_with};
pub use quantized::{append_quantized, decode_sparq_quantized, dequantize, linear_quantized};
pub(crate) use slots::Part;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch", feature = "cube"))]
pub(super) use sparq::scale_beyond_usual;
pub use sparq::{
    approximate_scores, attend_selected, decode_sparq, overflow_of, reallocate_to_mean, select_tokens,
};

use crate::spans::Spans;

/// Stands for minus infinity: a sum over a group of heads stays finite, and a softmax over nothing
/// but masked positions stays a number.
pub(super) const MASKED: f32 = -1e30;

/// `x · weightᵀ`: see [`super::linear`].
pub fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let x = B::float_cast(x, weight.dtype().into());
    let y = B::float_matmul(x, B::float_swap_dims(weight, 0, 1));
    B::float_cast(y, FloatDType::F32)
}

fn dims<const D: usize>(tensor: &impl TensorMetadata) -> [usize; D] {
    tensor.shape().dims()
}

pub(super) fn f32<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(x, FloatDType::F32)
}

fn reshape<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    B::float_reshape(x, Shape::new(shape))
}

fn expand<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    B::float_expand(x, Shape::new(shape))
}

/// Rows `start..start + len` of axis `dim`.
fn narrow<B: Backend>(x: FloatTensor<B>, dim: usize, start: usize, len: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let slices: Vec<Slice> = (0..shape.num_dims())
        .map(|axis| match axis == dim {
            true => slice(start, len),
            false => slice(0, shape[axis]),
        })
        .collect();
    B::float_slice(x, &slices)
}

fn slice(start: usize, len: usize) -> Slice {
    Slice::new(start as isize, Some((start + len) as isize), 1)
}

pub(super) fn int_dtype<B: Backend>(device: &Device<B>) -> IntDType {
    get_or_init_device_settings::<B>(device).int_dtype
}

fn bool_dtype<B: Backend>(device: &Device<B>) -> BoolDType {
    get_or_init_device_settings::<B>(device).bool_dtype
}

fn bools<B: Backend, const D: usize>(
    values: Vec<bool>,
    shape: [usize; D],
    device: &Device<B>,
) -> BoolTensor<B> {
    // GPUs store them in whole words.
    let dtype = get_or_init_device_settings::<B>(device).bool_dtype;
    B::bool_from_data(TensorData::new(values, shape).convert_dtype(dtype.into()), device)
}

/// `[batch, 1, 1, len]` of what `test(span, position)` says, widened to `shape`.
fn position_mask<B: Backend>(
    spans: &Spans,
    shape: [usize; 4],
    device: &Device<B>,
    test: impl Fn(crate::spans::Span, usize) -> bool,
) -> BoolTensor<B> {
    let [batch, _, _, len] = shape;
    let row = |span: &crate::spans::Span| (0..len).map(|s| test(*span, s)).collect::<Vec<_>>();
    let values: Vec<bool> = spans.as_slice().iter().flat_map(row).collect();
    B::bool_expand(bools::<B, 4>(values, [batch, 1, 1, len], device), Shape::new(shape))
}

/// Fills positions that are not live with [`MASKED`]; `scores: [batch, _, _, len]`.
fn mask_dead<B: Backend>(scores: FloatTensor<B>, spans: &Spans) -> FloatTensor<B> {
    if spans.is_full() {
        return scores;
    }
    let dead = |span: crate::spans::Span, s: usize| s < span.start || s >= span.end;
    let mask = position_mask::<B>(spans, dims(&scores), &scores.device(), dead);
    B::float_mask_fill(scores, mask, MASKED.into())
}

/// Scores that overflowed become NaN, so that a softmax shows them: one of minus infinity would have no
/// weight. Others stay as they are.
fn overflow_to_nan<B: Backend>(scores: FloatTensor<B>) -> FloatTensor<B> {
    // What is not finite times zero is not a number.
    B::float_add(scores.clone(), B::float_mul_scalar(scores, 0.0f32.into()))
}

/// `rows` in the storage dtype of a cache, where what is infinite becomes NaN: such a key might have no
/// weight, and nobody would see that it overflowed.
pub(super) fn cached<B: Backend>(rows: FloatTensor<B>, dtype: FloatDType) -> FloatTensor<B> {
    overflow_to_nan::<B>(B::float_cast(rows, dtype))
}

/// `cap · tanh(x / cap)`, where there is a cap.
fn soft_cap<B: Backend>(x: FloatTensor<B>, cap: Option<f32>) -> FloatTensor<B> {
    match cap {
        Some(cap) => B::float_mul_scalar(B::float_tanh(B::float_div_scalar(x, cap.into())), cap.into()),
        None => x,
    }
}

/// Rows of `rows: [groups, len, width]` named by `indices: [groups, n]`: `[groups, n, width]`.
///
/// One `select` over flattened rows: `gather` would need the index widened to every element.
fn select_rows<B: Backend>(rows: FloatTensor<B>, indices: IntTensor<B>) -> FloatTensor<B> {
    let [groups, len, width] = dims(&rows);
    let [_, n] = dims(&indices);
    let device = indices.device();
    let firsts: Vec<i64> = (0..groups).map(|group| (group * len) as i64).collect();
    // Converted here: not every GPU has 64-bit integers to convert from.
    let firsts = TensorData::new(firsts, [groups, 1]).convert_dtype(int_dtype::<B>(&device).into());
    let firsts = B::int_from_data(firsts, &device);
    let flat = B::int_add(indices, B::int_expand(firsts, Shape::new([groups, n])));
    let flat = B::int_reshape(flat, Shape::new([groups * n]));
    let picked = B::float_select(reshape::<B, 2>(rows, [groups * len, width]), 0, flat);
    reshape::<B, 3>(picked, [groups, n, width])
}
