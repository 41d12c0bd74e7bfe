//! Overrides for LibTorch: on the CPU the slice kernels, on NVIDIA GPUs CUDA kernels ([`cuda`]), both
//! on the memory of its tensors.
//!
//! Where neither applies the definitions run, on torch's own operations. Burn drops this backend in
//! its next release; deleting this file, its folder and the feature is all it takes.
#![allow(deprecated)] // Supported on purpose for as long as Burn ships it.

mod cuda;

use burn::backend::{LibTorch, libtorch::LibTorchDevice};
use burn::tensor::DType;
use burn_tch::TchTensor;

use super::{
    cpu::{Element, methods::*, tensors::Slices},
    ran::Reason,
};

/// What a CUDA kernel did, else what a kernel of the CPU does; the reason is that of the place where the
/// tensors lie.
fn cuda_or<T>(done: Result<T, Reason>, host: impl FnOnce() -> Result<T, Reason>) -> Result<T, Reason> {
    match done {
        Err(cuda::NOT_CUDA) => host(),
        done => done,
    }
}

impl SparqOps for LibTorch {
    fn append_rows(
        mut cache: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let targets = cuda::Targets { k: Some(&mut cache), ..Default::default() };
        let device = rows.device();
        let done = cuda_or(cuda::append(targets, Some(&rows), None, &plan), || {
            tensors::append_rows::<Self>(&mut cache, rows.clone(), &plan)
        });
        kernel_or!(AppendRows on device, done, () => cache, oracle::append_rows::<Self>(cache, rows, &plan))
    }

    fn append_columns(
        mut k_t: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let targets = cuda::Targets { k_t: Some(&mut k_t), ..Default::default() };
        let device = rows.device();
        let done = cuda_or(cuda::append(targets, Some(&rows), None, &plan), || {
            tensors::append_columns::<Self>(&mut k_t, rows.clone(), &plan)
        });
        kernel_or!(AppendColumns on device, done, () => k_t, oracle::append_columns::<Self>(k_t, rows, &plan))
    }

    fn accumulate(
        mut sum: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let targets = cuda::Targets { v_sum: Some(&mut sum), ..Default::default() };
        let device = rows.device();
        // The slice kernels widen rows as they read them.
        let rows = if device == LibTorchDevice::Cpu { rows } else { oracle::f32::<Self>(rows) };
        let done = cuda_or(cuda::append(targets, None, Some(&rows), &plan), || {
            tensors::accumulate::<Self>(&mut sum, rows.clone(), &plan)
        });
        kernel_or!(Accumulate on device, done, () => sum, oracle::accumulate::<Self>(sum, rows, &plan))
    }

    fn append(
        mut k: FloatTensor<Self>,
        mut v: FloatTensor<Self>,
        k_rows: FloatTensor<Self>,
        v_rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let targets = cuda::Targets { k: Some(&mut k), v: Some(&mut v), ..Default::default() };
        match cuda::append(targets, Some(&k_rows), Some(&v_rows), &plan) {
            Ok(()) => {
                note::<Self>(Op::Append, &k_rows.device(), By::Kernel);
                (k, v)
            }
            Err(_) => append_in_parts::append::<Self>([k, v], [k_rows, v_rows], plan),
        }
    }

    fn append_with_kt(
        mut k: FloatTensor<Self>,
        mut v: FloatTensor<Self>,
        mut k_t: FloatTensor<Self>,
        mut v_sum: FloatTensor<Self>,
        k_rows: FloatTensor<Self>,
        v_rows: FloatTensor<Self>,
        plan: AppendPlan,
        mean_value: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let targets = cuda::Targets {
            k: Some(&mut k),
            v: Some(&mut v),
            k_t: Some(&mut k_t),
            v_sum: mean_value.then_some(&mut v_sum),
        };
        let done = cuda_or(cuda::append(targets, Some(&k_rows), Some(&v_rows), &plan), || {
            let (cache, rows) = ([&mut k, &mut v, &mut k_t], [k_rows.clone(), v_rows.clone()]);
            tensors::append_with_kt::<Self>(cache, mean_value.then_some(&mut v_sum), rows, &plan)
        });
        match done {
            Ok(()) => {
                note::<Self>(Op::AppendWithKt, &k_rows.device(), By::Kernel);
                (k, v, k_t, v_sum)
            }
            Err(_) => append_in_parts::append_with_kt::<Self>(
                [k, v, k_t, v_sum],
                [k_rows, v_rows],
                plan,
                mean_value,
            ),
        }
    }

    fn decode_dense(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        params: AttendParams,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let device = q.device();
        let done = cuda_or(cuda::decode_dense(&q, &k, &v, &params), || {
            tensors::decode_dense::<Self>(q.clone(), &k, &v, &params)
        });
        kernel_or!(DecodeDense on device, done, output => output, oracle::attend::<Self>(q, k, v, &params))
    }

    fn decode_sparq(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        k_t: FloatTensor<Self>,
        v: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        params: SparqParams,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        let device = q.device();
        let done = cuda_or(cuda::decode_sparq(&q, [&k, &k_t, &v], &v_sum, &params), || {
            tensors::decode_sparq::<Self>(q.clone(), [&k, &k_t, &v], v_sum.clone(), &params)
        });
        kernel_or!(DecodeSparq on device, done, outputs => outputs, oracle::decode_sparq::<Self>(q, k, k_t, v, v_sum, &params))
    }

    slice_kernels_beside_cuda!();
}

impl Slices for LibTorch {
    fn slice<E: Element>(tensor: &TchTensor) -> Option<&[E]> {
        slice_of(tensor, E::dtype())
    }

    fn slice_mut<E: Element>(tensor: &mut TchTensor) -> Option<&mut [E]> {
        slice_of_mut(tensor, E::dtype())
    }

    fn words(tensor: &TchTensor) -> Option<&[i32]> {
        slice_of(tensor, DType::I32)
    }

    fn words_mut(tensor: &mut TchTensor) -> Option<&mut [i32]> {
        slice_of_mut(tensor, DType::I32)
    }

    fn contiguous(tensor: TchTensor) -> TchTensor {
        match tensor.tensor.is_contiguous() {
            true => tensor,
            false => TchTensor::new(tensor.tensor.contiguous()),
        }
    }
}

/// The elements of a tensor of this dtype, which is that of `E`.
fn slice_of<E: bytemuck::Pod>(tensor: &TchTensor, dtype: DType) -> Option<&[E]> {
    if !is_slice::<E>(tensor, dtype) {
        return None;
    }
    // SAFETY: a contiguous tensor on the CPU is `numel` elements of its dtype behind `data_ptr`
    // and keeps them alive; `E` has the size of that dtype and any bits are a valid `E`. Burn writes
    // to a tensor only through its last handle, and this borrow keeps one.
    #[allow(unsafe_code)]
    Some(unsafe { std::slice::from_raw_parts(tensor.tensor.data_ptr().cast::<E>(), tensor.tensor.numel()) })
}

/// The same for writing.
fn slice_of_mut<E: bytemuck::Pod>(tensor: &mut TchTensor, dtype: DType) -> Option<&mut [E]> {
    if !is_slice::<E>(tensor, dtype) || !tensor.can_mut() {
        return None;
    }
    // SAFETY: as above, and `can_mut` says that this is the only handle to the memory, which
    // the mutable borrow keeps.
    #[allow(unsafe_code)]
    Some(unsafe {
        std::slice::from_raw_parts_mut(tensor.tensor.data_ptr().cast::<E>(), tensor.tensor.numel())
    })
}

/// Whether the tensor is a slice of `E` in this process's memory. An empty one has no memory.
fn is_slice<E>(tensor: &TchTensor, dtype: DType) -> bool {
    tensor.tensor.device() == tch::Device::Cpu
        && tensor.dtype() == dtype
        && dtype.size() == size_of::<E>()
        && tensor.tensor.is_contiguous()
        && tensor.tensor.numel() > 0
}
