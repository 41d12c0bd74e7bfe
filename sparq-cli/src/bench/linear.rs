//! One linear layer alone, on random numbers: what most of a decode step at a short context is.

use std::{io, time::Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};
use serde::Serialize;
use sparq_core::{KtFormat, device, weight::QuantizedWeight};
use sparq_models::weight::LinearWeight;

use super::{
    bandwidth::{Bandwidth, Meter, Reached},
    machine::Machine,
    mean_and_deviation, median,
    record::{Record, Writer},
    sync,
};
use crate::{
    args::{BenchLinearArgs, WeightsArg},
    room,
};

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
    for &(inputs, outputs) in &args.size {
        let [tokens, inputs, outputs] = [args.tokens, inputs, outputs].map(|size| size as u128);
        // The weights in f32 and in their format, what goes in and what comes out.
        let elements = 2 * inputs * outputs + tokens * (inputs + outputs);
        let what = format!("a layer of {inputs}x{outputs} with {tokens} tokens");
        let needed = elements * DType::F32.size() as u128;
        room::require(&device, needed, &what, "give a smaller --size or fewer --tokens")?;
    }
    let meter = Meter::new(&device)?;
    let bandwidth = meter.bandwidth()?;
    let mut writer = Writer::new(io::stdout().lock(), args.output);
    let formats = match args.weights {
        WeightsArg::Auto => args.dtype.iter().map(|dtype| Format::Dtype(dtype.or_f32())).collect(),
        WeightsArg::Int8 => vec![Format::Int8],
    };
    for format in formats {
        match format {
            Format::Dtype(dtype) => device::require_dtype(&device, dtype)?,
            Format::Int8 => device::require_kt(&device, KtFormat::Int8)?,
        }
        for &(inputs, outputs) in &args.size {
            let size = [args.tokens, inputs, outputs];
            let (samples_ns, reads) = time(size, format, &device, &meter, args.repetitions)?;
            let (avg_ns, stddev_ns) = mean_and_deviation(&samples_ns);
            let bytes = format.bytes([inputs, outputs]) as u64;
            let reached = Reached::new(bytes as f64, &samples_ns, &reads);
            writer.write(&LinearRecord {
                machine: machine.clone(),
                bandwidth: Bandwidth { read_gb_per_s: median(&reads), ..bandwidth },
                dtype: format.name().to_owned(),
                tokens: args.tokens,
                inputs,
                outputs,
                bytes,
                avg_ns,
                stddev_ns,
                median_ns: median(&samples_ns),
                samples_ns,
                gb_per_s: reached.gb_per_s,
                bandwidth_fraction: reached.fraction,
            })?;
        }
    }
    writer.finish()
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy)]
enum Format {
    Dtype(DType),
    Int8,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Dtype(dtype) => dtype.name(),
            Self::Int8 => "int8",
        }
    }

    fn bytes(self, [inputs, outputs]: [usize; 2]) -> usize {
        match self {
            Self::Dtype(dtype) => inputs * outputs * dtype.size(),
            Self::Int8 => outputs * (inputs + DType::F32.size()),
        }
    }

    fn weight(self, values: Tensor<2>, device: &Device) -> anyhow::Result<LinearWeight> {
        let dims = values.dims();
        Ok(match self {
            Self::Dtype(dtype) => LinearWeight::Plain(values.cast(dtype)),
            Self::Int8 => {
                let values = values.into_data().try_to_vec::<f32>();
                let values = values.map_err(|error| anyhow::anyhow!("weights cannot be read: {error:?}"))?;
                LinearWeight::Int8(Box::new(QuantizedWeight::new(&values, dims, device)))
            }
        })
    }
}

/// Times of the calls, and the bandwidth of memory before each of them.
fn time(
    [tokens, inputs, outputs]: [usize; 3],
    format: Format,
    device: &Device,
    meter: &Meter,
    repetitions: usize,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let random =
        |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Uniform(-1.0, 1.0), (device, DType::F32));
    let weight = format.weight(random([outputs, inputs]), device)?;
    let (mut samples_ns, mut reads) = (vec![], vec![]);
    for _ in 0..WARMUP + repetitions {
        let (x, weight) = (random([tokens, inputs]), weight.clone());
        // Also takes the weight out of the processor's caches.
        reads.push(meter.read()?);
        sync(device)?;
        let start = Instant::now();
        let output = weight.product(x);
        sync(device)?;
        samples_ns.push(start.elapsed().as_nanos() as f64);
        drop(output);
    }
    Ok((samples_ns.split_off(WARMUP), reads.split_off(WARMUP)))
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
