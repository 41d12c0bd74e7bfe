//! The attention layer alone: one decode step over random queries, keys and values.
//!
//! A step appends the new token, keeps the mean of values up to date and attends, and the device ends
//! it before the clock stops. The methods and the bandwidth of memory take turns, so that whatever else
//! the machine does weighs on all of them, and ratios are medians over the turns.

use std::{io, time::Instant};

use anyhow::Context;
use burn::tensor::{DType, Device};
use serde::Serialize;
use sparq_core::device;
use sparq_models::{
    attention::{MethodSpec, SpecKeys},
    core::{
        AttentionLayer, AttentionShape, CacheConfig, LayerMark, LayerState, Method, MethodKind, NewTokens,
    },
};

use super::{
    bandwidth::{Bandwidth, Meter, Reached},
    machine::Machine,
    mean_and_deviation, median, median_ratio,
    method::MethodSettings,
    random,
    record::{Record, Writer},
    sync,
};
use crate::{args::BenchAttentionArgs, room};

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
    #[serde(flatten)]
    settings: MethodSettings,
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

impl Case {
    /// Bytes of a method's cache, and of what fills it.
    fn bytes(&self, method: &Method) -> anyhow::Result<u128> {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let wide = |size: usize| size as u128;
        let row = wide(self.batch) * wide(head_dim) * wide(kv_heads);
        let extras = method.for_layer(&self.shape)?.cache_extras();
        let copy = match (extras.k_t, extras.kt_format.bits()) {
            (false, _) => 0,
            (true, None) => row * wide(self.dtype.size()),
            (true, Some(bits)) => row * wide(bits) / 8,
        };
        let cache = (2 * row * wide(self.dtype.size()) + copy) * wide(self.seq_len);
        let rows = wide(self.batch) * wide(head_dim) * (wide(heads) + 2 * wide(kv_heads));
        Ok(cache + rows * wide(FILL.min(self.seq_len)) * wide(DType::F32.size()))
    }
}

/// `sparq bench attention`.
pub(crate) fn bench_layer(args: &BenchAttentionArgs) -> anyhow::Result<()> {
    let device = device::parse(&args.device)?;
    let machine = Machine::new(&args.device, &device);
    let cases = cases(args, &device)?;
    for case in &cases {
        let needed =
            methods(args, case)?.iter().map(|method| case.bytes(method)).sum::<anyhow::Result<u128>>()?;
        let what = format!("attention over {} sequences of {} tokens", case.batch, case.seq_len);
        room::require(
            &device,
            needed,
            &what,
            "give a smaller -s, -b, --heads or --head-dim, or fewer methods",
        )?;
    }
    let meter = Meter::new(&device)?;
    let bandwidth = meter.bandwidth()?;
    let mut writer = Writer::new(io::stdout().lock(), args.output);
    for case in cases {
        let mut contestants: Vec<Contestant> = methods(args, &case)?
            .into_iter()
            .map(|method| Contestant::new(&case, method, &device))
            .collect::<anyhow::Result<_>>()?;
        let mut reads = vec![];
        for turn in 0..WARMUP + args.repetitions {
            let read = meter.read()?;
            for contestant in &mut contestants {
                contestant.step(turn >= WARMUP)?;
            }
            if turn >= WARMUP {
                reads.push(read);
            }
        }
        let bandwidth = Bandwidth { read_gb_per_s: median(&reads), ..bandwidth };
        let dense = contestants.iter().find(|contestant| contestant.method == Method::Dense);
        for contestant in &contestants {
            writer.write(&record(&case, contestant, dense, &reads, (&machine, bandwidth)))?;
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

/// The methods to measure, dense attention first; one that states no sizes at each of those of the flags.
fn methods(args: &BenchAttentionArgs, case: &Case) -> anyhow::Result<Vec<Method>> {
    let mut methods: Vec<MethodSpec> = vec![];
    for method in &args.attention {
        let takes = |key| method.takes(key);
        let is_open = !["@", "r", "k"].into_iter().any(|option| method.states(option));
        let ranks = if takes("r") { &args.rank[..] } else { &args.rank[..1] };
        match is_open && takes("k") {
            true => methods.extend(ranks.iter().flat_map(|&rank| {
                args.top_k.iter().map(move |&top_k| {
                    let rank = takes("r").then_some(rank);
                    MethodSpec { keys: SpecKeys { rank, top_k: Some(top_k), ..method.keys }, ..*method }
                })
            })),
            false => methods.push(*method),
        }
    }
    methods.sort_by_key(|method| method.kind != MethodKind::Dense);
    let layer = AttentionLayer::from(case.shape);
    let resolved = |method: MethodSpec| Ok(method.resolve(&layer, case.seq_len)?);
    methods.into_iter().map(resolved).collect()
}

/// A method with its cache, and what its steps took.
struct Contestant {
    method: Method,
    state: LayerState,
    device: Device,
    /// Where each step begins: with one token less than S, since a step appends its own.
    mark: LayerMark,
    samples_ns: Vec<f64>,
}

impl Contestant {
    fn new(case: &Case, method: Method, device: &Device) -> anyhow::Result<Self> {
        let Case { dtype, batch, shape, seq_len } = *case;
        let config = CacheConfig { layer: shape.into(), batch, max_len: seq_len, dtype };
        let mut state = LayerState::new(&config, &method, device)?;
        state.reserve(seq_len)?;
        fill(&mut state, seq_len - 1, device)?;
        let mark = state.mark().context("the method cannot go back")?;
        Ok(Self { method, state, device: device.clone(), mark, samples_ns: vec![] })
    }

    fn step(&mut self, counts: bool) -> anyhow::Result<()> {
        let CacheConfig { layer, batch, .. } = *self.state.cache().config();
        let AttentionShape { heads, kv_heads, head_dim } = layer.shape;
        let rows = |heads| random([batch, heads, 1, head_dim], &self.device);
        let (q, k, v) = (rows(heads), rows(kv_heads), rows(kv_heads));
        sync(&self.device)?;
        let start = Instant::now();
        let output = self.state.decode(q, k, v)?;
        sync(&self.device)?;
        let elapsed = start.elapsed();
        drop(output);
        self.state.go_back(&self.mark)?;
        if counts {
            self.samples_ns.push(elapsed.as_nanos() as f64);
        }
        Ok(())
    }

    /// Bytes of a step, and of a step of dense attention.
    fn bytes(&self) -> (u64, u64) {
        let traffic = self.state.traffic();
        // Each sequence counts its own.
        let steps = (traffic.steps / self.state.cache().config().batch as u64).max(1);
        (traffic.moved.total().bytes / steps, traffic.dense.total().bytes / steps)
    }
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
    contestant: &Contestant,
    dense: Option<&Contestant>,
    reads: &[f64],
    (machine, bandwidth): (&Machine, Bandwidth),
) -> LayerRecord {
    let Contestant { method, samples_ns, .. } = contestant;
    let (avg_ns, stddev_ns) = mean_and_deviation(samples_ns);
    let (bytes, dense_bytes) = contestant.bytes();
    let reached = Reached::new(bytes as f64, samples_ns, reads);
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
        settings: MethodSettings::of(method),
        bytes_per_step: bytes,
        dense_bytes_per_step: dense_bytes,
        avg_ns,
        stddev_ns,
        median_ns: median(samples_ns),
        samples_ns: samples_ns.clone(),
        gb_per_s: reached.gb_per_s,
        bandwidth_fraction: reached.fraction,
        speedup_over_dense: dense.map(|dense| median_ratio(&dense.samples_ns, samples_ns)),
        speedup_by_bytes: dense_bytes as f64 / bytes as f64,
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
        let attention = self.settings.described(&self.attention);
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
