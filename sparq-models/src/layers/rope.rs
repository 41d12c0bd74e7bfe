//! Rotary position embeddings, the half-rotation form of Hugging Face checkpoints.

use std::f64::consts::TAU;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{RopeConfig, RopeScaling};

/// Angles per position of rotary embeddings.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Radians per position of each rotated pair of components.
    frequencies: Vec<f64>,
    /// The same for texts of more than so many tokens, where those differ.
    long: Option<(usize, Vec<f64>)>,
    /// What sines and cosines are multiplied by.
    attention_factor: f64,
}

impl Rope {
    /// Frequencies `theta^(-2i / rotary_dim)`, scaled for long contexts.
    pub fn new(config: &RopeConfig) -> Self {
        let pairs = config.rotary_dim.div_ceil(2);
        let frequency = |i: usize| config.theta.powf(-2.0 * i as f64 / config.rotary_dim as f64);
        let scaled = |scale: &dyn Fn(usize, f64) -> f64| (0..pairs).map(|i| scale(i, frequency(i))).collect();
        let plain = |frequencies| Self { frequencies, long: None, attention_factor: 1.0 };
        match &config.scaling {
            RopeScaling::None => plain(scaled(&|_, w| w)),
            RopeScaling::Linear { factor } => plain(scaled(&|_, w| w / factor)),
            // Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated.
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => plain(scaled(&|_, w| {
                let turns = *original_max_position_embeddings as f64 * w / TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                kept * w + (1.0 - kept) * w / factor
            })),
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                attention_factor,
                original_max_position_embeddings,
            } => {
                let divided = |by: &[f64]| by.iter().enumerate().map(|(i, f)| frequency(i) / f).collect();
                Self {
                    frequencies: divided(short_factor),
                    long: Some((*original_max_position_embeddings, divided(long_factor))),
                    attention_factor: *attention_factor,
                }
            }
        }
    }

    /// The longest text that the short set of LongRoPE is for, where there are two sets.
    pub fn longest_with_short_factors(&self) -> Option<usize> {
        self.long.as_ref().map(|(original, _)| *original)
    }

    /// Sines and cosines for tokens at these positions, each in a text of so many tokens as `lens` says. All
    /// layers of a step share them.
    ///
    /// LongRoPE has two sets of frequencies: the length of the text chooses, as in transformers. Rotated
    /// keys stay in the cache, so a text that outgrows the short set is computed again.
    pub fn at(&self, positions: &[usize], lens: &[usize], device: &Device) -> Rotation {
        let of_text = |len: usize| match &self.long {
            Some((original, long)) if len > *original => long,
            _ => &self.frequencies,
        };
        let table = |f: fn(f64) -> f64| {
            let tokens = positions.iter().zip(lens);
            let angles = tokens.flat_map(|(&p, &len)| of_text(len).iter().map(move |w| w * p as f64));
            let values: Vec<f32> = angles.map(|angle| (f(angle) * self.attention_factor) as f32).collect();
            let shape = [positions.len(), 1, self.frequencies.len()];
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        Rotation { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// Sines and cosines for the tokens of one step.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// `[tokens, 1, rotary_dim / 2]`
    cos: Tensor<3>,
    /// `[tokens, 1, rotary_dim / 2]`
    sin: Tensor<3>,
}

impl Rotation {
    /// Rotates the first `rotary_dim` components of `x: [tokens, heads, head_dim]`: component
    /// `i` with component `i + rotary_dim / 2`. The others stay as they are.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let ([_, _, head_dim], [_, _, half]) = (x.dims(), self.cos.dims());
        let (cos, sin) = (&self.cos, &self.sin);
        let (a, b) = (x.clone().narrow(2, 0, half), x.clone().narrow(2, half, half));
        let rotated_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let rotated_b = b * cos.clone() + a * sin.clone();
        let mut parts = vec![rotated_a, rotated_b];
        if head_dim > 2 * half {
            parts.push(x.narrow(2, 2 * half, head_dim - 2 * half));
        }
        Tensor::cat(parts, 2)
    }
}

#[cfg(test)]
mod tests;
