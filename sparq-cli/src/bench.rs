//! Measuring speed: whole models after llama-bench's conventions, and the attention layer alone.

mod bandwidth;
mod layer;
mod linear;
mod machine;
mod method;
mod model;
mod record;

pub(crate) use layer::bench_layer;
pub(crate) use linear::bench_linear;
pub(crate) use model::bench_model;

use burn::tensor::{DType, Device, Distribution, Tensor};

/// Random numbers on the device, `[batch, heads, tokens, head_dim]`.
fn random(dims: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::random(dims, Distribution::Uniform(-1.0, 1.0), (device, DType::F32))
}

/// Waits for the device to end what it was given.
fn sync(device: &Device) -> anyhow::Result<()> {
    device.sync().map_err(|error| anyhow::anyhow!("the device failed: {error:?}"))
}

/// Mean and standard deviation (of the sample) of some measurements.
fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, if samples.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

/// The middle of `a / b` of measurements that were taken in turn.
fn median_ratio(a: &[f64], b: &[f64]) -> f64 {
    median(&a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>())
}

/// The middle one of some measurements.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => 0.5 * (sorted[middle - 1] + sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_a_sample() {
        let (mean, deviation) = mean_and_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(mean, 5.0);
        assert!((deviation - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        assert_eq!(median_ratio(&[2.0, 9.0, 8.0], &[1.0, 3.0, 2.0]), 3.0);
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }
}
