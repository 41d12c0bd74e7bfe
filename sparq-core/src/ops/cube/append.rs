//! Writing new tokens into the cache, in place, in one launch.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    bind, elem,
    spans::{Table, cached_head, growing, word},
    team::nan_where,
};
use crate::{
    ops::ran::{Reason, in_slots, of_one_width},
    spans::AppendPlan,
};

/// Units per cube.
pub(super) const UNITS: usize = 64;

/// What a launch writes to. Known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Targets {
    k: bool,
    v: bool,
    k_t: bool,
    /// Only for one row per sequence: no two units add to the same element then.
    v_sum: bool,
    alike: bool,
    /// Bits of the least magnitude that the cache stores as NaN.
    beyond: u32,
}

/// A part of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Keys `[slots, kv_heads, capacity, head_dim]`.
    K,
    /// Values `[slots, kv_heads, capacity, head_dim]`.
    V,
    /// Transposed keys `[slots, kv_heads, head_dim, capacity]`.
    Kt,
    /// Sum of values `[slots, kv_heads, head_dim]`, f32.
    Sum,
}

/// Why parts of a cache are not appended to by a kernel.
const APART: Reason =
    "rows are not f32, or a part of the cache is not one contiguous piece of the others' dtype";

/// The reason where [`append`] does not take it: it takes f32 rows and sums, and parts of one dtype that it
/// can write to.
pub(super) fn covers<const N: usize>(
    cache: [&CubeTensor; N],
    parts: [Part; N],
    rows: [&CubeTensor; 2],
    plan: &AppendPlan,
) -> Result<(), Reason> {
    in_slots(plan, cache[0].shape()[0])?;
    of_one_width(rows[0].shape()[3], rows[1].shape()[3])?;
    let small = |tensor: &CubeTensor| tensor.shape().num_elements() <= u32::MAX as usize / 2;
    let (sums, stored): (Vec<_>, Vec<_>) = cache.iter().zip(parts).partition(|(_, part)| *part == Part::Sum);
    let covered = rows.iter().all(|rows| rows.dtype == DType::F32 && small(rows))
        && cache
            .iter()
            .all(|cache| cache.is_contiguous() && cache.shape().num_elements() <= u32::MAX as usize)
        && sums.iter().all(|(sum, _)| sum.dtype == DType::F32)
        && stored.windows(2).all(|pair| pair[0].0.dtype == pair[1].0.dtype);
    covered.then_some(()).ok_or(APART)
}

/// Writes `k` and `v`, both `[batch, kv_heads, width, head_dim]`, into the parts of a cache, which
/// share a dtype but for the sum. A part that somebody else holds as well is copied first.
pub(super) fn append<const N: usize>(
    cache: [CubeTensor; N],
    parts: [Part; N],
    k: CubeTensor,
    v: CubeTensor,
    plan: &AppendPlan,
) -> [CubeTensor; N] {
    let (k, v) = (into_contiguous(k), into_contiguous(v));
    let [batch, kv_heads, width, head_dim] = k.shape().dims();
    let elements = batch * kv_heads * width * head_dim;
    if elements == 0 {
        return cache;
    }
    let cache = cache.map(|part| if part.can_mut() { part } else { part.copy() });
    let find = |wanted| parts.iter().position(|part| *part == wanted).map(|i| &cache[i]);
    let sum = find(Part::Sum);
    if let (Some(sum), true) = (sum, width > 1 || N == 1) {
        let stored = cache.iter().zip(parts).find(|(_, part)| *part != Part::Sum);
        accumulate(sum, &v, plan, stored.map_or(DType::F32, |(stored, _)| stored.dtype));
    }
    let Some(stored) = [Part::K, Part::V, Part::Kt].into_iter().find_map(find) else { return cache };
    let capacity = match find(Part::K).or(find(Part::V)) {
        Some(rows) => rows.shape()[2],
        None => stored.shape()[3],
    };
    let table = Table::of_plan(&k, plan);
    let [skip, take, at] = table.words();
    let targets = Targets {
        k: parts.contains(&Part::K),
        v: parts.contains(&Part::V),
        k_t: parts.contains(&Part::Kt),
        v_sum: width == 1 && sum.is_some(),
        alike: table.alike,
        beyond: beyond(stored.dtype),
    };
    // Where there is nothing to write, another of the written buffers is bound and left alone.
    let target = |part| bind(find(part).unwrap_or(stored));
    #[allow(unsafe_code)]
    // SAFETY: the plan was checked against the capacity and the slots; every other index follows from the shapes.
    unsafe {
        write::launch_unchecked(
            &k.client,
            cubes(elements),
            CubeDim::new_1d(UNITS as u32),
            bind(&k),
            bind(&v),
            target(Part::K),
            target(Part::V),
            target(Part::Kt),
            target(Part::Sum),
            table.argument(&k),
            skip,
            take,
            at,
            elements as u32,
            kv_heads as u32,
            width as u32,
            head_dim as u32,
            capacity as u32,
            targets,
            elem(stored.dtype),
        );
    }
    cache
}

/// Bits of the least magnitude that is infinite in a dtype, rounded to the nearest: it is stored as NaN, so
/// that no softmax hides it.
fn beyond(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 65520.0f32.to_bits(),
        DType::BF16 => 0x7f7f_8000,
        _ => 0x7f80_0000,
    }
}

/// A number as the cache stores it.
#[cube]
fn cached<F: Float>(x: f32, #[comptime] beyond: u32) -> F {
    let magnitude = u32::reinterpret(x) & 0x7fff_ffffu32;
    F::cast_from(nan_where(magnitude >= beyond, x))
}

/// Cubes for one unit per element, on two axes where one would be too long.
pub(super) fn cubes(elements: usize) -> CubeCount {
    let cubes = elements.div_ceil(UNITS);
    let y = cubes.div_ceil(1 << 15);
    CubeCount::Static(cubes.div_ceil(y) as u32, y as u32, 1)
}

/// One unit per element of the new rows.
#[cube(launch_unchecked)]
fn write<F: Float>(
    k: &[f32],
    v: &[f32],
    k_cache: &mut [F],
    v_cache: &mut [F],
    k_t: &mut [F],
    v_sum: &mut [f32],
    table: &[u32],
    skip: u32,
    take: u32,
    at: u32,
    elements: u32,
    kv_heads: u32,
    width: u32,
    head_dim: u32,
    capacity: u32,
    #[comptime] targets: Targets,
    #[define(F)] _dtype: ElemType,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS;
    if unit >= elements {
        terminate!();
    }
    let of_head = unit / (width * head_dim);
    let b = (of_head / kv_heads) as usize;
    let skip = word(table, b, skip, 0usize, targets.alike);
    let take = word(table, b, take, 1usize, targets.alike);
    let at = growing(table, b, at, 2usize, targets.alike);
    let cached_head = cached_head(table, of_head, kv_heads, targets.alike);
    let c = unit % head_dim;
    let t = unit / head_dim % width;
    if t >= skip && t < skip + take {
        let from = unit as usize;
        let to = ((cached_head * capacity + at + t - skip) * head_dim + c) as usize;
        if comptime!(targets.k) {
            k_cache[to] = cached::<F>(k[from], targets.beyond);
        }
        if comptime!(targets.v) {
            v_cache[to] = cached::<F>(v[from], targets.beyond);
        }
        if comptime!(targets.v_sum) {
            v_sum[(cached_head * head_dim + c) as usize] +=
                f32::cast_from(cached::<F>(v[from], targets.beyond));
        }
    }
    if comptime!(targets.k_t) {
        // Neighbouring units write neighbouring positions of a column.
        let t = unit % width;
        let c = unit / width % head_dim;
        if t >= skip && t < skip + take {
            let from = ((of_head * width + t) * head_dim + c) as usize;
            k_t[((cached_head * head_dim + c) * capacity + at + t - skip) as usize] =
                cached::<F>(k[from], targets.beyond);
        }
    }
}

/// Adds the real rows of `rows` to `sum: [slots, kv_heads, head_dim]`, in place, as a cache of this dtype
/// stores them and in their order.
fn accumulate(sum: &CubeTensor, rows: &CubeTensor, plan: &AppendPlan, dtype: DType) {
    let [batch, kv_heads, width, head_dim] = rows.shape().dims();
    let elements = batch * kv_heads * head_dim;
    let table = Table::of_plan(rows, plan);
    let [skip, take, _] = table.words();
    #[allow(unsafe_code)]
    // SAFETY: the plan lies within `width` and the slots; every other index follows from the shapes.
    unsafe {
        add::launch_unchecked(
            &sum.client,
            cubes(elements),
            CubeDim::new_1d(UNITS as u32),
            bind(rows),
            bind(sum),
            table.argument(rows),
            skip,
            take,
            elements as u32,
            kv_heads as u32,
            width as u32,
            head_dim as u32,
            table.alike,
            beyond(dtype),
            elem(dtype),
        );
    }
}

/// One unit per element of a sequence's sum.
#[cube(launch_unchecked)]
fn add<F: Float>(
    rows: &[f32],
    sum: &mut [f32],
    table: &[u32],
    skip: u32,
    take: u32,
    elements: u32,
    kv_heads: u32,
    width: u32,
    head_dim: u32,
    #[comptime] alike: bool,
    #[comptime] beyond: u32,
    #[define(F)] _dtype: ElemType,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS;
    if unit >= elements {
        terminate!();
    }
    let of_head = unit / head_dim;
    let b = (of_head / kv_heads) as usize;
    let skip = word(table, b, skip, 0usize, alike);
    let take = word(table, b, take, 1usize, alike);
    let to = (cached_head(table, of_head, kv_heads, alike) * head_dim + unit % head_dim) as usize;
    let mut total = sum[to];
    for t in skip..skip + take {
        let value = rows[((of_head * width + t) * head_dim + unit % head_dim) as usize];
        total += f32::cast_from(cached::<F>(value, beyond));
    }
    sum[to] = total;
}
