//! Which operations run as kernels: a kernel that gives way to its definition is right, and slow, and
//! no other check would notice.

use burn::tensor::{DType, Device};
use sparq_core::{
    AttentionShape, GroupScores, KtFormat, LayerState, Method, NewTokens, SparqConfig, TopkRule,
    cache::CacheConfig,
    device::{DeviceInfo, require_dtype, require_kt},
    ops::{
        self,
        ran::{self, By, Op},
    },
    weight::QuantizedWeight,
};

use crate::{
    problem::{Path, Problem, attend, floats, tensor},
    suite::note,
    tolerance::TOLERANCES,
};

/// An operation that runs as its definition on a backend, and is known to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// Name of the backend, as [`sparq_core::device::parse`] takes it.
    pub backend: &'static str,
    /// What was done.
    pub case: &'static str,
    /// The operation.
    pub op: Op,
    /// The reason that it gives.
    pub reason: &'static str,
}

const fn known(backend: &'static str, case: &'static str, op: Op, reason: &'static str) -> Fallback {
    Fallback { backend, case, op, reason }
}

const PRODUCTS: &str = "prefill is Burn's matrix products, masked by a kernel";
const TOKENS: &str = "the kernel is for 1 to 4 tokens: more are a matrix product of Burn's";
const BUCKETS: &str = "the kernels have no choice by buckets";
const NO_SLICE: &str = "a tensor is not one contiguous piece of this process's memory, or of another dtype";

/// The table. A row that no longer holds fails the check, so that the table stays true.
pub const FALLBACKS: &[Fallback] = &[
    known("wgpu", "prompt", Op::Prefill, PRODUCTS),
    known("wgpu", "buckets", Op::DecodeSparq, BUCKETS),
    known("wgpu", "linear, 20 tokens", Op::Linear, TOKENS),
    known("wgpu", "linear, 8 bits", Op::LinearQuantized, ran::NO_KERNEL),
    known("cuda", "prompt", Op::Prefill, PRODUCTS),
    known("cuda", "buckets", Op::DecodeSparq, BUCKETS),
    known("cuda", "linear, 20 tokens", Op::Linear, TOKENS),
    known("cuda", "linear, 8 bits", Op::LinearQuantized, ran::NO_KERNEL),
    known("libtorch-cuda", "prompt", Op::Prefill, NO_SLICE),
    known("libtorch-cuda", "buckets", Op::DecodeSparq, BUCKETS),
    known("libtorch-cuda", "linear, 1 token", Op::Linear, NO_SLICE),
    known("libtorch-cuda", "linear, 20 tokens", Op::Linear, NO_SLICE),
];

const SHAPE: AttentionShape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };
const LEN: usize = 200;

/// Runs every operation in every dtype of the device, in this process alone, and compares what ran as its
/// definition with the table.
pub fn kernels_ran(device: &Device) {
    let info = DeviceInfo::of(device);
    let mut found = vec![];
    for row in TOLERANCES.iter().filter(|row| require_dtype(device, row.dtype).is_ok()) {
        for (case, run) in cases(device) {
            ran::reset();
            run(device, row.dtype);
            let all = ran::ran();
            assert!(!all.is_empty(), "{case}: no operation was counted");
            for ran in all {
                note(&format!("{case} {:?}: {} {:?} × {}", row.dtype, ran.op, ran.by, ran.count));
                if let By::Definition(reason) = ran.by {
                    found.push((case, ran.op, reason));
                }
            }
        }
    }
    let problems = differences(&info.backend, &found);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is not as the table of the backend says, in words.
fn differences(backend: &str, found: &[(&str, Op, &str)]) -> Vec<String> {
    let rows = || FALLBACKS.iter().filter(|row| row.backend == backend);
    let mut problems = vec![];
    for &(case, op, reason) in found {
        let problem = format!("{case}: {op} ran as its definition: {reason}");
        if !rows().any(|row| (row.case, row.op, row.reason) == (case, op, reason))
            && !problems.contains(&problem)
        {
            problems.push(problem);
        }
    }
    for row in rows() {
        if !found.contains(&(row.case, row.op, row.reason)) {
            problems.push(format!(
                "{}: {} no longer runs as its definition ({}): remove it from the table",
                row.case, row.op, row.reason
            ));
        }
    }
    problems
}

type Case = (&'static str, fn(&Device, DType));

/// What is done, once per dtype. Forms of the transposed keys that the device refuses with an error are
/// left out.
fn cases(device: &Device) -> Vec<Case> {
    let mut cases: Vec<Case> = vec![
        ("prompt", |device, dtype| drop(prompt(Method::Dense, dtype, device))),
        ("dense", |device, dtype| step(Method::Dense, dtype, device)),
        ("dense, 5 queries", several_queries),
        ("sparq", |device, dtype| step(sparq(|_| ()), dtype, device)),
        ("sparq with the mean value", |device, dtype| {
            step(sparq(|config| config.mean_value = true), dtype, device);
        }),
        ("sparq by softmax", |device, dtype| {
            step(sparq(|config| config.group_scores = GroupScores::Softmax), dtype, device);
        }),
        ("buckets", |device, dtype| {
            step(sparq(|config| config.topk_rule = TopkRule::Buckets), dtype, device);
        }),
        ("some slots", |device, dtype| {
            some_slots(sparq(|config| config.mean_value = true), 1, dtype, device);
        }),
        ("some slots, 5 queries", |device, dtype| some_slots(Method::Dense, 5, dtype, device)),
        ("linear, 1 token", |device, dtype| linear(1, dtype, device)),
        ("linear, 20 tokens", |device, dtype| linear(20, dtype, device)),
    ];
    if require_kt(device, KtFormat::Int8).is_ok() {
        cases.extend::<[Case; 4]>([
            ("sparq, keys in 8 bits", |device, dtype| {
                step(sparq(|config| config.kt_format = KtFormat::Int8), dtype, device);
            }),
            ("sparq, keys in 4 bits", |device, dtype| {
                step(sparq(|config| config.kt_format = KtFormat::Int4), dtype, device);
            }),
            ("some slots, keys in 8 bits", |device, dtype| {
                some_slots(sparq(|config| config.kt_format = KtFormat::Int8), 1, dtype, device);
            }),
            ("linear, 8 bits", |device, _| linear_in_eight_bits(device)),
        ]);
    }
    cases
}

fn sparq(change: fn(&mut SparqConfig)) -> Method {
    let mut config = SparqConfig { mean_value: false, ..SparqConfig::new(&SHAPE, 16, 32) };
    change(&mut config);
    Method::Sparq(config)
}

/// A layer that holds a prompt.
fn prompt(method: Method, dtype: DType, device: &Device) -> LayerState {
    let AttentionShape { heads, kv_heads, head_dim } = SHAPE;
    let config = CacheConfig { layer: SHAPE.into(), batch: 1, max_len: 2 * LEN, dtype };
    let mut layer = LayerState::new(&config, &method, device).expect("a valid layer");
    let wide = AttentionShape { heads: heads * LEN, kv_heads, head_dim };
    let problem = Problem::random(wide, NewTokens::all(1, LEN), 1);
    let q = tensor(problem.q.clone(), [1, heads, LEN, head_dim], device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    layer.prefill(q, k, v, &NewTokens::all(1, LEN)).expect("it fits");
    layer
}

/// A decode step behind a prompt; what the prompt ran is not counted.
fn step(method: Method, dtype: DType, device: &Device) {
    let mut layer = prompt(method, dtype, device);
    ran::reset();
    let problem = Problem::random(SHAPE, NewTokens::all(1, 1), 2);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let output = floats(layer.decode(problem.queries(device), k, v).expect("it fits"));
    assert!(output.iter().all(|x| x.is_finite()));
}

/// A decode step of two sequences out of three, the last first and of other lengths, behind what a prompt left.
fn some_slots(method: Method, width: usize, dtype: DType, device: &Device) {
    const SLOTS: [usize; 2] = [2, 0];
    let config = CacheConfig { layer: SHAPE.into(), batch: 3, max_len: 2 * LEN, dtype };
    let mut layer = LayerState::new(&config, &method, device).expect("a valid layer");
    let mut tokens = |new: NewTokens, decodes: bool| {
        let width = new.width();
        let problem = Problem::random(SHAPE, NewTokens::all(2, width), 4);
        let wide = AttentionShape { heads: SHAPE.heads * width, ..SHAPE };
        let q = Problem::random(wide, NewTokens::all(2, 1), 5).q;
        let q = tensor(q, [2, SHAPE.heads, width, SHAPE.head_dim], device);
        let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
        let new = new.in_slots(&SLOTS).expect("each once");
        if !decodes {
            return layer.append(&q, k, v, &new).expect("it fits");
        }
        let plan = layer.cache().plan(&new).expect("it fits");
        let output = floats(layer.decode_planned(q, k, v, &plan).expect("a step").output);
        assert!(output.iter().all(|x| x.is_finite()));
    };
    tokens(NewTokens::ragged(LEN, &[LEN, 90]).expect("within"), false);
    ran::reset();
    tokens(NewTokens::all(2, width), true);
}

/// Several queries per sequence over what a prompt left.
fn several_queries(device: &Device, dtype: DType) {
    let layer = prompt(Method::Dense, dtype, device);
    ran::reset();
    let wide = AttentionShape { heads: SHAPE.heads * 5, ..SHAPE };
    let q = Problem::random(wide, NewTokens::all(1, 1), 3).q;
    let q = tensor(q, [1, SHAPE.heads, 5, SHAPE.head_dim], device);
    attend(Path::Product, q, layer.cache());
}

fn linear(tokens: usize, dtype: DType, device: &Device) {
    let x = tensor(vec![0.5; tokens * 64], [tokens, 64], device);
    let weight = tensor(vec![0.25; 96 * 64], [96, 64], device).cast(dtype);
    assert_eq!(floats(ops::linear(x, weight))[0], 8.0);
}

fn linear_in_eight_bits(device: &Device) {
    let weight = QuantizedWeight::new(&[0.25; 96 * 64], [96, 64], device);
    let y = floats(ops::linear_quantized(tensor(vec![0.5; 64], [1, 64], device), weight));
    assert!((y[0] - 8.0).abs() < 0.1, "{}", y[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_gives_way_and_a_row_that_is_stale_are_told() {
        let rows: Vec<_> = FALLBACKS.iter().filter(|row| row.backend == "wgpu").collect();
        let mut found: Vec<_> = rows.iter().map(|row| (row.case, row.op, row.reason)).collect();
        assert!(differences("wgpu", &found).is_empty());
        found.push(("dense", Op::DecodeDense, "it is Monday"));
        assert_eq!(differences("wgpu", &found), ["dense: decode_dense ran as its definition: it is Monday"]);
        assert_eq!(differences("wgpu", &found[1..]).len(), 2);
        assert!(differences("flex", &[]).is_empty());
    }
}
