//! The slice kernels as operations of a backend whose tensors lie in this process's memory.
//!
//! A function returns the reason where a tensor is not what the kernels take: not contiguous, of
//! another dtype, or shared with another handle where it is to be written.

use burn::{
    backend::{
        Backend, TensorMetadata,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Shape, TensorData},
};
use half::{bf16, f16};

use super::{Codes, Element, KeysByComponent, Quantized, Sizes, SparqSlices};
use crate::{
    k_t,
    ops::{
        AttendParams, SparqParams, cpu, oracle,
        ran::{NO_SLICE, Reason, SHARED, STORAGE, of_one_width},
    },
    spans::AppendPlan,
};

/// A backend that lends out the memory of its tensors.
pub(in crate::ops) trait Slices: Backend {
    /// The elements in row-major order, where the tensor is contiguous and of this type.
    fn slice<E: Element>(tensor: &FloatTensor<Self>) -> Option<&[E]>;

    /// The same for writing, where there is no other handle to the memory either.
    fn slice_mut<E: Element>(tensor: &mut FloatTensor<Self>) -> Option<&mut [E]>;

    /// The words of an integer tensor in row-major order, where it is contiguous and of 32 bits.
    fn words(tensor: &IntTensor<Self>) -> Option<&[i32]>;

    /// The same for writing, where there is no other handle to the memory either.
    fn words_mut(tensor: &mut IntTensor<Self>) -> Option<&mut [i32]>;

    /// The tensor itself or a contiguous copy.
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Runs `$body` with `$E` bound to the element type of `$dtype`; [`STORAGE`] where it is none.
macro_rules! with_element {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $E = f32;
                $body
            }
            DType::F16 => {
                type $E = f16;
                $body
            }
            DType::BF16 => {
                type $E = bf16;
                $body
            }
            _ => Err(STORAGE),
        }
    };
}

fn slice<B: Slices, E: Element>(tensor: &FloatTensor<B>) -> Result<&[E], Reason> {
    B::slice(tensor).ok_or(NO_SLICE)
}

fn slice_mut<B: Slices, E: Element>(tensor: &mut FloatTensor<B>) -> Result<&mut [E], Reason> {
    B::slice_mut(tensor).ok_or(SHARED)
}

fn words<B: Slices>(tensor: &IntTensor<B>) -> Result<&[i32], Reason> {
    B::words(tensor).ok_or(NO_SLICE)
}

/// See [`crate::ops::append_rows`].
pub(in crate::ops) fn append_rows<B: Slices>(
    cache: &mut FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
) -> Result<(), Reason> {
    let [_, kv_heads, capacity, head_dim] = cache.shape().dims();
    let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
    let rows = B::contiguous(rows);
    with_element!(cache.dtype(), E => {
        cpu::append_rows(slice_mut::<B, E>(cache)?, slice::<B, f32>(&rows)?, plan, sizes);
        Ok(())
    })
}

/// See [`crate::ops::append_columns`].
pub(in crate::ops) fn append_columns<B: Slices>(
    k_t: &mut FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
) -> Result<(), Reason> {
    let [_, kv_heads, head_dim, capacity] = k_t.shape().dims();
    let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
    let rows = B::contiguous(rows);
    with_element!(k_t.dtype(), E => {
        cpu::append_columns(slice_mut::<B, E>(k_t)?, slice::<B, f32>(&rows)?, plan, sizes);
        Ok(())
    })
}

/// See [`crate::ops::append_with_kt`]: nothing is written where one of the tensors cannot be. The sum of values
/// takes part where it is given.
pub(in crate::ops) fn append_with_kt<B: Slices>(
    [k, v, k_t]: [&mut FloatTensor<B>; 3],
    v_sum: Option<&mut FloatTensor<B>>,
    [k_rows, v_rows]: [FloatTensor<B>; 2],
    plan: &AppendPlan,
) -> Result<(), Reason> {
    let ([_, kv_heads, capacity, head_dim], [_, _, _, value_dim]) = (k.shape().dims(), v.shape().dims());
    let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
    let rows = [B::contiguous(k_rows), B::contiguous(v_rows)];
    with_element!(k.dtype(), E => {
        let parts = cpu::Parts {
            k: slice_mut::<B, E>(k)?,
            v: slice_mut::<B, E>(v)?,
            k_t: slice_mut::<B, E>(k_t)?,
            v_sum: v_sum.map(slice_mut::<B, f32>).transpose()?,
        };
        let rows = [slice::<B, f32>(&rows[0])?, slice::<B, f32>(&rows[1])?];
        cpu::append_with_kt(parts, rows, plan, sizes, value_dim);
        Ok(())
    })
}

/// See [`crate::ops::accumulate`].
pub(in crate::ops) fn accumulate<B: Slices>(
    sum: &mut FloatTensor<B>,
    rows: FloatTensor<B>,
    plan: &AppendPlan,
) -> Result<(), Reason> {
    let [_, kv_heads, head_dim] = sum.shape().dims();
    let sizes = Sizes { kv_heads, group: 1, head_dim, capacity: 0 };
    let rows = B::contiguous(rows);
    with_element!(rows.dtype(), E => {
        cpu::accumulate(slice_mut::<B, f32>(sum)?, slice::<B, E>(&rows)?, plan, sizes);
        Ok(())
    })
}

/// Output and log-sum-exp.
type AttendTensors<B> = (FloatTensor<B>, FloatTensor<B>);

/// See [`crate::ops::decode_dense`].
pub(in crate::ops) fn decode_dense<B: Slices>(
    q: FloatTensor<B>,
    k: &FloatTensor<B>,
    v: &FloatTensor<B>,
    params: &AttendParams,
) -> Result<AttendTensors<B>, Reason> {
    let is_step = params.queries.width() == 1;
    attend::<B>(q, k, v, params, is_step)
}

/// See [`crate::ops::prefill`]. A column that comes alone takes the kernel of many, and so gets their bits.
pub(in crate::ops) fn prefill<B: Slices>(
    q: FloatTensor<B>,
    k: &FloatTensor<B>,
    v: &FloatTensor<B>,
    params: &AttendParams,
) -> Result<AttendTensors<B>, Reason> {
    attend::<B>(q, k, v, params, false)
}

fn attend<B: Slices>(
    q: FloatTensor<B>,
    k: &FloatTensor<B>,
    v: &FloatTensor<B>,
    params: &AttendParams,
    is_step: bool,
) -> Result<AttendTensors<B>, Reason> {
    of_one_width(k.shape()[3], v.shape()[3])?;
    let shape @ [batch, heads, width, _] = q.shape().dims();
    let sizes = Sizes::new(shape, k.shape().dims());
    let q = B::contiguous(q);
    let (output, log_sums) = with_element!(k.dtype(), E => {
        let (q, k, v) = (slice::<B, f32>(&q)?, slice::<B, E>(k)?, slice::<B, E>(v)?);
        Ok(match is_step {
            true => cpu::decode_dense(q, k, v, params, sizes),
            false => cpu::prefill(q, k, v, params, sizes),
        })
    })?;
    Ok((floats::<B>(output, q.shape(), &q), floats::<B>(log_sums, Shape::new([batch, heads, width]), &q)))
}

/// See [`crate::ops::append_quantized`].
pub(in crate::ops) fn append_quantized<B: Slices>(
    words: &mut IntTensor<B>,
    scales: &mut FloatTensor<B>,
    k: &FloatTensor<B>,
    plan: &AppendPlan,
) -> Result<(), Reason> {
    let [_, kv_heads, capacity, head_dim] = k.shape().dims();
    let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
    let (words, scales) = (B::words_mut(words).ok_or(SHARED)?, slice_mut::<B, f32>(scales)?);
    with_element!(k.dtype(), E => {
        cpu::append_quantized(Codes { words, scales }, slice::<B, E>(k)?, plan, sizes);
        Ok(())
    })
}

/// See [`crate::ops::decode_sparq`].
pub(in crate::ops) fn decode_sparq<B: Slices>(
    q: FloatTensor<B>,
    [k, k_t, v]: [&FloatTensor<B>; 3],
    v_sum: FloatTensor<B>,
    params: &SparqParams,
) -> Result<SparqTensors<B>, Reason> {
    with_element!(k.dtype(), E => decode::<B, E, _>(q, [k, v], v_sum, slice::<B, E>(k_t)?, params))
}

/// See [`crate::ops::decode_sparq_quantized`].
pub(in crate::ops) fn decode_sparq_quantized<B: Slices>(
    q: FloatTensor<B>,
    [k, scales, v]: [&FloatTensor<B>; 3],
    words: &IntTensor<B>,
    v_sum: FloatTensor<B>,
    params: &SparqParams,
) -> Result<SparqTensors<B>, Reason> {
    let (words, scales) = (self::words::<B>(words)?, slice::<B, f32>(scales)?);
    with_element!(k.dtype(), E => match k_t::bits(words.len(), scales.len()) {
        8 => decode::<B, E, _>(q, [k, v], v_sum, Quantized::<8>::new(words, scales), params),
        4 => decode::<B, E, _>(q, [k, v], v_sum, Quantized::<4>::new(words, scales), params),
        _ => Err(STORAGE),
    })
}

/// Output, positions and masses.
type SparqTensors<B> = (FloatTensor<B>, IntTensor<B>, FloatTensor<B>);

fn decode<B: Slices, E: Element, I: KeysByComponent>(
    q: FloatTensor<B>,
    [k, v]: [&FloatTensor<B>; 2],
    v_sum: FloatTensor<B>,
    k_t: I,
    params: &SparqParams,
) -> Result<SparqTensors<B>, Reason> {
    of_one_width(k.shape()[3], v.shape()[3])?;
    let sizes = Sizes::new(q.shape().dims(), k.shape().dims());
    let (q, v_sum) = (B::contiguous(q), B::contiguous(v_sum));
    let slices = SparqSlices {
        q: slice::<B, f32>(&q)?,
        k: slice::<B, E>(k)?,
        k_t,
        v: slice::<B, E>(v)?,
        v_sum: slice::<B, f32>(&v_sum)?,
    };
    let output = cpu::decode_sparq(&slices, params, sizes);
    let [batch, heads, _, _] = q.shape().dims();
    let positions = TensorData::new(output.positions, [batch, sizes.kv_heads, output.kept]);
    let int = oracle::int_dtype::<B>(&q.device());
    Ok((
        floats::<B>(output.output, q.shape(), &q),
        B::int_from_data(positions.convert_dtype(int.into()), &q.device()),
        floats::<B>(output.masses, Shape::new([batch, heads, cpu::MASSES]), &q),
    ))
}

/// See [`crate::ops::linear`].
pub(in crate::ops) fn linear<B: Slices>(
    x: FloatTensor<B>,
    weight: &FloatTensor<B>,
) -> Result<FloatTensor<B>, Reason> {
    let ([tokens, inputs], [outputs, _]) = (x.shape().dims(), weight.shape().dims());
    let x = B::contiguous(x);
    let y = with_element!(weight.dtype(), E => {
        Ok(cpu::linear(slice::<B, f32>(&x)?, slice::<B, E>(weight)?, inputs))
    })?;
    Ok(floats::<B>(y, Shape::new([tokens, outputs]), &x))
}

/// See [`crate::ops::linear_quantized`].
pub(in crate::ops) fn linear_quantized<B: Slices>(
    x: FloatTensor<B>,
    words: &IntTensor<B>,
    scales: &FloatTensor<B>,
) -> Result<FloatTensor<B>, Reason> {
    let ([tokens, inputs], [outputs]) = (x.shape().dims(), scales.shape().dims());
    let x = B::contiguous(x);
    let y = cpu::linear_quantized(
        slice::<B, f32>(&x)?,
        self::words::<B>(words)?,
        slice::<B, f32>(scales)?,
        inputs,
    );
    Ok(floats::<B>(y, Shape::new([tokens, outputs]), &x))
}

/// `values` on the device of `beside`.
fn floats<B: Slices>(values: Vec<f32>, shape: Shape, beside: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, shape), &beside.device())
}
