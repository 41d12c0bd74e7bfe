//! Prefill is Burn's matrix products with the group folded into the query axis; only who sees what is
//! decided here, on the device: a mask made by the host would be larger than the keys.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{cube, prelude::*};

use super::{
    append::{UNITS, cubes},
    bind,
    spans::{Table, growing, word},
    team::{is_overflow, nan_where},
};
use crate::ops::{
    AttendParams,
    oracle::{Block, MASKED},
};

/// Fills scores `[batch, kv_heads, g · columns, positions]` that a column does not see, in place.
pub(super) fn hide(scores: CubeTensor, params: &AttendParams, block: Block) -> CubeTensor {
    debug_assert_eq!(scores.dtype, DType::F32, "scores are f32 on every path");
    let scores = into_contiguous(scores);
    let scores = if scores.can_mut() { scores } else { scores.copy() };
    let [_, kv_heads, rows, len] = scores.shape().dims();
    let ((first, count), (start, _)) = (block.columns, block.positions);
    let elements = scores.shape().num_elements();
    let table = Table::of_plan(&scores, &params.queries);
    let [skip, take, at] = table.words();
    #[allow(unsafe_code)]
    // SAFETY: one unit per score, none beyond.
    unsafe {
        mask::launch_unchecked(
            &scores.client,
            cubes(elements),
            CubeDim::new_1d(UNITS as u32),
            bind(&scores),
            table.argument(&scores),
            skip,
            take,
            at,
            elements as u32,
            (kv_heads * rows) as u32,
            len as u32,
            first as u32,
            count as u32,
            start as u32,
            params.window.map_or(u32::MAX, |window| window as u32),
            table.alike,
        );
    }
    scores
}

/// One unit per score.
#[cube(launch_unchecked)]
fn mask(
    scores: &mut [f32],
    table: &[u32],
    skip: u32,
    take: u32,
    at: u32,
    elements: u32,
    rows: u32,
    len: u32,
    first: u32,
    count: u32,
    start: u32,
    window: u32,
    #[comptime] alike: bool,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS;
    if unit >= elements {
        terminate!();
    }
    let row = unit / len;
    let b = (row / rows) as usize;
    let skip = word(table, b, skip, 0usize, alike);
    let take = word(table, b, take, 1usize, alike);
    let at = growing(table, b, at, 2usize, alike);
    let t = first + row % count;
    let position = start + unit % len;
    let end = select(t < skip, 0u32, at + u32::min(u32::max(t, skip) - skip + 1u32, take));
    let visible = position < end && end - u32::min(position, end) <= window;
    let score = scores[unit as usize];
    if !visible {
        scores[unit as usize] = MASKED;
    } else if is_overflow(score) {
        // Minus infinity would have no weight.
        scores[unit as usize] = nan_where(true, score);
    }
}
