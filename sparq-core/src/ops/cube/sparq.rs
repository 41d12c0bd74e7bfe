//! SparQ, step 2 and 3: choice, exact attention over the chosen positions and the mean value, in one
//! launch, or in two where more than [`TILE`] positions are chosen.

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    attend::{self, AttendPlan},
    bind,
    block::Block,
    combine::{self, Mean},
    elem,
    limits::{Cubes, Limits},
    scores::{self, GROUP, KeysByComponent},
    shortlist,
    spans::Table,
    team::ROWS,
    top_k::LIST,
};
use crate::{
    ops::{
        SparqParams,
        ran::{BUCKETS, DEVICE, EMPTY, QUERIES, Reason, SHAPE, in_slots, of_one_width},
    },
    spans::Span,
};

/// What a step leaves for each query head beside its output: α and the log-sum-exp of both steps.
pub(super) const MASSES: usize = 3;
/// Positions that one cube attends to; where there are more, several cubes choose alike and share.
const TILE: usize = 256;

/// See [`crate::ops::decode_sparq`]; the reason where the kernels do not cover the problem.
pub(super) fn decode(
    q: &CubeTensor,
    k: &CubeTensor,
    k_t: KeysByComponent<'_>,
    v: &CubeTensor,
    v_sum: &CubeTensor,
    params: &SparqParams,
) -> Result<(CubeTensor, CubeTensor, CubeTensor), Reason> {
    let [batch, heads, _, head_dim] = q.shape().dims();
    let [slots, kv_heads, capacity, _] = k.shape().dims();
    of_one_width(k.shape()[3], v.shape()[3])?;
    in_slots(&params.attend.queries, slots)?;
    let (config, spans) = (&params.config, params.attend.spans());
    let limits = Limits::new(&q.client, 9)?;
    let team = limits.team(head_dim, heads / kv_heads, k.dtype, Cubes::Few)?;
    let tiles = heads / kv_heads / team.heads;
    if q.dtype != DType::F32 || v_sum.dtype != DType::F32 {
        return Err(QUERIES);
    }
    if spans.as_slice().iter().any(Span::is_empty) {
        return Err(EMPTY);
    }
    if config.buckets().is_some() {
        return Err(BUCKETS);
    }
    if batch * kv_heads * tiles > limits.cubes_y {
        return Err(SHAPE);
    }
    let table = Table::of_spans(q, &spans);
    let kept = config.top_k.min(spans.max_end());
    let outputs = [
        (Shape::new([batch, heads, 1, head_dim]), DType::F32),
        (Shape::new([batch, kv_heads, kept]), DType::I32),
        (Shape::new([batch, heads, MASSES]), DType::F32),
    ];
    let (scores, [output, positions, masses]) =
        scores::launch(q, k_t, params, &spans, &table, &limits, outputs)?;

    let splits = kept.div_ceil(TILE);
    let want = config.top_k - config.local_window.min(config.top_k);
    let short = limits.lists && shortlist::covers(want, team.units());
    // The first round pays where it leaves few positions to the second.
    let two_rounds = config.top_k <= LIST && config.top_k * GROUP * 2 <= spans.max_len();
    let plan = AttendPlan {
        scores: scores.plan,
        team,
        block: Block::new(team.units(), limits.plane),
        list: if two_rounds && !short { config.top_k } else { 0 },
        two_rounds,
        tops: if short { shortlist::tops(want, team.units()) } else { 0 },
        branches: limits.branches,
        tile: kept.div_ceil(splits).next_multiple_of(team.teams * ROWS),
        split: splits > 1,
        mean: config.mean_value,
    };
    if plan.shared() > limits.shared {
        return Err(DEVICE);
    }
    let splits = kept.div_ceil(plan.tile);
    let partial = plan.split.then(|| combine::partials(q, batch * heads, splits, &team));
    #[allow(unsafe_code)]
    // SAFETY: positions come from `0..end`; every output was made for this launch.
    unsafe {
        attend::attend::launch_unchecked(
            &q.client,
            CubeCount::Static(splits as u32, (batch * kv_heads * tiles) as u32, 1),
            CubeDim::new_1d(team.units() as u32),
            team.vector,
            bind(q),
            bind(k),
            bind(v),
            bind(v_sum),
            bind(&scores.scores),
            bind(&scores.stats),
            bind(partial.as_ref().unwrap_or(&output)),
            bind(&positions),
            bind(&masses),
            config.top_k as u32,
            config.local_window as u32,
            kept as u32,
            capacity as u32,
            scores.stride as u32,
            scores.words as u32,
            scores.chunks as u32,
            (batch * kv_heads) as u32,
            params.attend.softcap.unwrap_or(1.0),
            params.attend.scale,
            plan,
            elem(k.dtype),
        );
    }
    if let Some(partial) = partial {
        let mean = match config.mean_value {
            true => Mean::Of { v_sum, table: &table, kv_heads },
            false => Mean::None,
        };
        combine::launch(&partial, &output, &masses, splits, &team, &mean);
    }
    Ok((output, positions, masses))
}
