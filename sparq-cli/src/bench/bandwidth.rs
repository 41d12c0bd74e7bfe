//! How fast the memory is, on all threads: what every other figure is read against.

use std::{hint::black_box, time::Instant};

use burn::tensor::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use sparq_core::{
    device::{Kind, kind},
    ops,
};

use super::{median, median_ratio, sync};

/// Bytes that are read: more than the caches of common machines hold.
const BYTES: usize = 512 << 20;
/// Elements that a thread takes at a time.
const PART: usize = 1 << 18;
const REPETITIONS: usize = 7;
/// Elements in a row of a device's buffer. Rows are summed side by side: a sum over everything runs in one
/// group of threads on devices that cannot add f32 atomically (WGSL), at a tenth of the memory's speed.
const ROW: usize = 4096;
/// How often a GPU goes through its buffer between two looks at the clock, so that launching and waiting do
/// not count as reading.
const GPU_PASSES: usize = 8;

/// Gigabytes (10⁹ bytes) per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bandwidth {
    /// Summing a buffer.
    pub(super) read_gb_per_s: f64,
    /// Copying a buffer; bytes read and bytes written both count.
    pub(super) copy_gb_per_s: f64,
}

/// What a step reaches, by medians over its runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reached {
    pub(super) gb_per_s: f64,
    /// Of the bandwidth of reading that was measured before each run.
    pub(super) fraction: f64,
}

impl Reached {
    /// A step that moves `bytes` bytes, what its runs took, and the bandwidth before each.
    pub(super) fn new(bytes: f64, samples_ns: &[f64], reads: &[f64]) -> Self {
        let speeds: Vec<f64> = samples_ns.iter().map(|ns| bytes / ns).collect();
        Self { gb_per_s: median(&speeds), fraction: median_ratio(&speeds, reads) }
    }
}

/// Measures the memory of a device, again and again: beside the steps that are timed, so that whatever
/// else the machine does weighs on both.
pub(super) struct Meter {
    device: Device,
    memory: Memory,
    /// How often one measurement goes through the memory.
    passes: usize,
}

#[allow(clippy::large_enum_variant)] // There is one. A handle to a tensor grows with the backends compiled in.
enum Memory {
    /// The machine's own.
    Host(Vec<f32>),
    /// The device's, through its own operations.
    Device(Tensor<2>),
}

impl Meter {
    /// Takes a buffer on `device`.
    pub(super) fn new(device: &Device) -> anyhow::Result<Self> {
        let (memory, passes) = match kind(device) {
            Kind::Cpu => (Memory::Host(vec![1.0; BYTES / size_of::<f32>()]), 1),
            kind => {
                // A quarter, for devices that bound the size of a buffer.
                let rows = BYTES / 4 / size_of::<f32>() / ROW;
                let passes = if kind == Kind::Gpu { GPU_PASSES } else { 1 };
                (Memory::Device(Tensor::ones([rows, ROW], (device, DType::F32))), passes)
            }
        };
        sync(device)?;
        Ok(Self { device: device.clone(), memory, passes })
    }

    /// Reads the buffer once, in GB/s.
    pub(super) fn read(&self) -> anyhow::Result<f64> {
        match &self.memory {
            Memory::Host(source) => self.timed(BYTES, || {
                black_box(ops::sum_in_memory(source));
            }),
            Memory::Device(source) => self.timed(BYTES / 4, || drop(row_sums(source))),
        }
    }

    /// The medians of several runs, after one of each that does not count.
    pub(super) fn bandwidth(&self) -> anyhow::Result<Bandwidth> {
        let medians = |measure: &mut dyn FnMut() -> anyhow::Result<f64>| {
            measure()?;
            let samples: anyhow::Result<Vec<f64>> = (0..REPETITIONS).map(|_| measure()).collect();
            Ok::<_, anyhow::Error>(median(&samples?))
        };
        let read_gb_per_s = medians(&mut || self.read())?;
        let copy_gb_per_s = match &self.memory {
            Memory::Host(source) => {
                let half = &source[..source.len() / 2];
                let mut target = vec![0.0_f32; half.len()];
                medians(&mut || {
                    self.timed(BYTES, || {
                        let parts = target.par_chunks_mut(PART).zip(half.par_chunks(PART));
                        parts.for_each(|(target, source)| target.copy_from_slice(source));
                        black_box(&mut target);
                    })
                })?
            }
            Memory::Device(source) => {
                medians(&mut || self.timed(BYTES / 2, || drop(source.clone().mul_scalar(1.5))))?
            }
        };
        Ok(Bandwidth { read_gb_per_s, copy_gb_per_s })
    }

    /// Gigabytes per second of `run`, which moves `bytes` bytes.
    fn timed(&self, bytes: usize, mut run: impl FnMut()) -> anyhow::Result<f64> {
        let start = Instant::now();
        (0..self.passes).for_each(|_| run());
        sync(&self.device)?;
        Ok((self.passes * bytes) as f64 / start.elapsed().as_nanos() as f64)
    }
}

/// The sum of each row: reads the whole buffer and writes next to nothing.
fn row_sums(source: &Tensor<2>) -> Tensor<2> {
    source.clone().sum_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_reaches_goes_by_the_reads_beside_it() {
        // 100 GB/s twice and 50 once, where memory gave 200, 100 and 100.
        let reached = Reached::new(1000.0, &[10.0, 10.0, 20.0], &[200.0, 100.0, 100.0]);
        assert_eq!(reached, Reached { gb_per_s: 100.0, fraction: 0.5 });
    }

    #[test]
    fn a_sum_of_rows_reads_the_whole_buffer() {
        let device = sparq_core::device::parse("cpu").unwrap();
        let sums = row_sums(&Tensor::ones([5, ROW], (&device, DType::F32)));
        assert_eq!(sums.into_data().try_to_vec::<f32>().unwrap(), [ROW as f32; 5]);
    }

    #[test]
    fn all_passes_count() {
        let device = sparq_core::device::parse("cpu").unwrap();
        let meter = Meter { memory: Memory::Host(vec![]), passes: 3, device };
        let mut runs = 0;
        meter.timed(1, || runs += 1).unwrap();
        assert_eq!(runs, 3);
    }
}
