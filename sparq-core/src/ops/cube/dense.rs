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
    spans::{Table, span},
    team::{self, ROWS},
};
use crate::ops::{
    DenseStep,
    ran::{EMPTY, QUERIES, Reason, SHAPE},
};

/// Positions of one cube are at least so many: below, merging costs more than it brings.
const LEAST: usize = 256;

/// See [`crate::ops::decode_dense`]; the reason where the kernels do not cover the problem.
pub(super) fn decode(
    q: &CubeTensor,
    k: &CubeTensor,
    v: &CubeTensor,
    step: &DenseStep,
) -> Result<CubeTensor, Reason> {
    let [batch, heads, _, head_dim] = q.shape().dims();
    let [_, kv_heads, capacity, _] = k.shape().dims();
    let limits = Limits::new(&q.client, 5)?;
    let team = limits.team(head_dim, heads / kv_heads, k.dtype, Cubes::Many)?;
    let tiles = heads / team.heads;
    if q.dtype != DType::F32 {
        return Err(QUERIES);
    }
    if batch * tiles > limits.cubes_y {
        return Err(SHAPE);
    }
    if step.spans.max_len() == 0 {
        return Err(EMPTY);
    }
    let longest = step.spans.max_len();
    let splits = (limits.busy.div_ceil(batch * tiles)).min(longest.div_ceil(LEAST)).max(1);
    let per_turn = team.teams * ROWS;
    let turns = longest.div_ceil(splits).div_ceil(per_turn);
    let splits = longest.div_ceil(turns * per_turn);
    let table = Table::of_spans(q, &step.spans);
    let [reach, end, _] = table.words();

    let partial = (splits > 1).then(|| combine::partials(q, batch * heads, splits, &team));
    let output = empty(q, Shape::new([batch, heads, 1, head_dim]), DType::F32);
    let out = partial.as_ref().unwrap_or(&output);
    #[allow(unsafe_code)]
    // SAFETY: reads stay within the live positions, writes within `out`, which was made for them.
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
            reach,
            end,
            turns as u32,
            capacity as u32,
            step.softcap.unwrap_or(1.0),
            kv_heads as u32,
            (heads / kv_heads / team.heads) as u32,
            splits > 1,
            table.alike,
            step.softcap.is_some(),
            team,
            elem(k.dtype),
        );
    }
    if let Some(partial) = partial {
        combine::launch(&partial, &output, splits, &team, &Mean::None);
    }
    Ok(output)
}

/// One cube: a share of the positions of one KV head, for up to `team.heads` of its query heads.
#[cube(launch_unchecked)]
fn dense<F: Float, N: Size>(
    q: &[Vector<f32, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    table: &[u32],
    out: &mut [Vector<f32, N>],
    reach: u32,
    end: u32,
    turns: u32,
    capacity: u32,
    cap: f32,
    kv_heads: u32,
    tiles: u32,
    #[comptime] split: bool,
    #[comptime] alike: bool,
    #[comptime] capped: bool,
    #[comptime] team: Team,
    #[define(F)] _dtype: ElemType,
) {
    let tile = CUBE_POS_Y;
    let kv_head = tile / tiles;
    let b = (kv_head / kv_heads) as usize;
    let (start, end) = span(table, b, reach, end, alike);
    let first_head = tile as usize * team.heads;
    let own = UNIT_POS / team.lanes as u32;
    let vectors = comptime!(team.vectors());

    let mut exchange = Shared::<[f32]>::new_slice(comptime!(if team.planes() { 1 } else { team.units() }));
    let mut states = Shared::<[f32]>::new_slice(comptime!(team.states()));
    let mut merge = Shared::<[Vector<f32, N>]>::new_slice(comptime!(team.teams * vectors));
    let mut online = team::start::<N>(q, first_head, team);

    let per_turn = comptime!((team.teams * ROWS) as u32);
    let begin = start + CUBE_POS_X * turns * per_turn;
    let last = u32::max(end, 1u32) - 1u32;
    for turn in 0..turns {
        let first = begin + turn * per_turn + own * comptime!(ROWS as u32);
        let live = u32::max(end, first) - first;
        let mut rows = Array::<u32>::new(ROWS);
        #[unroll]
        for u in 0..ROWS {
            let position = u32::min(first + u as u32, last);
            rows[u] = (kv_head * capacity + position) * comptime!(vectors as u32);
        }
        if comptime!(team.planes() && alike) {
            // The same for all of the cube: exchanges between units want that.
            if begin + turn * per_turn < end {
                team::feed::<F, N>(&mut online, k, v, &rows, live, cap, &mut exchange, capped, team);
            }
        } else {
            team::feed::<F, N>(&mut online, k, v, &rows, live, cap, &mut exchange, capped, team);
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
            }
        }
    }
}
