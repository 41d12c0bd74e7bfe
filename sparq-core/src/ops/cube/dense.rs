//! Dense decode: flash-decoding, split over the positions.

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    bind,
    combine::{self, Mean},
    elem, empty,
    limits::{Cubes, Limits, Team},
    spans::{Table, cached_head, growing, span, word},
    team::{self, ROWS, Sight},
};
use crate::ops::{
    AttendParams,
    ran::{EMPTY, QUERIES, Reason, SHAPE, in_slots, of_one_width},
};

/// Positions of one cube are at least so many: below, merging costs more than it brings.
const LEAST: usize = 256;

/// See [`crate::ops::decode_dense`]; the reason where the kernels do not cover the problem.
///
/// Queries of one sequence and KV head lie side by side, `[group, width]`: to the kernel they are heads that
/// do not all see the same positions.
pub(super) fn decode(
    q: &CubeTensor,
    k: &CubeTensor,
    v: &CubeTensor,
    params: &AttendParams,
) -> Result<(CubeTensor, CubeTensor), Reason> {
    let [batch, heads, width, head_dim] = q.shape().dims();
    let [slots, kv_heads, capacity, _] = k.shape().dims();
    of_one_width(k.shape()[3], v.shape()[3])?;
    in_slots(&params.queries, slots)?;
    let spans = params.spans();
    let rows = heads * width;
    let limits = Limits::new(&q.client, 6)?;
    let team = limits.team(head_dim, rows / kv_heads, k.dtype, Cubes::Many)?;
    let tiles = rows / team.heads;
    if q.dtype != DType::F32 {
        return Err(QUERIES);
    }
    if batch * tiles > limits.cubes_y {
        return Err(SHAPE);
    }
    // Under a window the first query sees positions that the last one does not.
    let longest = spans.max_len() + width - 1;
    if spans.max_len() == 0 {
        return Err(EMPTY);
    }
    let splits = (limits.busy.div_ceil(batch * tiles)).min(longest.div_ceil(LEAST)).max(1);
    let per_turn = team.teams * ROWS;
    let turns = longest.div_ceil(splits).div_ceil(per_turn);
    let splits = longest.div_ceil(turns * per_turn);
    let table = match width {
        1 => Table::of_spans(q, &spans),
        _ => Table::of_plan(q, &params.queries),
    };
    let [first, second, third] = table.words();

    let partial = (splits > 1).then(|| combine::partials(q, batch * rows, splits, &team));
    let output = empty(q, Shape::new([batch, heads, width, head_dim]), DType::F32);
    let log_sums = empty(q, Shape::new([batch, heads, width]), DType::F32);
    let out = partial.as_ref().unwrap_or(&output);
    #[allow(unsafe_code)]
    // SAFETY: reads stay within the live positions, writes within `out` and `log_sums`, which were made for
    // them.
    unsafe {
        dense::launch_unchecked(
            &q.client,
            CubeCount::Static(splits as u32, (batch * tiles) as u32, 1),
            CubeDim::new_1d(team.units() as u32),
            team.vector,
            bind(q),
            bind(k),
            bind(v),
            table.argument(q),
            bind(out),
            bind(&log_sums),
            first,
            second,
            third,
            params.window.map_or(u32::MAX, |window| window as u32),
            turns as u32,
            capacity as u32,
            params.softcap.unwrap_or(1.0),
            params.scale,
            kv_heads as u32,
            (rows / kv_heads / team.heads) as u32,
            splits > 1,
            table.alike,
            params.softcap.is_some(),
            width as u32,
            team,
            elem(k.dtype),
        );
    }
    if let Some(partial) = partial {
        combine::launch(&partial, &output, &log_sums, splits, &team, &Mean::None);
    }
    Ok((output, log_sums))
}

/// One cube: a share of the positions of one KV head, for up to `team.heads` of its query heads.
#[cube(launch_unchecked)]
fn dense<F: Float, N: Size>(
    q: &[Vector<f32, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    table: &[u32],
    out: &mut [Vector<f32, N>],
    log_sums: &mut [f32],
    first_word: u32,
    second_word: u32,
    third_word: u32,
    window: u32,
    turns: u32,
    capacity: u32,
    cap: f32,
    scale: f32,
    kv_heads: u32,
    tiles: u32,
    #[comptime] split: bool,
    #[comptime] alike: bool,
    #[comptime] capped: bool,
    #[comptime] width: u32,
    #[comptime] team: Team,
    #[define(F)] _dtype: ElemType,
) {
    let tile = CUBE_POS_Y;
    let kv_head = tile / tiles;
    let b = (kv_head / kv_heads) as usize;
    let first_head = tile as usize * team.heads;
    let mut sight = Sight {
        starts: Array::<u32>::new(team.heads),
        lens: Array::<u32>::new(team.heads),
        first: 0u32.runtime(),
    };
    let (start, end) = if comptime!(width == 1) {
        span(table, b, first_word, second_word, alike)
    } else {
        let skip = word(table, b, first_word, 0usize, alike);
        let take = word(table, b, second_word, 1usize, alike);
        let at = growing(table, b, third_word, 2usize, alike);
        #[unroll]
        for h in 0..team.heads {
            // The column of the query; padding sees nothing.
            let t = (tile * comptime!(team.heads as u32) + h as u32) % comptime!(width);
            let seen = select(t - skip < take, at + t - skip + 1u32, 0u32);
            sight.lens[h] = u32::min(seen, window);
            sight.starts[h] = seen - u32::min(seen, window);
        }
        (at + 1u32 - u32::min(at + 1u32, window), at + take)
    };
    let cached_head = cached_head(table, kv_head, kv_heads, alike);
    let own = UNIT_POS / team.lanes as u32;
    let vectors = comptime!(team.vectors());

    let mut exchange = Shared::<[f32]>::new_slice(comptime!(if team.planes() { 1 } else { team.units() }));
    let mut states = Shared::<[f32]>::new_slice(comptime!(team.states()));
    let mut merge = Shared::<[Vector<f32, N>]>::new_slice(comptime!(team.teams * vectors));
    let mut online = team::start::<N>(q, first_head, scale, team);

    let per_turn = comptime!((team.teams * ROWS) as u32);
    let apart = comptime!(width > 1);
    let begin = start + CUBE_POS_X * turns * per_turn;
    let last = u32::max(end, 1u32) - 1u32;
    for turn in 0..turns {
        let first = begin + turn * per_turn + own * comptime!(ROWS as u32);
        let live = u32::max(end, first) - first;
        sight.first = first;
        let mut rows = Array::<u32>::new(ROWS);
        #[unroll]
        for u in 0..ROWS {
            let position = u32::min(first + u as u32, last);
            rows[u] = (cached_head * capacity + position) * comptime!(vectors as u32);
        }
        if comptime!(team.planes() && alike) {
            // The same for all of the cube: exchanges between units want that.
            if begin + turn * per_turn < end {
                team::feed::<F, N>(
                    &mut online,
                    k,
                    v,
                    &rows,
                    live,
                    cap,
                    &mut exchange,
                    &sight,
                    capped,
                    apart,
                    team,
                );
            }
        } else {
            team::feed::<F, N>(
                &mut online,
                k,
                v,
                &rows,
                live,
                cap,
                &mut exchange,
                &sight,
                capped,
                apart,
                team,
            );
        }
    }

    team::merge_states::<N>(&mut online, &mut states, team);
    let (slot, c) = (UNIT_POS as usize / vectors, UNIT_POS as usize % vectors);
    #[unroll]
    for turn in 0..comptime!(team.heads.div_ceil(team.merged_heads())) {
        let first = comptime!(turn * team.merged_heads());
        team::merge_outputs::<N>(&online, &mut merge, first, team);
        if slot < comptime!(team.merged_heads().min(team.heads - first)) {
            let state = team::merged_state(&states, first + slot, team);
            let head = first_head + first + slot;
            if comptime!(split) {
                combine::write_partial::<N>(out, &merge, slot, c, head, state, team);
            } else {
                out[head * vectors + c] =
                    team::merged::<N>(&merge, slot, c, team) * Vector::new(combine::inverse(state.1));
                if c == 0 {
                    log_sums[head] = team::log_sum(state.0, state.1);
                }
            }
        }
    }
}
