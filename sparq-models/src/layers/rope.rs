//! Rotary position embeddings, the half-rotation form of Hugging Face checkpoints.

use std::f64::consts::TAU;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::RopeScaling;

/// Angles per position of rotary embeddings.
#[derive(Debug, Clone)]
pub struct Rope {
    /// `[head_dim / 2]`: radians per position of each pair of components.
    frequencies: Vec<f64>,
}

impl Rope {
    /// Frequencies `theta^(-2i / head_dim)`, scaled for long contexts.
    pub fn new(head_dim: usize, theta: f64, scaling: &RopeScaling) -> Self {
        let frequency = |i: usize| theta.powf(-2.0 * i as f64 / head_dim as f64);
        let frequencies = (0..head_dim / 2).map(|i| scale(frequency(i), scaling)).collect();
        Self { frequencies }
    }

    /// Sines and cosines for tokens at these positions, `[batch, width]` row-major. All layers of a
    /// step share them.
    pub fn at(&self, positions: &[usize], batch: usize, device: &Device) -> Rotation {
        let half = self.frequencies.len();
        let table = |f: fn(f64) -> f64| {
            let angles = positions.iter().flat_map(|&p| self.frequencies.iter().map(move |w| w * p as f64));
            let values: Vec<f32> = angles.map(|angle| f(angle) as f32).collect();
            let shape = [batch, 1, positions.len() / batch.max(1), half];
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        Rotation { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

fn scale(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        // Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated.
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let turns = original_max_position_embeddings as f64 * frequency / TAU;
            let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            kept * frequency + (1.0 - kept) * frequency / factor
        }
    }
}

/// Sines and cosines for the tokens of one step.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// `[batch, 1, width, head_dim / 2]`
    cos: Tensor<4>,
    /// `[batch, 1, width, head_dim / 2]`
    sin: Tensor<4>,
}

impl Rotation {
    /// Rotates `x: [batch, heads, width, head_dim]`: component `i` with component
    /// `i + head_dim / 2`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, _, head_dim] = x.dims();
        let (half, cos, sin) = (head_dim / 2, &self.cos, &self.sin);
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let rotated_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let rotated_b = b * cos.clone() + a * sin.clone();
        Tensor::cat(vec![rotated_a, rotated_b], 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_turns_by_its_angle() {
        let device = sparq_core::device::parse("cpu").unwrap();
        let rope = Rope::new(4, 100.0, &RopeScaling::None); // frequencies 1 and 0.1
        let x = Tensor::<4>::from_data([[[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]], &device);
        let y = rope.at(&[0, 3], 1, &device).apply(x).into_data().try_to_vec::<f32>().unwrap();
        let angle = |a: f32| (a.cos(), a.sin());
        let ((c0, s0), (c1, s1)) = (angle(3.0), angle(0.3));
        let expected = [1.0, 1.0, 0.0, 0.0, c0, c1, s0, s1];
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?}");
    }

    #[test]
    fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let (plain, scaled) = (Rope::new(128, 5e5, &RopeScaling::None), Rope::new(128, 5e5, &scaling));
        let ratio = |i: usize| plain.frequencies[i] / scaled.frequencies[i];
        assert_eq!(ratio(0), 1.0);
        assert!((ratio(63) - 8.0).abs() < 1e-9);
        // The reference implementation's smooth interpolation for a wavelength between the two.
        let i = (0..64).find(|&i| ratio(i) > 1.0 && ratio(i) < 8.0).unwrap();
        let wavelength = TAU / plain.frequencies[i];
        let smooth = (8192.0 / wavelength - 1.0) / 3.0;
        let expected = (1.0 - smooth) * plain.frequencies[i] / 8.0 + smooth * plain.frequencies[i];
        assert!((scaled.frequencies[i] - expected).abs() < 1e-12);
    }

    #[test]
    fn linear_scaling_divides_positions() {
        let (plain, scaled) =
            (Rope::new(8, 1e4, &RopeScaling::None), Rope::new(8, 1e4, &RopeScaling::Linear { factor: 4.0 }));
        assert!(plain.frequencies.iter().zip(&scaled.frequencies).all(|(p, s)| p / s == 4.0));
    }
}
