//! How fast the memory is, on all threads: what every other figure is read against.

use std::{hint::black_box, time::Instant};

use burn::tensor::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use sparq_core::device::describe;

use super::{median, sync};

/// Bytes that are read: more than the caches of common machines hold.
const BYTES: usize = 512 << 20;
/// Elements that a thread takes at a time.
const PART: usize = 1 << 17;
const REPETITIONS: usize = 9;

/// Gigabytes (10⁹ bytes) per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bandwidth {
    /// Summing a buffer.
    pub(super) read_gb_per_s: f64,
    /// Copying a buffer; bytes read and bytes written both count.
    pub(super) copy_gb_per_s: f64,
}

impl Bandwidth {
    /// Measures the memory of `device`.
    pub(super) fn measure(device: &Device) -> anyhow::Result<Self> {
        match ["flex", "ndarray"].contains(&describe(device).as_str()) {
            true => Ok(Self::of_host()),
            false => Self::of_device(device),
        }
    }

    fn of_host() -> Self {
        let source = vec![1_u64; BYTES / size_of::<u64>()];
        let mut target = vec![0_u64; source.len() / 2];
        let sum = || {
            let sums =
                source.par_chunks(PART).map(|part| part.iter().fold(0, |sum: u64, x| sum.wrapping_add(*x)));
            black_box(sums.reduce(|| 0, u64::wrapping_add));
        };
        let read = gb_per_s(BYTES, sum);
        let half = source.len() / 2;
        let copy = gb_per_s(BYTES, || {
            let parts = target.par_chunks_mut(PART).zip(source[..half].par_chunks(PART));
            parts.for_each(|(target, source)| target.copy_from_slice(source));
            black_box(&mut target);
        });
        Self { read_gb_per_s: read, copy_gb_per_s: copy }
    }

    /// By the device's own operations: a sum, and a copy that scales.
    fn of_device(device: &Device) -> anyhow::Result<Self> {
        let elements = BYTES / 4 / size_of::<f32>();
        let source = Tensor::<1>::ones([elements], (device, DType::F32));
        sync(device)?;
        let mut failure = Ok(());
        let mut timed = |bytes: usize, run: &dyn Fn()| {
            gb_per_s(bytes, || {
                run();
                if let Err(error) = sync(device) {
                    failure = Err(error);
                }
            })
        };
        let read = timed(elements * size_of::<f32>(), &|| drop(source.clone().sum()));
        let copy = timed(2 * elements * size_of::<f32>(), &|| drop(source.clone().mul_scalar(1.5)));
        failure?;
        Ok(Self { read_gb_per_s: read, copy_gb_per_s: copy })
    }
}

/// The median of several runs, after one that does not count.
fn gb_per_s(bytes: usize, mut run: impl FnMut()) -> f64 {
    run();
    let mut once = || {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    let times: Vec<f64> = (0..REPETITIONS).map(|_| once()).collect();
    bytes as f64 / median(&times) / 1e9
}
