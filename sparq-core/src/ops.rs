//! The operations that touch the cache, behind one extension trait over Burn's backends.
//!
//! Each method of [`SparqOps`] has a default body made of plain Burn ops, the oracle
//! ([`oracle`]): it runs on every backend and defines what is right. A backend overrides a method
//! where it can do better; every override is tested against the oracle.
//!
//! Queries and outputs are f32; cache and weights keep their storage dtype.

mod append_in_parts;
mod check;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch"))]
mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[allow(deprecated)] // NdArray and LibTorch are supported on purpose for as long as Burn ships them.
#[allow(clippy::too_many_arguments)] // The tensors of a cache, one by one: the dispatch takes no others.
mod dispatch;
#[cfg(feature = "flex")]
mod flex;
#[cfg(all(feature = "cube", feature = "fusion"))]
mod fusion;
#[cfg(feature = "ndarray")]
mod ndarray;
pub mod oracle;
mod params;
pub mod ran;
#[cfg(feature = "libtorch")]
mod tch;

use burn::{
    backend::Dispatch,
    tensor::{Int, Tensor},
};

use crate::{error::Result, k_t::QuantizedKt, spans::AppendPlan, weight::QuantizedWeight};
pub(crate) use check::check_queries;
use check::{check_attend, check_sparq};
pub use dispatch::SparqOps;
pub use params::{AttendParams, SparqParams};

/// Writes the real rows of `rows: [batch, kv_heads, width, head_dim]` into
/// `cache: [batch, kv_heads, capacity, head_dim]`, in place when `cache` is the only handle.
pub fn append_rows(cache: Tensor<4>, rows: Tensor<4>, plan: &AppendPlan) -> Tensor<4> {
    let (cache, rows) = (cache.into_dispatch(), rows.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SparqOps>::append_rows(cache, rows, plan.clone()))
}

/// Writes the real rows of `rows: [batch, kv_heads, width, head_dim]` as columns into
/// `k_t: [batch, kv_heads, head_dim, capacity]`, in place when `k_t` is the only handle.
pub fn append_columns(k_t: Tensor<4>, rows: Tensor<4>, plan: &AppendPlan) -> Tensor<4> {
    let (k_t, rows) = (k_t.into_dispatch(), rows.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SparqOps>::append_columns(k_t, rows, plan.clone()))
}

/// Adds the real rows of `rows: [batch, kv_heads, width, head_dim]`, f32 or as a cache stores them, to
/// `sum: [batch, kv_heads, head_dim]` (f32).
pub fn accumulate(sum: Tensor<3>, rows: Tensor<4>, plan: &AppendPlan) -> Tensor<3> {
    let (sum, rows) = (sum.into_dispatch(), rows.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SparqOps>::accumulate(sum, rows, plan.clone()))
}

/// [`append_rows`] on keys and on values, together: `cache` and `rows` are keys, then values.
pub fn append(cache: [Tensor<4>; 2], rows: [Tensor<4>; 2], plan: &AppendPlan) -> [Tensor<4>; 2] {
    let ([k, v], [k_rows, v_rows]) = (cache.map(Tensor::into_dispatch), rows.map(Tensor::into_dispatch));
    let (k, v) = <Dispatch as SparqOps>::append(k, v, k_rows, v_rows, plan.clone());
    [k, v].map(Tensor::from_dispatch)
}

/// [`append`] with the other parts of a cache: `cache` are keys, values and transposed keys. The sum
/// of values takes part where `mean_value` is set.
pub fn append_with_kt(
    cache: [Tensor<4>; 3],
    v_sum: Tensor<3>,
    rows: [Tensor<4>; 2],
    plan: &AppendPlan,
    mean_value: bool,
) -> ([Tensor<4>; 3], Tensor<3>) {
    let ([k, v, k_t], [k_rows, v_rows]) = (cache.map(Tensor::into_dispatch), rows.map(Tensor::into_dispatch));
    let v_sum = v_sum.into_dispatch();
    let (k, v, k_t, v_sum) =
        <Dispatch as SparqOps>::append_with_kt(k, v, k_t, v_sum, k_rows, v_rows, plan.clone(), mean_value);
    ([k, v, k_t].map(Tensor::from_dispatch), Tensor::from_dispatch(v_sum))
}

/// Queries per sequence that [`decode_dense`] takes at most.
pub const MOST_QUERIES: usize = 9;

/// What attention gives.
#[derive(Debug, Clone)]
pub struct Attended {
    /// `[batch, heads, width, head_dim]`, f32. Padding comes back finite and meaningless.
    pub output: Tensor<4>,
    /// Log-sum-exp of the scores that each query saw, `[batch, heads, width]`, f32: with it outputs over
    /// parts of a cache are merged, and a sink takes its share. Below -1e29 where a query saw nothing.
    pub log_sum_exp: Tensor<3>,
}

/// What SparQ attention gives.
#[derive(Debug, Clone)]
pub struct SparqAttended {
    /// `[batch, heads, 1, head_dim]`, f32.
    pub output: Tensor<4>,
    /// Positions that were read, `[batch, kv_heads, kept]`, -1 where a sequence has fewer.
    pub positions: Tensor<3, Int>,
    /// For each head α, the log-sum-exp of the approximate scores of all live positions (step 1) and
    /// that of the exact scores of the kept ones (step 2), `[batch, heads, 3]`, f32.
    ///
    /// The output before the mean value is mixed in is that of a step without [`SparqConfig::mean_value`]
    /// and with [`SparqParams::retained_mass`].
    ///
    /// [`SparqConfig::mean_value`]: crate::SparqConfig::mean_value
    pub masses: Tensor<3>,
}

/// Causal attention of `q: [batch, heads, width, head_dim]` over a cache that already holds the
/// same tokens: query `t` sees its own and all earlier positions in the window.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) and [`Error::QueryDtype`](crate::Error::QueryDtype) for queries that do not fit.
pub fn prefill(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, params: AttendParams) -> Result<Attended> {
    check_attend(&q, &k, &v, &params)?;
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    let (output, log_sum_exp) = <Dispatch as SparqOps>::prefill(q, k, v, params);
    Ok(Attended { output: Tensor::from_dispatch(output), log_sum_exp: Tensor::from_dispatch(log_sum_exp) })
}

/// [`prefill`] of 1 to [`MOST_QUERIES`] queries per sequence, which reads the cache once for all of them.
///
/// # Errors
/// As [`prefill`].
pub fn decode_dense(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, params: AttendParams) -> Result<Attended> {
    check_attend(&q, &k, &v, &params)?;
    let [_, _, width, _] = q.dims();
    if width > MOST_QUERIES {
        return prefill(q, k, v, params);
    }
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    let (output, log_sum_exp) = <Dispatch as SparqOps>::decode_dense(q, k, v, params);
    Ok(Attended { output: Tensor::from_dispatch(output), log_sum_exp: Tensor::from_dispatch(log_sum_exp) })
}

/// SparQ attention of `q: [batch, heads, 1, head_dim]` over a cache (see
/// [`crate::LayerCache`] for the other shapes).
///
/// # Errors
/// As [`prefill`].
pub fn decode_sparq(
    q: Tensor<4>,
    k: Tensor<4>,
    k_t: Tensor<4>,
    v: Tensor<4>,
    v_sum: Tensor<3>,
    params: SparqParams,
) -> Result<SparqAttended> {
    check_sparq(&q, &k, &v, &params)?;
    let (output, positions, masses) = <Dispatch as SparqOps>::decode_sparq(
        q.into_dispatch(),
        k.into_dispatch(),
        k_t.into_dispatch(),
        v.into_dispatch(),
        v_sum.into_dispatch(),
        params,
    );
    Ok(SparqAttended {
        output: Tensor::from_dispatch(output),
        positions: Tensor::from_dispatch(positions),
        masses: Tensor::from_dispatch(masses),
    })
}

/// Quantises the blocks of transposed keys that the new rows of a plan lie in, from the rows of
/// `k: [batch, kv_heads, capacity, head_dim]`, which hold them already; in place when the handles are
/// the only ones.
pub fn append_quantized(k_t: QuantizedKt, k: Tensor<4>, plan: &AppendPlan) -> QuantizedKt {
    let (words, scales) = <Dispatch as SparqOps>::append_quantized(
        k_t.words.into_dispatch(),
        k_t.scales.into_dispatch(),
        k.into_dispatch(),
        plan.clone(),
    );
    QuantizedKt { words: Tensor::from_dispatch(words), scales: Tensor::from_dispatch(scales) }
}

/// [`decode_sparq`] over transposed keys in few bits.
///
/// # Errors
/// As [`prefill`].
pub fn decode_sparq_quantized(
    q: Tensor<4>,
    k: Tensor<4>,
    k_t: QuantizedKt,
    v: Tensor<4>,
    v_sum: Tensor<3>,
    params: SparqParams,
) -> Result<SparqAttended> {
    check_sparq(&q, &k, &v, &params)?;
    let (output, positions, masses) = <Dispatch as SparqOps>::decode_sparq_quantized(
        q.into_dispatch(),
        k.into_dispatch(),
        k_t.words.into_dispatch(),
        k_t.scales.into_dispatch(),
        v.into_dispatch(),
        v_sum.into_dispatch(),
        params,
    );
    Ok(SparqAttended {
        output: Tensor::from_dispatch(output),
        positions: Tensor::from_dispatch(positions),
        masses: Tensor::from_dispatch(masses),
    })
}

/// `x · weightᵀ` for `x: [tokens, in]` in f32 and `weight: [out, in]` in its storage dtype, as a
/// checkpoint stores it. Returns `[tokens, out]` in f32.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SparqOps>::linear(x, weight))
}

/// [`linear`] with a weight of eight bits.
pub fn linear_quantized(x: Tensor<2>, weight: QuantizedWeight) -> Tensor<2> {
    let (words, scales) = (weight.words.into_dispatch(), weight.scales.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SparqOps>::linear_quantized(x.into_dispatch(), words, scales))
}

/// Sum of numbers in this process's memory, on all threads: the time that it takes is that of reading them,
/// which figures of decode steps are set beside.
pub fn sum_in_memory(values: &[f32]) -> f32 {
    #[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch"))]
    return cpu::sum(values);
    #[cfg(not(any(feature = "flex", feature = "ndarray", feature = "libtorch")))]
    return values.iter().sum();
}
