//! Weights made up on the spot, for measuring the speed of a shape.

use burn::tensor::TensorData;
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::convert::FloatFormat;

/// Elements that one generator makes.
const PART: usize = 1 << 16;

/// Largest magnitude: weights of about the deviation 0.02 that models start with, so that no sum
/// overflows f16.
const LARGEST: f32 = 0.035;

/// A tensor with axes `dims`; the same for the same name, on any number of threads.
///
/// Uniform numbers around 0, and around 1 for the vectors that scale a norm.
pub(super) fn tensor(name: &str, dims: &[usize], format: FloatFormat) -> TensorData {
    let centre = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
    let seed = name.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let elements = dims.iter().product();
    match format {
        FloatFormat::F32 => TensorData::new(numbers(seed, elements, |x| centre + x), dims),
        FloatFormat::F16 => TensorData::new(numbers(seed, elements, |x| f16::from_f32(centre + x)), dims),
        FloatFormat::BF16 => TensorData::new(numbers(seed, elements, |x| bf16::from_f32(centre + x)), dims),
    }
}

fn numbers<T: bytemuck::Zeroable + Copy + Send>(
    seed: u64,
    elements: usize,
    convert: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    let mut values: Vec<T> = bytemuck::zeroed_vec(elements);
    values.par_chunks_mut(PART).enumerate().for_each(|(index, part)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(index as u64));
        part.iter_mut().for_each(|value| *value = convert(rng.random_range(-LARGEST..LARGEST)));
    });
    values
}
