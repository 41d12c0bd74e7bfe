//! Overrides for Flex: the slice kernels, on buffers borrowed from its tensors.

use burn::{
    backend::{
        Flex, TensorMetadata,
        flex::FlexTensor,
        ops::{FloatTensorOps, IntTensorOps},
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, IntDType, TensorData},
};
use half::{bf16, f16};

use super::{
    DenseStep, SparqOps, SparqStep,
    cpu::{self, Element, Sizes, SparqSlices},
    oracle,
};
use crate::spans::AppendPlan;

/// Runs `$body` with `$E` bound to the element type of `$dtype`, or `$otherwise`.
macro_rules! with_element {
    ($dtype:expr, $E:ident => $body:expr, _ => $otherwise:expr) => {
        match $dtype {
            DType::F32 => {
                type $E = f32;
                $body
            }
            DType::F16 => {
                type $E = f16;
                $body
            }
            DType::BF16 => {
                type $E = bf16;
                $body
            }
            _ => $otherwise,
        }
    };
}

impl SparqOps for Flex {
    fn append_rows(
        mut cache: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let [_, kv_heads, capacity, head_dim] = cache.shape().dims();
        let sizes = Sizes { kv_heads, group: 1, head_dim, capacity };
        let written = with_element!(cache.dtype(), E => write::<E>(&mut cache, &rows, |cache, rows| {
            cpu::append_rows(cache, rows, &plan, sizes);
        }), _ => None);
        match written {
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
        let written = with_element!(index.dtype(), E => write::<E>(&mut index, &rows, |index, rows| {
            cpu::append_columns(index, rows, &plan, sizes);
        }), _ => None);
        match written {
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
        let written = write::<f32>(&mut sum, &rows, |sum, rows| cpu::accumulate(sum, rows, &plan, sizes));
        match written {
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
        let q = q.to_contiguous();
        let sizes = Sizes::new(q.shape().dims(), k.shape().dims());
        let output = with_element!(k.dtype(), E => slices::<E, 2>(&q, [&k, &v]).map(|(q, [k, v])| {
            cpu::decode_dense(q, k, v, &step, sizes)
        }), _ => None);
        match output {
            Some(output) => floats(output, &q.shape()),
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
        let (q, v_sum) = (q.to_contiguous(), v_sum.to_contiguous());
        let sizes = Sizes::new(q.shape().dims(), k.shape().dims());
        let output = with_element!(k.dtype(), E => {
            let sum = v_sum.as_slice::<f32>();
            slices::<E, 3>(&q, [&k, &k_index, &v]).zip(sum).map(|((q, [k, k_index, v]), v_sum)| {
                cpu::decode_sparq(&SparqSlices { q, k, k_index, v, v_sum }, &step, sizes)
            })
        }, _ => None);
        match output {
            Some(output) => {
                let [batch, heads, _, _] = q.shape().dims();
                let positions = TensorData::new(output.positions, [batch, sizes.kv_heads, output.kept]);
                let positions = Self::int_from_data(positions, &q.device());
                let mass = TensorData::new(output.retained_mass, [batch, heads]);
                (
                    floats(output.output, &q.shape()),
                    Self::int_cast(positions, IntDType::I32),
                    FlexTensor::from_data(mass),
                )
            }
            None => oracle::decode_sparq::<Self>(q, k, k_index, v, v_sum, &step),
        }
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let [tokens, inputs] = x.shape().dims();
        let [outputs, _] = weight.shape().dims();
        if tokens > cpu::FEW_TOKENS {
            // Flex multiplies half types in f32 anyway: keep the product in f32 as well.
            let weight = Self::float_cast(weight, x.dtype().into());
            return Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1));
        }
        let x = x.to_contiguous();
        let y = with_element!(weight.dtype(), E => slices::<E, 1>(&x, [&weight]).map(|(x, [weight])| {
            cpu::linear(x, weight, inputs)
        }), _ => None);
        match y {
            Some(y) => floats(y, &[tokens, outputs].into()),
            None => oracle::linear::<Self>(x, weight),
        }
    }
}

fn floats(values: Vec<f32>, shape: &burn::tensor::Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.clone()))
}

/// The f32 slice of `q` and the slices of the others, where all are contiguous and of these types.
fn slices<'a, E: Element, const N: usize>(
    q: &'a FlexTensor,
    others: [&'a FlexTensor; N],
) -> Option<(&'a [f32], [&'a [E]; N])> {
    let mut out = [[].as_slice(); N];
    for (slice, tensor) in out.iter_mut().zip(others) {
        *slice = tensor.as_slice::<E>()?;
    }
    Some((q.as_slice::<f32>()?, out))
}

/// Runs `kernel` on the buffer of `target`, where that is contiguous and the only owner, and f32
/// `rows`.
fn write<E: Element>(
    target: &mut FlexTensor,
    rows: &FlexTensor,
    kernel: impl FnOnce(&mut [E], &[f32]),
) -> Option<()> {
    let whole = target.is_contiguous() && target.layout().start_offset() == 0;
    if !whole || target.dtype() != E::dtype() {
        return None;
    }
    let rows = rows.to_contiguous();
    kernel(target.try_storage_mut::<E>()?, rows.as_slice::<f32>()?);
    Some(())
}
