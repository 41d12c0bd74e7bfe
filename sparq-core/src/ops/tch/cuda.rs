//! LibTorch on NVIDIA GPUs: kernels of our own, on torch's memory and stream.
//!
//! This module decides what to launch and allocates what the kernels write; `launch` checks the
//! tensors and launches, `driver` compiles the CUDA sources beside it, once per device and shape of
//! a head. Every function returns `None` where the kernels do not apply or cannot be had, and the
//! caller goes on with torch's own operations; the latter is said once per device on stderr.

mod driver;
mod launch;

use burn::{backend::TensorMetadata, tensor::DType};
use burn_tch::TchTensor;
use tch::{Device, Kind, Tensor};

use self::{
    driver::Gpu,
    launch::{Append, Attend, Heads, SEQUENCES, Score, Select},
};
use crate::{
    config::GroupScores,
    ops::{DenseStep, SparqStep},
    spans::{AppendPlan, Span},
};

/// Selected rows that one block attends over where there are enough others to fill the GPU.
const ROWS_PER_SPLIT: usize = 256;

/// The parts of a cache that an append writes, those that there are.
#[derive(Debug, Default)]
pub(super) struct Targets<'a> {
    pub(super) k: Option<&'a mut TchTensor>,
    pub(super) v: Option<&'a mut TchTensor>,
    pub(super) k_index: Option<&'a mut TchTensor>,
    pub(super) v_sum: Option<&'a mut TchTensor>,
}

/// Appends the real rows of `k_rows` and `v_rows` (f32) to all `targets`, in place, with one launch.
/// Nothing is written where it returns `None`.
pub(super) fn append(
    targets: Targets<'_>,
    k_rows: Option<&TchTensor>,
    v_rows: Option<&TchTensor>,
    plan: &AppendPlan,
) -> Option<()> {
    let Targets { k, v, k_index, v_sum } = targets;
    let all = [&k, &v, &k_index, &v_sum];
    if all.iter().any(|target| target.as_ref().is_some_and(|target| !target.can_mut())) {
        return None;
    }
    let rows = k_rows.or(v_rows)?;
    let gpu = gpu_of(&rows.tensor)?;
    let [batch, kv_heads, _, head_dim] = sizes(&rows.tensor)?;
    let capacity = match (&k, &v, &k_index) {
        (Some(rows), _, _) | (_, Some(rows), _) => sizes::<4>(&rows.tensor)?[2],
        (_, _, Some(columns)) => sizes::<4>(&columns.tensor)?[3],
        _ => 1,
    };
    // The sum alone has no storage dtype; the kernel is the same.
    let stored = k.as_ref().or(v.as_ref()).or(k_index.as_ref()).map_or(DType::F32, |target| target.dtype());
    let heads = Heads::new(stored, kv_heads, kv_heads, head_dim)?;
    let contiguous = |rows: Option<&TchTensor>| rows.map(|rows| rows.tensor.contiguous());
    let (k_rows, v_rows) = (contiguous(k_rows), contiguous(v_rows));
    let targets = [k, v, k_index, v_sum].map(|target| target.map(|target| target.tensor.shallow_clone()));
    for first in (0..batch).step_by(SEQUENCES) {
        let count = SEQUENCES.min(batch - first);
        let part = |tensor: &Option<Tensor>| tensor.as_ref().map(|t| t.narrow(0, first as i64, count as i64));
        let append = Append {
            heads,
            capacity,
            width: plan.width(),
            k_rows: part(&k_rows),
            v_rows: part(&v_rows),
            k: part(&targets[0]),
            v: part(&targets[1]),
            k_index: part(&targets[2]),
            v_sum: part(&targets[3]),
        };
        gpu.report(append.launch(gpu, &plan.as_slice()[first..first + count]))?;
    }
    Some(())
}

/// Exact attention of one query per sequence over all live positions.
pub(super) fn decode_dense(
    q: &TchTensor,
    k: &TchTensor,
    v: &TchTensor,
    step: &DenseStep,
) -> Option<TchTensor> {
    let gpu = gpu_of(&k.tensor)?;
    let (heads, batch) = problem(q, k)?;
    let q = q.tensor.contiguous();
    let out = output_like(&q);
    for first in (0..batch).step_by(SEQUENCES) {
        let spans = spans_from(step.spans.as_slice(), first);
        let part = |tensor: &Tensor| tensor.narrow(0, first as i64, spans.len() as i64);
        let longest = longest(spans);
        let groups = spans.len() * heads.kv_heads * heads.tiles();
        let attend = Attend {
            heads,
            threads: 256,
            splits: dense_splits(groups, longest, gpu.multiprocessors),
            softcap: step.softcap,
            q: part(&q),
            k: part(&k.tensor),
            v: part(&v.tensor),
            out: part(&out),
        };
        gpu.report(attend.dense(gpu, spans))?;
    }
    Some(TchTensor::new(out))
}

/// SparQ attention of one query per sequence: output, positions and retained mass.
pub(super) fn decode_sparq(
    q: &TchTensor,
    [k, k_index, v]: [&TchTensor; 3],
    v_sum: &TchTensor,
    step: &SparqStep,
) -> Option<(TchTensor, TchTensor, TchTensor)> {
    let gpu = gpu_of(&k.tensor)?;
    let (heads, batch) = problem(q, k)?;
    if k_index.dtype() != k.dtype() {
        return None;
    }
    let config = &step.config;
    let q = q.tensor.contiguous();
    let device = q.device();
    let kept = config.top_k.min(step.spans.max_end());
    let out = output_like(&q);
    let size = |sizes: [usize; 3]| sizes.map(|size| size as i64);
    let positions = Tensor::empty(size([batch, heads.kv_heads, kept]), (Kind::Int64, device));
    let mass = Tensor::empty([batch as i64, heads.heads() as i64], (Kind::Float, device));
    for first in (0..batch).step_by(SEQUENCES) {
        let spans = spans_from(step.spans.as_slice(), first);
        let part = |tensor: &Tensor| tensor.narrow(0, first as i64, spans.len() as i64);
        let groups = spans.len() * heads.kv_heads * heads.tiles();
        // One large block per group hides its own latency where the groups do not fill the GPU.
        let threads = if groups <= gpu.multiprocessors && heads.accumulators() <= 32 { 512 } else { 256 };
        let room = (2 * gpu.multiprocessors / groups).max(1);
        let splits = kept.div_ceil(ROWS_PER_SPLIT).min(room).max(kept.div_ceil(launch::MOST_ROWS)).max(1);
        let select = Select {
            score: Score {
                k_index: part(&k_index.tensor),
                rank: config.rank,
                local_window: config.local_window,
                by_softmax: config.group_scores == GroupScores::Softmax,
                mass: config.mean_value || step.retained_mass,
            },
            attend: Attend {
                heads,
                threads,
                splits,
                softcap: step.softcap,
                q: part(&q),
                k: part(&k.tensor),
                v: part(&v.tensor),
                out: part(&out),
            },
            kept,
            mean_value: config.mean_value,
            v_sum: part(&v_sum.tensor),
            positions: part(&positions),
            mass: part(&mass),
        };
        gpu.report(select.launch(gpu, spans))?;
    }
    Some((TchTensor::new(out), TchTensor::new(positions), TchTensor::new(mass)))
}

/// The sizes of a decode step, where the kernels take them.
fn problem(q: &TchTensor, k: &TchTensor) -> Option<(Heads, usize)> {
    let [batch, query_heads, _, head_dim] = sizes(&q.tensor)?;
    let [_, kv_heads, _, _] = sizes(&k.tensor)?;
    if q.dtype() != DType::F32 {
        return None;
    }
    Some((Heads::new(k.dtype(), query_heads, kv_heads, head_dim)?, batch))
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

/// The spans of one launch, from sequence `first` on.
fn spans_from(spans: &[Span], first: usize) -> &[Span] {
    &spans[first..spans.len().min(first + SEQUENCES)]
}

fn sizes<const D: usize>(tensor: &Tensor) -> Option<[usize; D]> {
    let sizes: [i64; D] = tensor.size().try_into().ok()?;
    Some(sizes.map(|size| size as usize))
}

/// Room for an output of the queries' shape; every element is written.
fn output_like(q: &Tensor) -> Tensor {
    Tensor::empty(q.size(), (Kind::Float, q.device()))
}

/// The GPU that holds `tensor`, where kernels can be compiled for it.
fn gpu_of(tensor: &Tensor) -> Option<&'static Gpu> {
    match tensor.device() {
        Device::Cuda(ordinal) => driver::gpu(ordinal),
        _ => None,
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
