//! Overrides for Flex: the slice kernels, on buffers borrowed from its tensors.

use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::DType;

use super::cpu::{Element, methods::*, tensors::Slices};

impl SparqOps for Flex {
    slice_kernels!();
}

impl Slices for Flex {
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

    fn words(tensor: &FlexTensor) -> Option<&[i32]> {
        tensor.as_slice::<i32>()
    }

    fn words_mut(tensor: &mut FlexTensor) -> Option<&mut [i32]> {
        let whole = tensor.is_contiguous() && tensor.layout().start_offset() == 0;
        if !whole || tensor.dtype() != DType::I32 {
            return None;
        }
        tensor.try_storage_mut::<i32>()
    }

    fn contiguous(tensor: FlexTensor) -> FlexTensor {
        tensor.to_contiguous()
    }
}
