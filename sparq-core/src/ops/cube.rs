//! Overrides for the Cube backends (wgpu, CUDA, …): kernels written once in CubeCL.
//!
//! Where a kernel does not cover a problem (its function returns the reason), the oracle runs.

#![allow(clippy::too_many_arguments)]
// A kernel's arguments are its buffers and sizes.

// Kernels are written in the part of Rust that `cubecl` knows.
#![allow(clippy::assign_op_pattern, clippy::manual_is_multiple_of)]

mod append;
mod attend;
mod block;
mod codes;
mod combine;
mod components;
mod dense;
mod limits;
mod linear;
mod prefill;
mod score;
mod scores;
mod shortlist;
mod spans;
mod sparq;
mod states;
mod team;
mod top_k;

use burn::{
    backend::{
        cubecl::dtype_to_storage_type,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Shape},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{
    ir::ElemType,
    prelude::BufferArg,
    server::{MemoryLayoutDescriptor, MemoryLayoutStrategy},
};

use self::append::Part;
use super::{
    AttendParams, SparqOps, SparqParams, append_in_parts, oracle,
    ran::{By, Op, Reason, kernel_or, note},
};
use crate::spans::AppendPlan;

/// Why a prefill has no kernel here.
const PRODUCTS: Reason = "prefill is Burn's matrix products, masked by a kernel";

impl SparqOps for CubeBackend {
    fn append_rows(cache: FloatTensor<Self>, rows: FloatTensor<Self>, plan: AppendPlan) -> FloatTensor<Self> {
        let covered = append::covers([&cache], [Part::K], [&rows; 2], &plan);
        kernel_or!(AppendRows on rows.device, covered, () => append_one(cache, Part::K, rows, &plan),
            oracle::append_rows::<Self>(cache, rows, &plan))
    }

    fn append_columns(
        k_t: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        let covered = append::covers([&k_t], [Part::Kt], [&rows; 2], &plan);
        kernel_or!(AppendColumns on rows.device, covered, () => append_one(k_t, Part::Kt, rows, &plan),
            oracle::append_columns::<Self>(k_t, rows, &plan))
    }

    fn accumulate(sum: FloatTensor<Self>, rows: FloatTensor<Self>, plan: AppendPlan) -> FloatTensor<Self> {
        let rows = oracle::f32::<Self>(rows);
        let covered = append::covers([&sum], [Part::Sum], [&rows; 2], &plan);
        kernel_or!(Accumulate on rows.device, covered, () => append_one(sum, Part::Sum, rows, &plan),
            oracle::accumulate::<Self>(sum, rows, &plan))
    }

    fn append(
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        k_rows: FloatTensor<Self>,
        v_rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let parts = [Part::K, Part::V];
        if append::covers([&k, &v], parts, [&k_rows, &v_rows], &plan).is_err() {
            return append_in_parts::append::<Self>([k, v], [k_rows, v_rows], plan);
        }
        note::<Self>(Op::Append, &k_rows.device, By::Kernel);
        let [k, v] = append::append([k, v], parts, k_rows, v_rows, &plan);
        (k, v)
    }

    fn append_with_kt(
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        k_t: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        k_rows: FloatTensor<Self>,
        v_rows: FloatTensor<Self>,
        plan: AppendPlan,
        mean_value: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let parts = [Part::K, Part::V, Part::Kt, Part::Sum];
        if append::covers([&k, &v, &k_t, &v_sum], parts, [&k_rows, &v_rows], &plan).is_err() {
            return append_in_parts::append_with_kt::<Self>(
                [k, v, k_t, v_sum],
                [k_rows, v_rows],
                plan,
                mean_value,
            );
        }
        note::<Self>(Op::AppendWithKt, &k_rows.device, By::Kernel);
        if mean_value {
            let [k, v, k_t, v_sum] = append::append([k, v, k_t, v_sum], parts, k_rows, v_rows, &plan);
            return (k, v, k_t, v_sum);
        }
        let parts = [Part::K, Part::V, Part::Kt];
        let [k, v, k_t] = append::append([k, v, k_t], parts, k_rows, v_rows, &plan);
        (k, v, k_t, v_sum)
    }

    fn prefill(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        params: AttendParams,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        note::<Self>(Op::Prefill, &q.device, By::Definition(PRODUCTS));
        oracle::attend_with::<Self>(q, k, v, &params, prefill::hide)
    }

    fn decode_dense(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        params: AttendParams,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (q, k, v) = (into_contiguous(q), into_contiguous(k), into_contiguous(v));
        let done = dense::decode(&q, &k, &v, &params);
        kernel_or!(DecodeDense on q.device, done, output => output, oracle::attend::<Self>(q, k, v, &params))
    }

    fn decode_sparq(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        k_t: FloatTensor<Self>,
        v: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        params: SparqParams,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        let (q, k, v) = (into_contiguous(q), into_contiguous(k), into_contiguous(v));
        let (k_t, v_sum) = (into_contiguous(k_t), into_contiguous(v_sum));
        let done = sparq::decode(&q, &k, scores::KeysByComponent::Stored(&k_t), &v, &v_sum, &params);
        kernel_or!(DecodeSparq on q.device, done, outputs => outputs,
            oracle::decode_sparq::<Self>(q, k, k_t, v, v_sum, &params))
    }

    fn append_quantized(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        k: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> (IntTensor<Self>, FloatTensor<Self>) {
        let covered = codes::covers(&words, &scales, &k, &plan);
        kernel_or!(AppendQuantized on k.device, covered, () => codes::append(words, scales, &k, &plan),
            oracle::append_quantized::<Self>(words, scales, k, &plan))
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
        let (q, k, v, v_sum) =
            (into_contiguous(q), into_contiguous(k), into_contiguous(v), into_contiguous(v_sum));
        let (words, scales) = (into_contiguous(words), into_contiguous(scales));
        let k_t = scores::KeysByComponent::Codes { words: &words, scales: &scales };
        let done = sparq::decode(&q, &k, k_t, &v, &v_sum, &params);
        kernel_or!(DecodeSparqQuantized on q.device, done, outputs => outputs,
            oracle::decode_sparq_quantized::<Self>(q, k, words, scales, v, v_sum, &params))
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight) = (into_contiguous(x), into_contiguous(weight));
        let done = linear::linear(&x, &weight);
        kernel_or!(Linear on x.device, done, y => y, oracle::linear::<Self>(x, weight))
    }
}

fn append_one(cache: CubeTensor, part: Part, rows: CubeTensor, plan: &AppendPlan) -> CubeTensor {
    let [cache] = append::append([cache], [part], rows.clone(), rows, plan);
    cache
}

/// A new tensor beside `like`, its contents undefined.
fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let [tensor] = empties(like, [(shape, dtype)]);
    tensor
}

/// New tensors beside `like` in one allocation, their contents undefined. Each allocation is a message to
/// the thread that serves the device.
fn empties<const N: usize>(like: &CubeTensor, tensors: [(Shape, DType); N]) -> [CubeTensor; N] {
    let descriptors = tensors.iter().map(|(shape, dtype)| {
        MemoryLayoutDescriptor::new(MemoryLayoutStrategy::Contiguous, shape.clone(), dtype.size())
    });
    let mut layouts = like.client.empty_tensors(descriptors.collect()).into_iter();
    tensors.map(|(shape, dtype)| {
        let (client, device) = (like.client.clone(), like.device.clone());
        // There is a layout for each descriptor.
        let handle = layouts
            .next()
            .map_or_else(|| like.client.empty(shape.num_elements() * dtype.size()), |layout| layout.memory);
        CubeTensor::new_contiguous(client, device, shape, handle, dtype)
    })
}

/// A whole contiguous tensor as an argument of a launch. Its elements are counted from its memory: a shape
/// would be allocated.
fn bind(tensor: &CubeTensor) -> BufferArg {
    let elements = tensor.handle.size_in_used() as usize / tensor.dtype.size();
    spans::buffer(tensor.handle.clone(), elements)
}

fn elem(dtype: DType) -> ElemType {
    dtype_to_storage_type(dtype)
}
