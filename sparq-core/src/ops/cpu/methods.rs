//! The methods of [`SparqOps`](super::SparqOps) that backends with host memory have in common: the
//! slice kernels of [`tensors`](super::tensors), else the oracle.
//!
//! Written as macros, to stand inside of each backend's `impl`. They go by the names that this module has:
//! import all of it where they stand.

pub(in crate::ops) use burn::backend::{
    TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};

pub(in crate::ops) use crate::{
    ops::{
        AttendParams, SparqOps, SparqParams, append_in_parts,
        cpu::tensors,
        oracle,
        ran::{By, Op, kernel_or, note},
    },
    spans::AppendPlan,
};

/// All of them: what a backend without other kernels takes.
#[cfg(any(feature = "flex", feature = "ndarray"))]
macro_rules! slice_kernels {
    () => {
        fn append_rows(
            mut cache: FloatTensor<Self>,
            rows: FloatTensor<Self>,
            plan: AppendPlan,
        ) -> FloatTensor<Self> {
            let (device, done) = (rows.device(), tensors::append_rows::<Self>(&mut cache, rows.clone(), &plan));
            kernel_or!(AppendRows on device, done, () => cache, oracle::append_rows::<Self>(cache, rows, &plan))
        }

        fn append_columns(
            mut k_t: FloatTensor<Self>,
            rows: FloatTensor<Self>,
            plan: AppendPlan,
        ) -> FloatTensor<Self> {
            let (device, done) = (rows.device(), tensors::append_columns::<Self>(&mut k_t, rows.clone(), &plan));
            kernel_or!(AppendColumns on device, done, () => k_t, oracle::append_columns::<Self>(k_t, rows, &plan))
        }

        fn accumulate(
            mut sum: FloatTensor<Self>,
            rows: FloatTensor<Self>,
            plan: AppendPlan,
        ) -> FloatTensor<Self> {
            let (device, done) = (rows.device(), tensors::accumulate::<Self>(&mut sum, rows.clone(), &plan));
            kernel_or!(Accumulate on device, done, () => sum, oracle::accumulate::<Self>(sum, rows, &plan))
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
            let (cache, rows) = ([&mut k, &mut v, &mut k_t], [k_rows.clone(), v_rows.clone()]);
            let v_sum_there = mean_value.then_some(&mut v_sum);
            match tensors::append_with_kt::<Self>(cache, v_sum_there, rows, &plan) {
                Ok(()) => {
                    note::<Self>(Op::AppendWithKt, &k_rows.device(), By::Kernel);
                    (k, v, k_t, v_sum)
                }
                // Each part says how it ran.
                Err(_) => {
                    let (cache, rows) = ([k, v, k_t, v_sum], [k_rows, v_rows]);
                    append_in_parts::append_with_kt::<Self>(cache, rows, plan, mean_value)
                }
            }
        }

        fn decode_dense(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            params: AttendParams,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (device, done) = (q.device(), tensors::decode_dense::<Self>(q.clone(), &k, &v, &params));
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
            let (device, done) = (q.device(), tensors::decode_sparq::<Self>(q.clone(), [&k, &k_t, &v], v_sum.clone(), &params));
            kernel_or!(DecodeSparq on device, done, outputs => outputs, oracle::decode_sparq::<Self>(q, k, k_t, v, v_sum, &params))
        }

        slice_kernels_beside_cuda!();
    };
}
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(in crate::ops) use slice_kernels;

/// Those that have no CUDA kernel: what a backend takes that has some.
macro_rules! slice_kernels_beside_cuda {
    () => {
        fn prefill(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            params: AttendParams,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (device, done) = (q.device(), tensors::prefill::<Self>(q.clone(), &k, &v, &params));
            kernel_or!(Prefill on device, done, output => output, oracle::attend::<Self>(q, k, v, &params))
        }

        fn append_quantized(
            mut words: IntTensor<Self>,
            mut scales: FloatTensor<Self>,
            k: FloatTensor<Self>,
            plan: AppendPlan,
        ) -> (IntTensor<Self>, FloatTensor<Self>) {
            let (device, done) = (k.device(), tensors::append_quantized::<Self>(&mut words, &mut scales, &k, &plan));
            kernel_or!(AppendQuantized on device, done, () => (words, scales), oracle::append_quantized::<Self>(words, scales, k, &plan))
        }

        fn decode_sparq_quantized(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            words: IntTensor<Self>,
            scales: FloatTensor<Self>,
            v: FloatTensor<Self>,
            v_sum: FloatTensor<Self>,
            params: SparqParams,
        ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
            let floats = [&k, &scales, &v];
            let (device, done) = (q.device(), tensors::decode_sparq_quantized::<Self>(q.clone(), floats, &words, v_sum.clone(), &params));
            kernel_or!(DecodeSparqQuantized on device, done, outputs => outputs, oracle::decode_sparq_quantized::<Self>(q, k, words, scales, v, v_sum, &params))
        }

        fn linear_quantized(
            x: FloatTensor<Self>,
            words: IntTensor<Self>,
            scales: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let (device, done) = (x.device(), tensors::linear_quantized::<Self>(x.clone(), &words, &scales));
            kernel_or!(LinearQuantized on device, done, y => y, oracle::linear_quantized::<Self>(x, words, scales))
        }

        fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
            let (device, done) = (x.device(), tensors::linear::<Self>(x.clone(), &weight));
            kernel_or!(Linear on device, done, y => y, oracle::linear::<Self>(x, weight))
        }
    };
}
pub(in crate::ops) use slice_kernels_beside_cuda;
