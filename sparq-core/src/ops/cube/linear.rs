//! Linear layers for few tokens: bound by the bandwidth of the weights.

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, ir::ElemType, prelude::*};

use super::{
    bind, elem, empty,
    limits::{Limits, Team},
    team::team_sum,
};
use crate::ops::ran::{QUERIES, Reason};

/// Most tokens that the kernel takes: for more, a matrix product reads the weights as often.
pub(super) const FEW_TOKENS: usize = 4;
/// Why more go elsewhere.
const TOKENS: Reason = "the kernel is for 1 to 4 tokens: more are a matrix product of Burn's";
/// Loads of a unit that are on their way at once.
const LOADS: usize = 8;

/// See [`crate::ops::linear`]; the reason where the kernel does not cover the problem.
pub(super) fn linear(x: &CubeTensor, weight: &CubeTensor) -> Result<CubeTensor, Reason> {
    let [tokens, inputs] = x.shape().dims();
    let [outputs, _] = weight.shape().dims();
    let limits = Limits::new(&x.client, 3)?;
    if x.dtype != DType::F32 {
        return Err(QUERIES);
    }
    if tokens == 0 || tokens > FEW_TOKENS {
        return Err(TOKENS);
    }
    let team = limits.row_team(inputs, tokens, weight.dtype);
    let y = empty(x, Shape::new([tokens, outputs]), DType::F32);
    let cubes = outputs.div_ceil(team.teams);
    let cubes_y = cubes.div_ceil(1 << 15);
    #[allow(unsafe_code)]
    // SAFETY: rows beyond the last are clamped to it and not written.
    unsafe {
        rows::launch_unchecked(
            &x.client,
            CubeCount::Static(cubes.div_ceil(cubes_y) as u32, cubes_y as u32, 1),
            CubeDim::new_1d(team.units() as u32),
            team.vector,
            bind(x),
            bind(weight),
            bind(&y),
            outputs as u32,
            (inputs / team.vector) as u32,
            team,
            elem(weight.dtype),
        );
    }
    Ok(y)
}

/// One team per row of weights, for all tokens (`team.heads`).
#[cube(launch_unchecked)]
fn rows<F: Float, N: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<F, N>],
    y: &mut [f32],
    outputs: u32,
    vectors: u32,
    #[comptime] team: Team,
    #[define(F)] _dtype: ElemType,
) {
    let lane = UNIT_POS % team.lanes as u32;
    let row = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * team.teams as u32 + UNIT_POS / team.lanes as u32;
    let first = u32::min(row, outputs - 1u32) * vectors;
    let mut sums = Array::<Vector<f32, N>>::new(team.heads);
    #[unroll]
    for t in 0..team.heads {
        sums[t] = Vector::new(0.0f32);
    }
    let stride = comptime!(team.lanes as u32);
    let turns = vectors / comptime!((team.lanes * LOADS) as u32);
    for turn in 0..turns {
        let c = turn * comptime!((team.lanes * LOADS) as u32) + lane;
        let mut loads = Array::<Vector<F, N>>::new(LOADS);
        #[unroll]
        for u in 0..LOADS {
            loads[u] = weight[(first + c + comptime!(u as u32) * stride) as usize];
        }
        #[unroll]
        for u in 0..LOADS {
            let w = Vector::<f32, N>::cast_from(loads[u]);
            #[unroll]
            for t in 0..team.heads {
                sums[t] += w * x[(t as u32 * vectors + c + comptime!(u as u32) * stride) as usize];
            }
        }
    }
    let mut c = turns * comptime!((team.lanes * LOADS) as u32) + lane;
    while c < vectors {
        let w = Vector::<f32, N>::cast_from(weight[(first + c) as usize]);
        #[unroll]
        for t in 0..team.heads {
            sums[t] += w * x[(t as u32 * vectors + c) as usize];
        }
        c += stride;
    }
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(if team.planes() { 1 } else { team.units() }));
    #[unroll]
    for t in 0..team.heads {
        let sum = team_sum(Vector::vector_sum(sums[t]), &mut exchange, team);
        if lane == 0u32 && row < outputs {
            y[(t as u32 * outputs + row) as usize] = sum;
        }
    }
}
