//! Overrides for NdArray: the slice kernels in f32, the only half of its dtypes that caches use.
//!
//! Burn drops this backend in its next release; deleting this file and the feature is all it takes.
#![allow(deprecated)] // Supported on purpose for as long as Burn ships it.

use burn::backend::{NdArray, ndarray::NdArrayTensor};
use burn::tensor::DType;

use super::cpu::{Element, methods::*, tensors::Slices};

impl SparqOps for NdArray {
    slice_kernels!();
}

impl Slices for NdArray {
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
