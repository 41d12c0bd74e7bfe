//! Overrides for NdArray: the slice kernels in f32, the only half of its dtypes that caches use.
//!
//! Burn drops this backend in its next release; deleting this file and the feature is all it takes.
#![allow(deprecated)] // Supported on purpose for as long as Burn ships it.

use burn::{
    backend::{
        NdArray, TensorMetadata,
        ndarray::NdArrayTensor,
        ops::IntTensorOps,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Shape, TensorData},
};

use super::{
    DenseStep, SparqOps, SparqStep,
    cpu::{self, Sizes, SparqSlices},
    oracle,
};
use crate::spans::AppendPlan;

impl SparqOps for NdArray {
    fn append_rows(
        mut cache: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let [_, kv_heads, capacity, head_dim] = cache.shape().dims();
        let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
        match write(&mut cache, &rows, |cache, rows| cpu::append_rows(cache, rows, &plan, sizes)) {
            Some(()) => cache,
            None => oracle::append_rows::<Self>(cache, rows, &plan),
        }
    }

    fn append_columns(
        mut index: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let [_, kv_heads, head_dim, capacity] = index.shape().dims();
        let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
        match write(&mut index, &rows, |index, rows| cpu::append_columns(index, rows, &plan, sizes)) {
            Some(()) => index,
            None => oracle::append_columns::<Self>(index, rows, &plan),
        }
    }

    fn accumulate(
        mut sum: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let [_, kv_heads, head_dim] = sum.shape().dims();
        let sizes = Sizes { kv_heads, group: 1, head_dim, capacity: 0 };
        match write(&mut sum, &rows, |sum, rows| cpu::accumulate(sum, rows, &plan, sizes)) {
            Some(()) => sum,
            None => oracle::accumulate::<Self>(sum, rows, &plan),
        }
    }

    fn decode_dense(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        step: DenseStep,
    ) -> FloatTensor<Self> {
        let sizes = Sizes::new(q.shape().dims(), k.shape().dims());
        let output = read([&q, &k, &v], |[q, k, v]| cpu::decode_dense(q, k, v, &step, sizes));
        match output {
            Some(output) => floats(output, q.shape()),
            None => oracle::decode_dense::<Self>(q, k, v, &step),
        }
    }

    fn decode_sparq(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        k_index: FloatTensor<Self>,
        v: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        step: SparqStep,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        let sizes = Sizes::new(q.shape().dims(), k.shape().dims());
        let output = read([&q, &k, &k_index, &v, &v_sum], |[q, k, k_index, v, v_sum]| {
            cpu::decode_sparq(&SparqSlices { q, k, k_index, v, v_sum }, &step, sizes)
        });
        match output {
            Some(output) => {
                let [batch, heads, _, _] = q.shape().dims();
                let positions = TensorData::new(output.positions, [batch, sizes.kv_heads, output.kept]);
                let positions = Self::int_from_data(positions, &q.device());
                (
                    floats(output.output, q.shape()),
                    Self::int_cast(positions, oracle::int_dtype::<Self>(&q.device())),
                    floats(output.retained_mass, [batch, heads].into()),
                )
            }
            None => oracle::decode_sparq::<Self>(q, k, k_index, v, v_sum, &step),
        }
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let [tokens, inputs] = x.shape().dims();
        let [outputs, _] = weight.shape().dims();
        let y = match tokens <= cpu::FEW_TOKENS {
            true => read([&x, &weight], |[x, weight]| cpu::linear(x, weight, inputs)),
            false => None,
        };
        match y {
            Some(y) => floats(y, [tokens, outputs].into()),
            None => oracle::linear::<Self>(x, weight),
        }
    }
}

fn floats(values: Vec<f32>, shape: Shape) -> NdArrayTensor {
    NdArrayTensor::from_data(TensorData::new(values, shape))
}

/// Runs `kernel` on the slices of the tensors, where all are f32 and contiguous.
fn read<const N: usize, T>(tensors: [&NdArrayTensor; N], kernel: impl FnOnce([&[f32]; N]) -> T) -> Option<T> {
    let mut views = Vec::with_capacity(N);
    for tensor in tensors {
        let NdArrayTensor::F32(storage) = tensor else {
            return None;
        };
        views.push(storage.view());
    }
    let mut slices = [[].as_slice(); N];
    for (slice, view) in slices.iter_mut().zip(&views) {
        *slice = view.as_slice()?;
    }
    Some(kernel(slices))
}

/// Writes `rows` into the buffer of `target`, where that is f32, contiguous and the only owner.
fn write(
    target: &mut NdArrayTensor,
    rows: &NdArrayTensor,
    kernel: impl FnOnce(&mut [f32], &[f32]),
) -> Option<()> {
    let (NdArrayTensor::F32(target), NdArrayTensor::F32(rows)) = (target, rows) else {
        return None;
    };
    if !target.is_unique() {
        return None;
    }
    let rows = rows.view();
    let rows = rows.as_standard_layout();
    kernel(target.ensure_owned().as_slice_mut()?, rows.as_slice()?);
    Some(())
}
