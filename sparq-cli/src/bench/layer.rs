//! The attention layer alone: one decode step over random queries, keys and values.
//!
//! A step appends the new token, keeps the mean of values up to date and attends, and the device ends
//! it before the clock stops.

use std::{io, time::Instant};

use burn::tensor::{DType, Device};
use serde::Serialize;
use sparq_core::device;
use sparq_models::core::{
    AttentionLayer, AttentionShape, CacheConfig, IndexDtype, LayerState, Method, NewTokens,
};

use super::{
    bandwidth::Bandwidth,
    machine::Machine,
    mean_and_deviation, median, random,
    record::{Record, Writer},
    sync,
};
use crate::args::{BenchAttentionArgs, BenchMethod};

/// Tokens that a cache is filled with at a time.
const FILL: usize = 1024;
/// Steps before those that count.
const WARMUP: usize = 3;

/// One method at one size.
#[derive(Debug, Clone, Serialize)]
struct LayerRecord {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    bandwidth: Bandwidth,
    dtype: String,
    batch: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    seq_len: usize,
    attention: String,
    sparq_r: Option<usize>,
    sparq_k: Option<usize>,
    /// How SparQ's transposed keys are stored.
    sparq_index: Option<IndexDtype>,
    /// Bytes of the cache that a step reads and writes.
    bytes_per_step: u64,
    /// The same for dense attention.
    dense_bytes_per_step: u64,
    avg_ns: f64,
    stddev_ns: f64,
    median_ns: f64,
    samples_ns: Vec<f64>,
    gb_per_s: f64,
    /// Of the bandwidth of reading.
    bandwidth_fraction: f64,
    /// How many times faster than dense attention, by medians, where it was measured beside this.
    speedup_over_dense: Option<f64>,
    /// What the bytes alone would give.
    speedup_by_bytes: f64,
}

/// The sizes of one layer.
#[derive(Debug, Clone, Copy)]
struct Case {
    dtype: DType,
    batch: usize,
    shape: AttentionShape,
    seq_len: usize,
}

/// `sparq bench attention`.
pub(crate) fn bench_layer(args: &BenchAttentionArgs) -> anyhow::Result<()> {
    let device = device::parse(&args.device)?;
    let machine = Machine::new(&args.device, &device);
    let bandwidth = Bandwidth::measure(&device)?;
    let mut writer = Writer::new(io::stdout().lock(), args.output);
    for case in cases(args, &device)? {
        let mut dense = None;
        for method in methods(args, &case)? {
            let times = time(&case, &method, &device, args.repetitions as usize)?;
            let record = record(&case, &method, &times, &mut dense, (&machine, bandwidth));
            writer.write(&record)?;
        }
    }
    writer.finish()
}

/// Every combination of the sizes; a dtype that the device lacks is an error.
fn cases(args: &BenchAttentionArgs, device: &Device) -> anyhow::Result<Vec<Case>> {
    let mut cases = vec![];
    for dtype in args.dtype.iter().map(|dtype| dtype.or_f32()) {
        device::require_dtype(device, dtype)?;
        for &(heads, kv_heads) in &args.heads {
            for &head_dim in &args.head_dim {
                let shape = AttentionShape { heads, kv_heads, head_dim };
                shape.validate()?;
                for &batch in &args.batch {
                    cases.extend(args.seq_len.iter().map(|&seq_len| Case { dtype, batch, shape, seq_len }));
                }
            }
        }
    }
    Ok(cases)
}

/// The methods to measure, dense attention first.
fn methods(args: &BenchAttentionArgs, case: &Case) -> anyhow::Result<Vec<Method>> {
    let sizes = || args.rank.iter().flat_map(|&rank| args.top_k.iter().map(move |&top_k| (rank, top_k)));
    let mut methods: Vec<BenchMethod> = vec![];
    for method in &args.attention {
        match method.is_open {
            true => {
                methods.extend(sizes().map(|(rank, top_k)| BenchMethod::sized(rank, top_k, method.index())));
            }
            false => methods.push(method.clone()),
        }
    }
    methods.sort_by_key(|method| !method.is_dense());
    let layer = AttentionLayer::from(case.shape);
    methods.iter().map(|method| Ok(method.attention.resolve(&layer, case.seq_len)?)).collect()
}

/// What steps of one method took and moved.
struct Times {
    samples_ns: Vec<f64>,
    bytes: u64,
    dense_bytes: u64,
}

fn time(case: &Case, method: &Method, device: &Device, repetitions: usize) -> anyhow::Result<Times> {
    let Case { dtype, batch, shape, seq_len } = *case;
    let max_len = seq_len + 1;
    let config = CacheConfig { layer: shape.into(), batch, max_len, dtype };
    let mut state = LayerState::new(&config, method, device)?;
    state.reserve(max_len)?;
    let rows = |heads, tokens| random([batch, heads, tokens, shape.head_dim], device);
    // One token less than S: a step appends its own and attends to S.
    fill(&mut state, seq_len.saturating_sub(1), device)?;
    let before = state.traffic();
    let mut samples_ns = vec![];
    for _ in 0..WARMUP + repetitions {
        let (q, k, v) = (rows(shape.heads, 1), rows(shape.kv_heads, 1), rows(shape.kv_heads, 1));
        sync(device)?;
        let start = Instant::now();
        let output = state.decode(q, k, v)?;
        sync(device)?;
        samples_ns.push(start.elapsed().as_nanos() as f64);
        drop(output);
        state.truncate(seq_len.saturating_sub(1))?;
    }
    let traffic = state.traffic();
    let steps = (traffic.steps - before.steps).max(1);
    Ok(Times {
        samples_ns: samples_ns.split_off(WARMUP),
        bytes: traffic.moved.total().bytes / steps,
        dense_bytes: traffic.dense.total().bytes / steps,
    })
}

/// Fills a layer's cache up to `len` tokens per sequence with random keys and values.
pub(super) fn fill(state: &mut LayerState, len: usize, device: &Device) -> anyhow::Result<()> {
    let CacheConfig { layer, batch, .. } = *state.cache().config();
    let AttentionShape { heads, kv_heads, head_dim } = layer.shape;
    let held = state.cache().lens().iter().copied().max().unwrap_or(0);
    for start in (held..len).step_by(FILL) {
        let tokens = FILL.min(len - start);
        let rows = |heads| random([batch, heads, tokens, head_dim], device);
        state.append(&rows(heads), rows(kv_heads), rows(kv_heads), &NewTokens::all(batch, tokens))?;
    }
    sync(device)
}

fn record(
    case: &Case,
    method: &Method,
    times: &Times,
    dense: &mut Option<f64>,
    (machine, bandwidth): (&Machine, Bandwidth),
) -> LayerRecord {
    let (avg_ns, stddev_ns) = mean_and_deviation(&times.samples_ns);
    let median_ns = median(&times.samples_ns);
    if *method == Method::Dense {
        *dense = Some(median_ns);
    }
    let gb_per_s = times.bytes as f64 / median_ns;
    let (sparq_r, sparq_k) = super::model::sparq_sizes(method);
    LayerRecord {
        machine: machine.clone(),
        bandwidth,
        dtype: case.dtype.name().to_owned(),
        batch: case.batch,
        heads: case.shape.heads,
        kv_heads: case.shape.kv_heads,
        head_dim: case.shape.head_dim,
        seq_len: case.seq_len,
        attention: method.name().to_owned(),
        sparq_r,
        sparq_k,
        sparq_index: super::model::sparq_index(method),
        bytes_per_step: times.bytes,
        dense_bytes_per_step: times.dense_bytes,
        avg_ns,
        stddev_ns,
        median_ns,
        samples_ns: times.samples_ns.clone(),
        gb_per_s,
        bandwidth_fraction: gb_per_s / bandwidth.read_gb_per_s,
        speedup_over_dense: dense.map(|dense| dense / median_ns),
        speedup_by_bytes: times.dense_bytes as f64 / times.bytes as f64,
    }
}

impl Record for LayerRecord {
    fn titles() -> &'static [&'static str] {
        &[
            "dtype",
            "B:",
            "heads:",
            "d:",
            "S:",
            "attention",
            "time:",
            "bytes:",
            "GB/s:",
            "of read:",
            "× dense:",
            "by bytes:",
        ]
    }

    fn cells(&self) -> Vec<String> {
        let heads = match self.heads == self.kv_heads {
            true => self.heads.to_string(),
            false => format!("{}/{}", self.heads, self.kv_heads),
        };
        let sizes = (self.sparq_r, self.sparq_k, self.sparq_index);
        let attention = super::model::described(&self.attention, sizes);
        vec![
            self.dtype.clone(),
            self.batch.to_string(),
            heads,
            self.head_dim.to_string(),
            self.seq_len.to_string(),
            attention,
            format!("{:.3} ± {:.3} ms", self.median_ns / 1e6, self.stddev_ns / 1e6),
            crate::output::bytes(self.bytes_per_step as f64),
            format!("{:.1}", self.gb_per_s),
            format!("{:.0} %", 100.0 * self.bandwidth_fraction),
            self.speedup_over_dense.map_or("–".to_owned(), |x| format!("{x:.2}")),
            format!("{:.2}", self.speedup_by_bytes),
        ]
    }
}
