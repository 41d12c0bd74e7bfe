//! LibTorch on NVIDIA GPUs: kernels of our own, on torch's memory and stream.
//!
//! This module decides what to launch and allocates what the kernels write; `launch` and `append` check
//! the tensors and launch, `driver` compiles the CUDA sources beside it, once per device and shape of
//! a head. Short steps wait for the host, so it calls into torch as little as it can: tensors are passed
//! whole, without views, and intermediate results have memory that stays. Every function returns the reason
//! where the kernels do not apply or cannot be had, and the caller goes on with torch's own operations; the
//! latter is said once per device on stderr.

mod append;
mod driver;
mod launch;
mod memory;

use std::sync::PoisonError;

use burn::{backend::TensorMetadata, tensor::DType};
use burn_tch::TchTensor;
use tch::{Device, Kind, Tensor};

use self::{
    append::Append,
    driver::Gpu,
    launch::{Attend, Heads, Score, Select},
    memory::Sequences,
};
use crate::{
    config::GroupScores,
    ops::{
        AttendParams, SparqParams,
        ran::{BUCKETS, QUERIES, Reason, SHAPE, SHARED, STORAGE, in_slots, of_one_width},
    },
    spans::{AppendPlan, Span},
};

/// The tensors lie elsewhere.
pub(super) const NOT_CUDA: Reason = "the tensors are not on an NVIDIA GPU";
/// No kernel for this GPU.
const NO_GPU: Reason = "the CUDA driver or NVRTC cannot be loaded";
/// What the warning on stderr says in more words.
const FAILED: Reason = "a CUDA kernel could not be compiled or launched";

/// Selected rows that one block attends over where there are enough others to fill the GPU.
const ROWS_PER_SPLIT: usize = 256;

/// The parts of a cache that an append writes, those that there are.
#[derive(Debug, Default)]
pub(super) struct Targets<'a> {
    pub(super) k: Option<&'a mut TchTensor>,
    pub(super) v: Option<&'a mut TchTensor>,
    pub(super) k_t: Option<&'a mut TchTensor>,
    pub(super) v_sum: Option<&'a mut TchTensor>,
}

/// Appends the real rows of `k_rows` and `v_rows` (f32) to all `targets`, in place, with one launch.
/// Nothing is written where it returns `None`.
pub(super) fn append(
    targets: Targets<'_>,
    k_rows: Option<&TchTensor>,
    v_rows: Option<&TchTensor>,
    plan: &AppendPlan,
) -> Result<(), Reason> {
    let rows = k_rows.or(v_rows).ok_or(SHAPE)?;
    let gpu = gpu_of(&rows.tensor)?;
    let Targets { k, v, k_t, v_sum } = targets;
    let all = [&k, &v, &k_t, &v_sum];
    if all.iter().any(|target| target.as_ref().is_some_and(|target| !target.can_mut())) {
        return Err(SHARED);
    }
    let [_, kv_heads, _, head_dim] = sizes(&rows.tensor)?;
    if let Some(others) = k_rows.and(v_rows) {
        of_one_width(head_dim, sizes::<4>(&others.tensor)?[3])?;
    }
    let capacity = match (&k, &v, &k_t) {
        (Some(rows), _, _) | (_, Some(rows), _) => sizes::<4>(&rows.tensor)?[2],
        (_, _, Some(columns)) => sizes::<4>(&columns.tensor)?[3],
        _ => 1,
    };
    let slots = [&k, &v, &k_t, &v_sum].into_iter().flatten().next().map(|target| target.tensor.size()[0]);
    let slots = slots.ok_or(SHAPE)? as usize;
    in_slots(plan, slots)?;
    // The sum alone has no storage dtype; the kernel is the same.
    let stored = k.as_ref().or(v.as_ref()).or(k_t.as_ref()).map_or(DType::F32, |target| target.dtype());
    let heads = Heads::new(stored, kv_heads, kv_heads, head_dim, 1)?;
    let (k_copy, v_copy) = (k_rows.and_then(reordered), v_rows.and_then(reordered));
    let append = Append {
        heads,
        slots,
        capacity,
        width: plan.width(),
        k_rows: k_copy.as_ref().or(k_rows.map(|rows| &rows.tensor)),
        v_rows: v_copy.as_ref().or(v_rows.map(|rows| &rows.tensor)),
        k: target(&k),
        v: target(&v),
        k_t: target(&k_t),
        v_sum: target(&v_sum),
    };
    for part in Sequences::of(plan.as_slice().len()) {
        gpu.report(append.launch(gpu, part.slice(plan.as_slice()), part)).ok_or(FAILED)?;
    }
    Ok(())
}

/// Exact attention of a few queries per sequence: output and log-sum-exp.
pub(super) fn decode_dense(
    q: &TchTensor,
    k: &TchTensor,
    v: &TchTensor,
    params: &AttendParams,
) -> Result<(TchTensor, TchTensor), Reason> {
    let gpu = gpu_of(&k.tensor)?;
    let Problem { heads, batch, slots, capacity } = Problem::new(q, k, params)?;
    of_one_width(sizes::<4>(&k.tensor)?[3], sizes::<4>(&v.tensor)?[3])?;
    let copy = reordered(q);
    let q = copy.as_ref().unwrap_or(&q.tensor);
    let (out, spans) = (output_like(q), params.spans());
    let [_, query_heads, width, _] = sizes(q)?;
    let size = [batch, query_heads, width].map(|size| size as i64);
    let log_sums = Tensor::empty(size, (Kind::Float, gpu.device));
    for part in Sequences::of(batch) {
        let spans = part.slice(spans.as_slice());
        let groups = part.count * heads.kv_heads * heads.tiles();
        let attend = Attend {
            heads,
            slots,
            capacity,
            threads: 256,
            splits: dense_splits(groups, longest(spans), gpu.multiprocessors),
            params,
            q,
            k: &k.tensor,
            v: &v.tensor,
            out: &out,
            log_sums: Some(&log_sums),
        };
        gpu.report(attend.dense(gpu, spans, part)).ok_or(FAILED)?;
    }
    Ok((TchTensor::new(out), TchTensor::new(log_sums)))
}

/// SparQ attention of one query per sequence: output, positions and masses.
pub(super) fn decode_sparq(
    q: &TchTensor,
    [k, k_t, v]: [&TchTensor; 3],
    v_sum: &TchTensor,
    params: &SparqParams,
) -> Result<(TchTensor, TchTensor, TchTensor), Reason> {
    let gpu = gpu_of(&k.tensor)?;
    let Problem { heads, batch, slots, capacity } = Problem::new(q, k, &params.attend)?;
    of_one_width(sizes::<4>(&k.tensor)?[3], sizes::<4>(&v.tensor)?[3])?;
    let (config, spans) = (&params.config, params.attend.spans());
    if config.buckets().is_some() {
        return Err(BUCKETS);
    }
    if k_t.dtype() != k.dtype() {
        return Err(STORAGE);
    }
    let copy = reordered(q);
    let q = copy.as_ref().unwrap_or(&q.tensor);
    let kept = config.top_k.min(spans.max_end());
    let out = output_like(q);
    let size = |sizes: [usize; 3]| sizes.map(|size| size as i64);
    let positions = Tensor::empty(size([batch, heads.kv_heads, kept]), (Kind::Int64, gpu.device));
    let wants_mass = config.mean_value || params.retained_mass;
    let masses_size = size([batch, heads.heads(), launch::MASSES]);
    let masses = match wants_mass {
        true => Tensor::empty(masses_size, (Kind::Float, gpu.device)),
        false => no_masses(gpu, masses_size),
    };
    for part in Sequences::of(batch) {
        let groups = part.count * heads.kv_heads * heads.tiles();
        // One large block per group hides its own latency where the groups do not fill the GPU.
        let threads = if groups <= gpu.multiprocessors && heads.accumulators() <= 32 { 512 } else { 256 };
        let room = (2 * gpu.multiprocessors / groups).max(1);
        let splits = kept.div_ceil(ROWS_PER_SPLIT).min(room).max(kept.div_ceil(launch::MOST_ROWS)).max(1);
        let select = Select {
            score: Score {
                k_t: &k_t.tensor,
                rank: config.rank,
                local_window: config.local_window,
                by_softmax: config.group_scores == GroupScores::Softmax,
                mass: wants_mass,
            },
            attend: Attend {
                heads,
                slots,
                capacity,
                threads,
                splits,
                params: &params.attend,
                q,
                k: &k.tensor,
                v: &v.tensor,
                out: &out,
                log_sums: None,
            },
            kept,
            mean_value: config.mean_value,
            v_sum: &v_sum.tensor,
            positions: &positions,
            masses: wants_mass.then_some(&masses),
        };
        gpu.report(select.launch(gpu, part.slice(spans.as_slice()), part)).ok_or(FAILED)?;
    }
    Ok((TchTensor::new(out), TchTensor::new(positions), TchTensor::new(masses)))
}

fn target<'a>(target: &'a Option<&mut TchTensor>) -> Option<&'a Tensor> {
    target.as_ref().map(|target| &target.tensor)
}

/// A handle of the device's stand-in for masses that are not wanted.
fn no_masses(gpu: &Gpu, size: [i64; 3]) -> Tensor {
    let mut tensor = gpu.no_masses.lock().unwrap_or_else(PoisonError::into_inner);
    if tensor.size() != size {
        *tensor = Tensor::empty(size, (Kind::Float, gpu.device));
    }
    tensor.shallow_clone()
}

/// The sizes of a decode step.
struct Problem {
    heads: Heads,
    batch: usize,
    slots: usize,
    capacity: usize,
}

impl Problem {
    /// The reason where the kernels do not take them.
    fn new(q: &TchTensor, k: &TchTensor, params: &AttendParams) -> Result<Self, Reason> {
        let [_, query_heads, width, head_dim] = sizes(&q.tensor)?;
        let [slots, kv_heads, capacity, _] = sizes(&k.tensor)?;
        in_slots(&params.queries, slots)?;
        if q.dtype() != DType::F32 {
            return Err(QUERIES);
        }
        let heads = Heads::new(k.dtype(), query_heads, kv_heads, head_dim, width)?;
        let batch = params.queries.as_slice().len();
        Ok(Self { heads, batch, slots, capacity })
    }
}

/// Blocks per head tile of a dense step: the fewest that keep all multiprocessors at work, two blocks
/// on each, down to 64 rows a block.
fn dense_splits(groups: usize, longest: usize, multiprocessors: usize) -> usize {
    let places = 2 * multiprocessors;
    let most = longest.div_ceil(64).clamp(1, (2 * places).div_ceil(groups.max(1)).max(1));
    let busy = |splits: &usize| {
        let blocks = groups * splits;
        20 * blocks >= 19 * blocks.div_ceil(places) * places
    };
    (1..=most).find(busy).unwrap_or(most)
}

fn longest(spans: &[Span]) -> usize {
    spans.iter().map(Span::len).max().unwrap_or(0)
}

fn sizes<const D: usize>(tensor: &Tensor) -> Result<[usize; D], Reason> {
    let sizes: [i64; D] = tensor.size().try_into().map_err(|_| SHAPE)?;
    Ok(sizes.map(|size| size as usize))
}

/// Room for an output of the queries' shape; every element is written.
fn output_like(q: &Tensor) -> Tensor {
    Tensor::empty(q.size(), (Kind::Float, q.device()))
}

/// A copy of `tensor` in order, where it is not.
fn reordered(tensor: &TchTensor) -> Option<Tensor> {
    (!tensor.tensor.is_contiguous()).then(|| tensor.tensor.contiguous())
}

/// The GPU that holds `tensor`, where kernels can be compiled for it.
fn gpu_of(tensor: &Tensor) -> Result<&'static Gpu, Reason> {
    match tensor.device() {
        Device::Cuda(ordinal) => driver::gpu(ordinal).ok_or(NO_GPU),
        _ => Err(NOT_CUDA),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_fill_the_gpu_and_no_more() {
        // 132 multiprocessors, as measured in docs/kernels-cuda.md.
        assert_eq!(dense_splits(512, 16384, 132), 1);
        assert_eq!(dense_splits(32, 16384, 132), 8);
        assert_eq!(dense_splits(8, 32768, 132), 32);
        assert_eq!(dense_splits(8, 128, 132), 2, "64 rows a block at least");
        assert_eq!(dense_splits(1, 0, 132), 1);
    }
}
