//! Overrides for Flex: the slice kernels, on buffers borrowed from its tensors.

use burn::backend::{
    Flex, TensorMetadata,
    flex::FlexTensor,
    ops::FloatTensorOps,
    tensor::{FloatTensor, IntTensor},
};

use super::{
    DenseStep, SparqOps, SparqStep,
    cpu::{self, Element},
    host::{self, Host},
    oracle,
};
use crate::spans::AppendPlan;

impl SparqOps for Flex {
    fn append_rows(
        mut cache: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        match host::append_rows::<Self>(&mut cache, rows.clone(), &plan) {
            Some(()) => cache,
            None => oracle::append_rows::<Self>(cache, rows, &plan),
        }
    }

    fn append_columns(
        mut index: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        match host::append_columns::<Self>(&mut index, rows.clone(), &plan) {
            Some(()) => index,
            None => oracle::append_columns::<Self>(index, rows, &plan),
        }
    }

    fn accumulate(
        mut sum: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        match host::accumulate::<Self>(&mut sum, rows.clone(), &plan) {
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
        match host::decode_dense::<Self>(q.clone(), &k, &v, &step) {
            Some(output) => output,
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
        match host::decode_sparq::<Self>(q.clone(), [&k, &k_index, &v], v_sum.clone(), &step) {
            Some(outputs) => outputs,
            None => oracle::decode_sparq::<Self>(q, k, k_index, v, v_sum, &step),
        }
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let [tokens, _] = x.shape().dims();
        if tokens > cpu::FEW_TOKENS {
            // Flex multiplies half types in f32 anyway: keep the product in f32 as well.
            let weight = Self::float_cast(weight, x.dtype().into());
            return Self::float_matmul(x, Self::float_swap_dims(weight, 0, 1));
        }
        match host::linear::<Self>(x.clone(), &weight) {
            Some(y) => y,
            None => oracle::linear::<Self>(x, weight),
        }
    }
}

impl Host for Flex {
    fn slice<E: Element>(tensor: &FlexTensor) -> Option<&[E]> {
        tensor.as_slice::<E>()
    }

    fn slice_mut<E: Element>(tensor: &mut FlexTensor) -> Option<&mut [E]> {
        let whole = tensor.is_contiguous() && tensor.layout().start_offset() == 0;
        if !whole || tensor.dtype() != E::dtype() {
            return None;
        }
        tensor.try_storage_mut::<E>()
    }

    fn contiguous(tensor: FlexTensor) -> FlexTensor {
        tensor.to_contiguous()
    }
}
