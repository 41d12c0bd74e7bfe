//! How fast the memory is, on all threads: what every other figure is read against.

use std::{hint::black_box, time::Instant};

use burn::tensor::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use sparq_core::{
    device::{Kind, kind},
    ops,
};

use super::{median, sync};

/// Bytes that are read: more than the caches of common machines hold.
const BYTES: usize = 512 << 20;
/// Elements that a thread takes at a time.
const PART: usize = 1 << 18;
const REPETITIONS: usize = 7;

/// Gigabytes (10⁹ bytes) per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bandwidth {
    /// Summing a buffer.
    pub(super) read_gb_per_s: f64,
    /// Copying a buffer; bytes read and bytes written both count.
    pub(super) copy_gb_per_s: f64,
}

/// Measures the memory of a device, again and again: beside the steps that are timed, so that whatever
/// else the machine does weighs on both.
pub(super) struct Meter {
    device: Device,
    memory: Memory,
}

#[allow(clippy::large_enum_variant)] // There is one. A handle to a tensor grows with the backends compiled in.
enum Memory {
    /// The machine's own.
    Host(Vec<f32>),
    /// The device's, through its own operations.
    Device(Tensor<1>),
}

impl Meter {
    /// Takes a buffer on `device`.
    pub(super) fn new(device: &Device) -> anyhow::Result<Self> {
        let memory = match kind(device) {
            Kind::Cpu => Memory::Host(vec![1.0; BYTES / size_of::<f32>()]),
            // A quarter, for devices that bound the size of a buffer.
            _ => Memory::Device(Tensor::ones([BYTES / 4 / size_of::<f32>()], (device, DType::F32))),
        };
        sync(device)?;
        Ok(Self { device: device.clone(), memory })
    }

    /// Reads the buffer once, in GB/s.
    pub(super) fn read(&self) -> anyhow::Result<f64> {
        match &self.memory {
            Memory::Host(source) => self.timed(BYTES, || {
                black_box(ops::sum_in_memory(source));
            }),
            Memory::Device(source) => self.timed(BYTES / 4, || drop(source.clone().sum())),
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

    fn timed(&self, bytes: usize, run: impl FnOnce()) -> anyhow::Result<f64> {
        let start = Instant::now();
        run();
        sync(&self.device)?;
        Ok(bytes as f64 / start.elapsed().as_nanos() as f64)
    }
}
