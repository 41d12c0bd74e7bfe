//! One linear layer alone, on random numbers: what most of a decode step at a short context is.

use std::{io, time::Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};
use serde::Serialize;
use sparq_core::{device, ops};

use super::{
    bandwidth::Bandwidth,
    machine::Machine,
    mean_and_deviation, median,
    record::{Record, Writer},
    sync,
};
use crate::args::BenchLinearArgs;

/// Bytes of weights that are gone through in turn, so that none is found in the caches.
const WEIGHTS: usize = 512 << 20;
/// Calls before those that count.
const WARMUP: usize = 3;

/// One size.
#[derive(Debug, Clone, Serialize)]
struct LinearRecord {
    #[serde(flatten)]
    machine: Machine,
    #[serde(flatten)]
    bandwidth: Bandwidth,
    dtype: String,
    tokens: usize,
    inputs: usize,
    outputs: usize,
    bytes: u64,
    avg_ns: f64,
    stddev_ns: f64,
    median_ns: f64,
    samples_ns: Vec<f64>,
    gb_per_s: f64,
    /// Of the bandwidth of reading.
    bandwidth_fraction: f64,
}

/// `sparq bench linear`.
pub(crate) fn bench_linear(args: &BenchLinearArgs) -> anyhow::Result<()> {
    let device = device::parse(&args.device)?;
    let machine = Machine::new(&args.device, &device);
    let bandwidth = Bandwidth::measure(&device)?;
    let mut writer = Writer::new(io::stdout().lock(), args.output);
    for dtype in args.dtype.iter().map(|dtype| dtype.or_f32()) {
        device::require_dtype(&device, dtype)?;
        for &(inputs, outputs) in &args.size {
            let size = [args.tokens, inputs, outputs];
            let samples_ns = time(size, dtype, &device, args.repetitions as usize)?;
            let (avg_ns, stddev_ns) = mean_and_deviation(&samples_ns);
            let median_ns = median(&samples_ns);
            let bytes = (inputs * outputs * dtype.size()) as u64;
            let gb_per_s = bytes as f64 / median_ns;
            writer.write(&LinearRecord {
                machine: machine.clone(),
                bandwidth,
                dtype: dtype.name().to_owned(),
                tokens: args.tokens,
                inputs,
                outputs,
                bytes,
                avg_ns,
                stddev_ns,
                median_ns,
                samples_ns,
                gb_per_s,
                bandwidth_fraction: gb_per_s / bandwidth.read_gb_per_s,
            })?;
        }
    }
    writer.finish()
}

fn time(
    [tokens, inputs, outputs]: [usize; 3],
    dtype: DType,
    device: &Device,
    repetitions: usize,
) -> anyhow::Result<Vec<f64>> {
    let random = |dims: [usize; 2], dtype| {
        Tensor::<2>::random(dims, Distribution::Uniform(-1.0, 1.0), (device, DType::F32)).cast(dtype)
    };
    let count = (WEIGHTS / (inputs * outputs * dtype.size()).max(1)).clamp(1, repetitions.max(2));
    let weights: Vec<Tensor<2>> = (0..count).map(|_| random([outputs, inputs], dtype)).collect();
    let mut samples_ns = vec![];
    for call in 0..WARMUP + repetitions {
        let x = random([tokens, inputs], DType::F32);
        let weight = weights[call % count].clone();
        sync(device)?;
        let start = Instant::now();
        let output = ops::linear(x, weight);
        sync(device)?;
        samples_ns.push(start.elapsed().as_nanos() as f64);
        drop(output);
    }
    Ok(samples_ns.split_off(WARMUP))
}

impl Record for LinearRecord {
    fn titles() -> &'static [&'static str] {
        &["dtype", "tokens:", "in:", "out:", "time:", "bytes:", "GB/s:", "of read:"]
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.dtype.clone(),
            self.tokens.to_string(),
            self.inputs.to_string(),
            self.outputs.to_string(),
            format!("{:.3} ± {:.3} ms", self.median_ns / 1e6, self.stddev_ns / 1e6),
            crate::output::bytes(self.bytes as f64),
            format!("{:.1}", self.gb_per_s),
            format!("{:.0} %", 100.0 * self.bandwidth_fraction),
        ]
    }
}
