//! Transposed keys in few bits, brought up to date in one launch: see [`crate::k_t::QuantizedKt`].
//!
//! Burn stores the words as a tensor of 32-bit integers, so the kernels here and of step 1 read and
//! write whole words: no device needs storage of eight bits.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    append::{UNITS, cubes},
    bind, elem,
    spans::{Table, cached_head, growing, word},
};
use crate::{
    k_t::{self, BLOCK},
    ops::ran::{Reason, in_slots},
    spans::AppendPlan,
};

/// Rows of the cache that a unit loads at a time.
const LOADS: usize = 8;

/// Why codes are not made by a kernel.
const WORDS: Reason = "codes are not 32-bit words with f32 scales, each in one contiguous piece";

/// The reason where [`append`] does not take them.
pub(super) fn covers(
    words: &CubeTensor,
    scales: &CubeTensor,
    k: &CubeTensor,
    plan: &AppendPlan,
) -> Result<(), Reason> {
    in_slots(plan, k.shape()[0])?;
    let stored = |tensor: &CubeTensor| {
        tensor.is_contiguous() && tensor.shape().num_elements() <= u32::MAX as usize / 2
    };
    let dtypes = scales.dtype == DType::F32 && words.dtype == DType::I32;
    (dtypes && [words, scales, k].into_iter().all(stored)).then_some(()).ok_or(WORDS)
}

/// See [`crate::ops::append_quantized`]: every block that got a new row is quantised again, from the
/// rows of `k`.
pub(super) fn append(
    words: CubeTensor,
    scales: CubeTensor,
    k: &CubeTensor,
    plan: &AppendPlan,
) -> (CubeTensor, CubeTensor) {
    let [_, kv_heads, capacity, head_dim] = k.shape().dims();
    let batch = plan.as_slice().len();
    let ([_, _, _, row], [_, _, _, blocks]) = (words.shape().dims(), scales.shape().dims());
    let bits = k_t::bits(row, blocks);
    let own = |tensor: CubeTensor| if tensor.can_mut() { tensor } else { tensor.copy() };
    let (words, scales) = (own(words), own(scales));
    // Blocks that a sequence's new rows reach into at most.
    let reached = |append: &crate::spans::Append| match append.take {
        0 => 0,
        take => (append.at % BLOCK + take).div_ceil(BLOCK),
    };
    let touched = plan.as_slice().iter().map(reached).max().unwrap_or(0);
    let elements = batch * kv_heads * touched * head_dim;
    if elements == 0 {
        return (words, scales);
    }
    let table = Table::of_plan(k, plan);
    let [_, take, at] = table.words();
    #[allow(unsafe_code)]
    // SAFETY: the plan was checked against the slots and the capacity, whose blocks the words and scales have room
    // for; every other index follows from the shapes.
    unsafe {
        quantize::launch_unchecked(
            &k.client,
            cubes(elements),
            CubeDim::new_1d(UNITS as u32),
            bind(k),
            bind(&words),
            bind(&scales),
            table.argument(k),
            take,
            at,
            elements as u32,
            kv_heads as u32,
            head_dim as u32,
            capacity as u32,
            blocks as u32,
            touched as u32,
            ((1u32 << (bits - 1)) - 1) as f32,
            bits,
            table.alike,
            elem(k.dtype),
        );
    }
    (words, scales)
}

/// One unit per component of a block of positions; neighbours read neighbouring components.
#[cube(launch_unchecked)]
fn quantize<F: Float>(
    k: &[F],
    words: &mut [u32],
    scales: &mut [f32],
    table: &[u32],
    take: u32,
    at: u32,
    elements: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    blocks: u32,
    touched: u32,
    largest: f32,
    #[comptime] bits: usize,
    #[comptime] alike: bool,
    #[define(F)] _dtype: ElemType,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS;
    if unit >= elements {
        terminate!();
    }
    let c = unit % head_dim;
    let row = unit / (head_dim * touched);
    let b = (row / kv_heads) as usize;
    let take = word(table, b, take, 1usize, alike);
    let at = growing(table, b, at, 2usize, alike);
    let block = at / comptime!(BLOCK as u32) + unit / head_dim % touched;
    let first = block * comptime!(BLOCK as u32);
    let end = at + take;
    if take == 0u32 || first >= end {
        terminate!();
    }
    let count = u32::min(end - first, comptime!(BLOCK as u32));
    let kv_head = cached_head(table, row, kv_heads, alike);
    let from = (kv_head * capacity + first) * head_dim + c;

    // Magnitudes as bits order as they do, and what is not a number comes out on top: its block has no
    // scale, and none of its scores is a number.
    let mut magnitude = 0u32;
    for turn in 0..comptime!((BLOCK / LOADS) as u32) {
        #[unroll]
        for u in 0..LOADS {
            // Beyond the last row it is read again.
            let t = u32::min(turn * comptime!(LOADS as u32) + comptime!(u as u32), count - 1u32);
            let key = f32::cast_from(k[(from + t * head_dim) as usize]);
            magnitude = u32::max(magnitude, u32::reinterpret(f32::abs(key)));
        }
    }
    let scale = f32::reinterpret(magnitude) / largest;
    // A block of zeros has the scale 0: any divisor gives the code 0.
    let divisor = f32::max(scale, comptime!(f32::MIN_POSITIVE));
    let row = kv_head * head_dim + c;
    scales[(row * blocks + block) as usize] = scale;

    let per_word = comptime!(32 / bits);
    let half = comptime!(1u32 << (bits - 1));
    let in_block = comptime!((BLOCK * bits / 32) as u32);
    let to = (row * blocks + block) * in_block;
    for w in 0..in_block {
        let mut word = 0u32;
        #[unroll]
        for i in 0..per_word {
            let t = w * comptime!(per_word as u32) + comptime!(i as u32);
            let key = f32::cast_from(k[(from + u32::min(t, count - 1u32) * head_dim) as usize]);
            let code = f32::min(f32::max(f32::round(key / divisor), -largest), largest);
            // Two's complement, by way of the distance from the least.
            let code = u32::cast_from(code + comptime!(half as f32)) ^ half;
            word = word | (select(t < count, code, 0u32) << comptime!((i * bits) as u32));
        }
        words[(to + w) as usize] = word;
    }
}
