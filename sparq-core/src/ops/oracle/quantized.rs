//! Transposed keys in few bits: see [`crate::k_t::QuantizedKt`].

use burn::{
    backend::{
        Backend, TensorMetadata,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{FloatDType, IntDType, Shape},
};

use super::{bool_dtype, dims, expand, f32, narrow, reshape, slice, slots::Part, sparq::sparq_each};
use crate::{
    k_t::{self, BLOCK},
    ops::SparqParams,
    spans::{Append, AppendPlan},
};

/// See [`crate::ops::append_quantized`]: every block that got a new row is quantised again, from the
/// rows of the cache.
pub fn append_quantized<B: Backend>(
    mut words: IntTensor<B>,
    mut scales: FloatTensor<B>,
    k: FloatTensor<B>,
    plan: &AppendPlan,
) -> (IntTensor<B>, FloatTensor<B>) {
    let batch = plan.as_slice().len();
    let [slots, _, _, blocks] = dims(&scales);
    if !plan.is_rectangle(slots) {
        for (b, _) in plan.as_slice().iter().enumerate().filter(|(_, append)| append.take > 0) {
            let in_words = Part::of_codes(&words, blocks, plan, b);
            let in_scales = Part::of_codes(&scales, blocks, plan, b);
            let (new_words, new_scales) = append_quantized::<B>(
                in_words.get_int::<B>(words.clone()),
                in_scales.get::<B>(scales.clone()),
                Part::of_rows(&k, plan, b).get::<B>(k.clone()),
                &plan.alone(b),
            );
            words = in_words.set_int::<B>(words, new_words);
            scales = in_scales.set::<B>(scales, new_scales);
        }
        return (words, scales);
    }
    let bits = bits::<B>(&words, &scales);
    let mut write = |first: usize, count: usize, append: Append| {
        let [_, kv_heads, head_dim, _] = dims(&words);
        let (start, end) = (append.at / BLOCK * BLOCK, append.at + append.take);
        let blocks = (end - start).div_ceil(BLOCK);
        let rows = narrow::<B>(narrow::<B>(k.clone(), 0, first, count), 2, start, end - start);
        let columns = B::float_swap_dims(f32::<B>(rows), 2, 3);
        let missing = blocks * BLOCK - (end - start);
        let filling = Shape::new([count, kv_heads, head_dim, missing]);
        let columns = match missing {
            0 => columns,
            _ => B::float_cat(vec![columns, B::float_zeros(filling, &k.device(), FloatDType::F32)], 3),
        };
        let shape = [count, kv_heads, head_dim, blocks, BLOCK];
        let (new_words, new_scales) = quantize::<B>(reshape::<B, 5>(columns, shape), bits);
        let place = |position, len| {
            [slice(first, count), slice(0, kv_heads), slice(0, head_dim), slice(position, len)]
        };
        let per_word = 32 / bits;
        let at = place(start / per_word, blocks * BLOCK / per_word);
        let old = std::mem::replace(&mut words, new_words.clone());
        words = B::int_slice_assign(old, &at, new_words);
        let old = std::mem::replace(&mut scales, new_scales.clone());
        scales = B::float_slice_assign(old, &place(start / BLOCK, blocks), new_scales);
    };
    match plan.uniform() {
        Some(append) if append.take == 0 => {}
        Some(append) => write(0, batch, append),
        None => {
            for (b, append) in plan.as_slice().iter().enumerate().filter(|(_, append)| append.take > 0) {
                write(b, 1, *append);
            }
        }
    }
    (words, scales)
}

/// Bits of a code.
fn bits<B: Backend>(words: &IntTensor<B>, scales: &FloatTensor<B>) -> usize {
    let ([_, _, _, words], [_, _, _, scales]) = (dims(words), dims(scales));
    k_t::bits(words, scales)
}

/// Words `[_, kv_heads, head_dim, blocks · BLOCK / n]` and scales `[_, kv_heads, head_dim, blocks]` of
/// `columns: [_, kv_heads, head_dim, blocks, BLOCK]`.
fn quantize<B: Backend>(columns: FloatTensor<B>, bits: usize) -> (IntTensor<B>, FloatTensor<B>) {
    let shape @ [count, kv_heads, head_dim, blocks, _] = dims::<5>(&columns);
    let largest = (1i32 << (bits - 1)) - 1;
    // A block with a key that is not a number has no scale either, and none of its scores is a number.
    let overflow = B::float_sum_dim(B::float_mul_scalar(columns.clone(), 0.0f32.into()), 4);
    let bad = B::float_is_nan(columns.clone(), bool_dtype::<B>(&columns.device()));
    let columns = B::float_mask_fill(columns, bad, 0.0f32.into());
    let magnitude = B::float_max_dim(B::float_abs(columns.clone()), 4);
    let scales = B::float_div_scalar(magnitude, (largest as f32).into());
    // A block of zeros has the scale 0: any divisor gives the code 0.
    let divisor = B::float_clamp_min(scales.clone(), f32::MIN_POSITIVE.into());
    let codes = B::float_round(B::float_div(columns, expand::<B, 5>(divisor, shape)));
    let scales = B::float_add(scales, overflow);
    let codes = B::float_clamp(codes, (-largest as f32).into(), (largest as f32).into());
    let per_word = 32 / bits;
    let words = blocks * BLOCK / per_word;
    let codes = reshape::<B, 5>(codes, [count, kv_heads, head_dim, words, per_word]);
    let codes = B::float_into_int(codes, IntDType::I32);
    let mut packed: Option<IntTensor<B>> = None;
    for i in 0..per_word {
        let all = |len| slice(0, len);
        let part = [all(count), all(kv_heads), all(head_dim), all(words), slice(i, 1)];
        let code = B::int_slice(codes.clone(), &part);
        // All but the highest are cut to their bits, so that sums stay within a word.
        let code = match i + 1 < per_word {
            true => B::bitwise_and_scalar(code, ((1i64 << bits) - 1).into()),
            false => code,
        };
        let code = B::int_mul_scalar(code, (1i64 << (bits * i)).into());
        packed = Some(match packed {
            Some(packed) => B::int_add(packed, code),
            None => code,
        });
    }
    let packed = packed.unwrap_or(codes); // a word holds at least one code
    (
        B::int_reshape(packed, Shape::new([count, kv_heads, head_dim, words])),
        reshape::<B, 4>(scales, [count, kv_heads, head_dim, blocks]),
    )
}

/// The keys that words and scales stand for: `[batch, kv_heads, head_dim, capacity]`, f32.
pub fn dequantize<B: Backend>(words: IntTensor<B>, scales: FloatTensor<B>) -> FloatTensor<B> {
    let bits = bits::<B>(&words, &scales);
    let [batch, kv_heads, head_dim, count] = dims(&words);
    let [_, _, _, blocks] = dims(&scales);
    let per_word = 32 / bits;
    let (codes, half) = (1i64 << bits, 1i64 << (bits - 1));
    let code = |i: usize| {
        let code = B::bitwise_right_shift_scalar(words.clone(), ((bits * i) as i64).into());
        let code = B::bitwise_and_scalar(code, (codes - 1).into());
        // Two's complement: c + half, cut to its bits, counts from zero.
        let code = B::bitwise_and_scalar(B::int_add_scalar(code, half.into()), (codes - 1).into());
        let code = B::int_into_float(code, FloatDType::F32);
        let code = B::float_add_scalar(code, (-half as f32).into());
        reshape::<B, 5>(code, [batch, kv_heads, head_dim, count, 1])
    };
    let codes = B::float_cat((0..per_word).map(code).collect(), 4);
    let shape = [batch, kv_heads, head_dim, blocks, BLOCK];
    let scales = reshape::<B, 5>(scales, [batch, kv_heads, head_dim, blocks, 1]);
    let keys = B::float_mul(reshape::<B, 5>(codes, shape), expand::<B, 5>(scales, shape));
    reshape::<B, 4>(keys, [batch, kv_heads, head_dim, blocks * BLOCK])
}

/// See [`crate::ops::linear_quantized`].
pub fn linear_quantized<B: Backend>(
    x: FloatTensor<B>,
    words: IntTensor<B>,
    scales: FloatTensor<B>,
) -> FloatTensor<B> {
    let ([_, inputs], [outputs, count]) = (dims(&x), dims(&words));
    let code = |i: i64| {
        let code = B::bitwise_and_scalar(
            B::bitwise_right_shift_scalar(words.clone(), (8 * i).into()),
            255i64.into(),
        );
        let code = B::bitwise_and_scalar(B::int_add_scalar(code, 128i64.into()), 255i64.into());
        let code = B::float_add_scalar(B::int_into_float(code, FloatDType::F32), (-128.0f32).into());
        reshape::<B, 3>(code, [outputs, count, 1])
    };
    let codes = reshape::<B, 2>(B::float_cat((0..4).map(code).collect(), 2), [outputs, 4 * count]);
    let weight = narrow::<B>(codes, 1, 0, inputs);
    let y = B::float_matmul(x, B::float_swap_dims(weight, 0, 1));
    B::float_mul(y, reshape::<B, 2>(scales, [1, outputs]))
}

/// See [`crate::ops::decode_sparq_quantized`].
pub fn decode_sparq_quantized<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    v: FloatTensor<B>,
    v_sum: FloatTensor<B>,
    params: &SparqParams,
) -> (FloatTensor<B>, IntTensor<B>, FloatTensor<B>) {
    let queries = &params.attend.queries;
    let [slots, _, _, blocks] = dims(&scales);
    if queries.is_rectangle(slots) {
        let k_t = dequantize::<B>(words, scales);
        return super::decode_sparq::<B>(q, k, k_t, v, v_sum, params);
    }
    sparq_each::<B>(q, [k, v], v_sum, params, |b| {
        let words = Part::of_codes(&words, blocks, queries, b).get_int::<B>(words.clone());
        dequantize::<B>(words, Part::of_codes(&scales, blocks, queries, b).get::<B>(scales.clone()))
    })
}
