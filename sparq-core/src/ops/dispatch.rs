//! The extension trait over Burn's backends, and the dispatch to the one that a tensor lives on.

use burn::backend::{
    Backend, TensorMetadata, backend_extension,
    tensor::{FloatTensor, IntTensor},
};

#[cfg(all(feature = "cube", feature = "fusion"))]
use super::fusion;
use super::{AttendParams, SparqParams, append_in_parts, oracle, ran, ran::Op};
use crate::spans::AppendPlan;

/// SparQ's operations on a backend. See [`oracle`] for what each one computes.
///
/// `#[fusion(…)]` says what comes out of an operation before it has run: under the feature
/// `fusion` it goes into the backend's queue as one opaque operation.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    LibTorch: cfg(feature = "libtorch"),
    Fusion: cfg(all(feature = "cube", feature = "fusion"))
)]
pub trait SparqOps: Backend {
    /// Writes the real rows of `rows: [batch, kv_heads, width, head_dim]` into
    /// `cache: [batch, kv_heads, capacity, head_dim]`.
    #[fusion(dtype = cache, shape = cache)]
    fn append_rows(cache: FloatTensor<Self>, rows: FloatTensor<Self>, plan: AppendPlan) -> FloatTensor<Self> {
        definition::<Self>(Op::AppendRows, &rows);
        oracle::append_rows::<Self>(cache, rows, &plan)
    }

    /// Writes the real rows of `rows: [batch, kv_heads, width, head_dim]` as columns into
    /// `k_t: [batch, kv_heads, head_dim, capacity]`.
    #[fusion(dtype = k_t, shape = k_t)]
    fn append_columns(
        k_t: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> FloatTensor<Self> {
        definition::<Self>(Op::AppendColumns, &rows);
        oracle::append_columns::<Self>(k_t, rows, &plan)
    }

    /// Adds the real rows of `rows: [batch, kv_heads, width, head_dim]`, f32 or as a cache stores them, to
    /// `sum: [batch, kv_heads, head_dim]` (f32), by kernels one after another.
    #[fusion(dtype = sum, shape = sum)]
    fn accumulate(sum: FloatTensor<Self>, rows: FloatTensor<Self>, plan: AppendPlan) -> FloatTensor<Self> {
        definition::<Self>(Op::Accumulate, &rows);
        oracle::accumulate::<Self>(sum, rows, &plan)
    }

    /// [`SparqOps::append_rows`] on keys and on values, together.
    #[fusion(meta = fusion::appended)]
    fn append(
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        k_rows: FloatTensor<Self>,
        v_rows: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        append_in_parts::append::<Self>([k, v], [k_rows, v_rows], plan)
    }

    /// [`SparqOps::append`], and [`SparqOps::append_columns`] on the transposed keys, and where
    /// `mean_value` is set [`SparqOps::accumulate`] of the values as they are stored, together.
    #[fusion(meta = fusion::appended_with_kt)]
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
        append_in_parts::append_with_kt::<Self>([k, v, k_t, v_sum], [k_rows, v_rows], plan, mean_value)
    }

    /// Causal attention of any number of new tokens over the cache that already holds them: output and
    /// log-sum-exp.
    #[fusion(meta = fusion::attended)]
    fn prefill(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        params: AttendParams,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        definition::<Self>(Op::Prefill, &q);
        oracle::attend::<Self>(q, k, v, &params)
    }

    /// The same for 1 to [`MOST_QUERIES`](super::MOST_QUERIES) queries per sequence: it reads the cache once.
    #[fusion(meta = fusion::attended)]
    fn decode_dense(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        params: AttendParams,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        definition::<Self>(Op::DecodeDense, &q);
        oracle::attend::<Self>(q, k, v, &params)
    }

    /// SparQ attention of one query per sequence: output, positions and masses.
    #[fusion(meta = fusion::sparq_outputs)]
    fn decode_sparq(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        k_t: FloatTensor<Self>,
        v: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        params: SparqParams,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        definition::<Self>(Op::DecodeSparq, &q);
        oracle::decode_sparq::<Self>(q, k, k_t, v, v_sum, &params)
    }

    /// Quantises the blocks of transposed keys that new rows of `k` lie in.
    #[fusion(meta = fusion::quantized_kt)]
    fn append_quantized(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        k: FloatTensor<Self>,
        plan: AppendPlan,
    ) -> (IntTensor<Self>, FloatTensor<Self>) {
        definition::<Self>(Op::AppendQuantized, &k);
        oracle::append_quantized::<Self>(words, scales, k, &plan)
    }

    /// SparQ attention whose first step reads transposed keys in few bits.
    #[fusion(meta = fusion::quantized_outputs)]
    fn decode_sparq_quantized(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        v: FloatTensor<Self>,
        v_sum: FloatTensor<Self>,
        params: SparqParams,
    ) -> (FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>) {
        definition::<Self>(Op::DecodeSparqQuantized, &q);
        oracle::decode_sparq_quantized::<Self>(q, k, words, scales, v, v_sum, &params)
    }

    /// `x · weightᵀ` for `x: [tokens, in]` (f32) and a weight of eight bits.
    #[fusion(meta = fusion::linear_quantized_output)]
    fn linear_quantized(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        definition::<Self>(Op::LinearQuantized, &x);
        oracle::linear_quantized::<Self>(x, words, scales)
    }

    /// `x · weightᵀ` for `x: [tokens, in]` (f32) and `weight: [out, in]` in its storage dtype.
    #[fusion(meta = fusion::linear_output)]
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        definition::<Self>(Op::Linear, &x);
        oracle::linear::<Self>(x, weight)
    }
}

/// Counts an operation that the backend of `beside` leaves to its definition.
fn definition<B: Backend>(op: Op, beside: &FloatTensor<B>) {
    ran::note::<B>(op, &beside.device(), ran::By::Definition(ran::NO_KERNEL));
}
