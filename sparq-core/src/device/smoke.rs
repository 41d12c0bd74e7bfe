//! A small SparQ step on a device, against the definition on the processor.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData},
};

use super::require_dtype;
use crate::{
    cache::{CacheConfig, CacheExtras, LayerCache},
    config::{AttentionShape, SparqConfig},
    error::Result,
    layer::LayerState,
    method::Method,
    ops::{self, SparqParams, oracle, ran::Ran},
    spans::NewTokens,
};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };
const LEN: usize = 300;

/// What [`smoke_test`] found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Smoke {
    /// Whether both kept the same positions.
    pub same_positions: bool,
    /// The largest difference of any output, which are of order one.
    pub difference: f32,
}

impl Smoke {
    /// Whether the device computes what it must.
    pub fn passes(&self) -> bool {
        // Written so that a NaN fails.
        self.same_positions && self.difference <= 1e-4
    }
}

/// Appends 300 tokens to a cache on `device` and decodes one with SparQ attention in f32, through the
/// operations that the product runs; and the same through the definition on `processor`.
///
/// # Errors
/// [`crate::Error::UnsupportedDtype`] without f32. A driver may panic.
pub fn smoke_test(device: &Device, processor: &Device) -> Result<Smoke> {
    require_dtype(device, DType::F32)?;
    let (output, positions) = step(device, false)?;
    let (expected, expected_positions) = step(processor, true)?;
    let differences = output.iter().zip(&expected).map(|(a, e)| (a - e).abs());
    // `f32::max` would drop a NaN.
    let difference = differences.fold(0.0, |worst: f32, x| if x.is_nan() || x > worst { x } else { worst });
    let complete = output.len() == expected.len();
    Ok(Smoke { same_positions: complete && positions == expected_positions, difference })
}

/// Runs a prompt, a dense step, a SparQ step and a linear layer on `device`, all small and in f32, and tells
/// which operations ran as kernels, and which as their definitions and why.
///
/// # Errors
/// As [`smoke_test`].
pub fn kernels(device: &Device) -> Result<Vec<Ran>> {
    require_dtype(device, DType::F32)?;
    let before = ops::ran::ran();
    let AttentionShape { heads, kv_heads, head_dim } = SHAPE;
    let config = CacheConfig { layer: SHAPE.into(), batch: 1, max_len: LEN, dtype: DType::F32 };
    for method in [Method::Dense, Method::Sparq(SparqConfig::new(&SHAPE, 8, 24))] {
        let mut layer = LayerState::new(&config, &method, device)?;
        for width in [LEN - 1, 1] {
            let rows = |heads, seed| numbers([1, heads, width, head_dim], seed, device);
            let (q, k, v) = (rows(heads, 1), rows(kv_heads, 2), rows(kv_heads, 3));
            match width {
                1 => layer.decode(q, k, v)?,
                _ => layer.prefill(q, k, v, &NewTokens::all(1, width))?,
            };
        }
    }
    ops::linear(numbers([1, 64], 4, device), numbers([96, 64], 5, device));
    let count_before = |ran: &Ran| {
        let same = |other: &&Ran| (other.op, other.by, &other.device) == (ran.op, ran.by, &ran.device);
        before.iter().find(same).map_or(0, |other| other.count)
    };
    let mut after = ops::ran::ran();
    after.iter_mut().for_each(|ran| ran.count -= count_before(ran).min(ran.count));
    after.retain(|ran| ran.count > 0);
    Ok(after)
}

/// Outputs, and kept positions per KV head in ascending order.
fn step(device: &Device, by_definition: bool) -> Result<(Vec<f32>, Vec<Vec<i64>>)> {
    let AttentionShape { heads, kv_heads, head_dim } = SHAPE;
    let config = CacheConfig { layer: SHAPE.into(), batch: 1, max_len: LEN, dtype: DType::F32 };
    let mut cache = LayerCache::new(
        &config,
        CacheExtras { k_t: true, mean_value: true, ..CacheExtras::default() },
        device,
    )?;
    let tokens = NewTokens::all(1, LEN);
    let plan = cache.plan(&tokens)?;
    let rows = |seed| numbers([1, kv_heads, LEN, head_dim], seed, device);
    cache.append(rows(1), rows(2), &plan)?;
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&SHAPE, 8, 24) };
    let params = SparqParams { attend: cache.attend_params(1), config, retained_mass: true };
    let q = numbers([1, heads, 1, head_dim], 3, device).mul_scalar(2.0);
    let (k, k_t, v, v_sum) = (cache.k()?, cache.k_t()?, cache.v()?, cache.v_sum()?);
    let (output, positions): (Tensor<4>, Tensor<3, Int>) = if by_definition {
        let (output, positions, _) = oracle::decode_sparq::<Dispatch>(
            q.into_dispatch(),
            k.into_dispatch(),
            k_t.into_dispatch(),
            v.into_dispatch(),
            v_sum.into_dispatch(),
            &params,
        );
        (Tensor::from_dispatch(output), Tensor::from_dispatch(positions))
    } else {
        let attended = ops::decode_sparq(q, k, k_t, v, v_sum, params)?;
        (attended.output, attended.positions)
    };
    let [_, _, kept] = positions.dims();
    let positions: Vec<i64> = positions.into_data().iter::<i64>().collect();
    let mut positions: Vec<Vec<i64>> = positions.chunks(kept).map(<[i64]>::to_vec).collect();
    positions.iter_mut().for_each(|row| row.sort_unstable());
    Ok((output.into_data().iter::<f32>().collect(), positions))
}

/// Numbers between -1.7 and 1.7 with variance one, the same everywhere.
fn numbers<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let mut state = seed;
    let mut next = || {
        // Numerical Recipes' generator; its upper bits are good enough here.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 12f32.sqrt()
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_device_runs_kernels() {
        let ran = kernels(&crate::device::parse("cpu").unwrap()).unwrap();
        let ops: Vec<_> = ran.iter().map(|ran| ran.op.name()).collect();
        for op in ["append_rows", "prefill", "decode_dense", "decode_sparq", "linear"] {
            assert!(ops.contains(&op), "{op}: {ops:?}");
        }
        assert!(ran.iter().all(|ran| ran.by == ops::ran::By::Kernel), "{ran:?}");
    }

    #[test]
    fn the_default_device_passes() {
        let device = crate::device::parse("cpu").unwrap();
        let smoke = smoke_test(&device, &device).unwrap();
        assert!(smoke.passes(), "{smoke:?}");
        assert!(!Smoke { difference: f32::NAN, ..smoke }.passes());
        assert!(!Smoke { same_positions: false, ..smoke }.passes());
    }
}
