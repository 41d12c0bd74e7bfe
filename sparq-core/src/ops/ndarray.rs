//! Overrides for NdArray: the slice kernels in f32, the only half of its dtypes that caches use.
//!
//! Burn drops this backend in its next release; deleting this file and the feature is all it takes.
#![allow(deprecated)] // Supported on purpose for as long as Burn ships it.

use burn::backend::{
    NdArray,
    ndarray::NdArrayTensor,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::DType;

use super::{
    DenseStep, PrefillStep, SparqOps, SparqStep,
    cpu::Element,
    host::{self, Host},
    oracle,
};
use crate::spans::AppendPlan;

impl SparqOps for NdArray {
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

    fn prefill(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        step: PrefillStep,
    ) -> FloatTensor<Self> {
        match host::prefill::<Self>(q.clone(), &k, &v, &step) {
            Some(output) => output,
            None => oracle::prefill::<Self>(q, k, v, &step),
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

    fn append_quantized(
        mut words: IntTensor<Self>,
        mut scales: FloatTensor<Self>,
        k: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> (IntTensor<Self>, FloatTensor<Self>) {
        match host::append_quantized::<Self>(&mut words, &mut scales, &k, &plan) {
            Some(()) => (words, scales),
            None => oracle::append_quantized::<Self>(words, scales, k, &plan),
        }
    }

    fn decode_sparq_quantized(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        v: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        step: SparqStep,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        let floats = [&k, &scales, &v];
        match host::decode_sparq_quantized::<Self>(q.clone(), floats, &words, v_sum.clone(), &step) {
            Some(outputs) => outputs,
            None => oracle::decode_sparq_quantized::<Self>(q, k, words, scales, v, v_sum, &step),
        }
    }

    fn linear_quantized(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        match host::linear_quantized::<Self>(x.clone(), &words, &scales) {
            Some(y) => y,
            None => oracle::linear_quantized::<Self>(x, words, scales),
        }
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        match host::linear::<Self>(x.clone(), &weight) {
            Some(y) => y,
            None => oracle::linear::<Self>(x, weight),
        }
    }
}

impl Host for NdArray {
    fn slice<E: Element>(tensor: &NdArrayTensor) -> Option<&[E]> {
        let NdArrayTensor::F32(storage) = tensor else {
            return None;
        };
        bytemuck::try_cast_slice(storage.view().to_slice()?).ok().filter(|_| E::dtype() == DType::F32)
    }

    fn slice_mut<E: Element>(tensor: &mut NdArrayTensor) -> Option<&mut [E]> {
        let NdArrayTensor::F32(storage) = tensor else {
            return None;
        };
        if !storage.is_unique() || E::dtype() != DType::F32 {
            return None;
        }
        bytemuck::try_cast_slice_mut(storage.ensure_owned().as_slice_mut()?).ok()
    }

    fn words(tensor: &NdArrayTensor) -> Option<&[i32]> {
        let NdArrayTensor::I32(storage) = tensor else {
            return None;
        };
        storage.view().to_slice()
    }

    fn words_mut(tensor: &mut NdArrayTensor) -> Option<&mut [i32]> {
        let NdArrayTensor::I32(storage) = tensor else {
            return None;
        };
        if !storage.is_unique() {
            return None;
        }
        storage.ensure_owned().as_slice_mut()
    }

    fn contiguous(tensor: NdArrayTensor) -> NdArrayTensor {
        match &tensor {
            NdArrayTensor::F32(storage) if !storage.view().is_standard_layout() => {
                storage.view().as_standard_layout().into_owned().into_shared().into()
            }
            _ => tensor,
        }
    }
}
