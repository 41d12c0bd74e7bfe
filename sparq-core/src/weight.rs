//! Weights of linear layers in eight bits.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

/// The largest code.
const LARGEST: f32 = 127.0;

/// A weight `[outputs, inputs]` as whole numbers from -127 to 127 times a scale for each output.
///
/// One scale per output is the largest block whose scale can be taken out of the sum: a row is read as
/// bytes alone, and its product is scaled once.
#[derive(Debug, Clone)]
pub struct QuantizedWeight {
    /// `[outputs, inputs / 4]`, four codes in each word, the first in the lowest bits; a row is filled up
    /// with zeros.
    pub words: Tensor<2, Int>,
    /// `[outputs]`, f32.
    pub scales: Tensor<1>,
}

impl QuantizedWeight {
    /// Rounds `values: [outputs, inputs]`, row-major, to the nearest codes; ties go to the even one.
    pub fn new(values: &[f32], [outputs, inputs]: [usize; 2], device: &Device) -> Self {
        let per_row = inputs.div_ceil(4);
        let mut words = vec![0; outputs * per_row];
        let mut scales = vec![0.0; outputs];
        let rows = words.par_chunks_mut(per_row.max(1)).zip(values.par_chunks(inputs.max(1)));
        rows.zip(&mut scales).with_min_len(16).for_each(|((words, row), scale)| {
            *scale = quantize_row(row, words);
        });
        Self {
            words: Tensor::from_data(TensorData::new(words, [outputs, per_row]), (device, DType::I32)),
            scales: Tensor::from_data(TensorData::new(scales, [outputs]), (device, DType::F32)),
        }
    }
}

/// Writes the codes of a row; returns their scale. A row of zeros has the scale 0.
fn quantize_row(row: &[f32], words: &mut [i32]) -> f32 {
    let scale = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / LARGEST;
    let divisor = scale.max(f32::MIN_POSITIVE);
    for (word, four) in words.iter_mut().zip(row.chunks(4)) {
        let mut bytes = [0; 4];
        for (byte, x) in bytes.iter_mut().zip(four) {
            *byte = ((x / divisor).round_ties_even().clamp(-LARGEST, LARGEST) as i8) as u8;
        }
        *word = i32::from_le_bytes(bytes);
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_a_row_has_the_largest_code() {
        let mut words = [0; 2];
        assert_eq!(quantize_row(&[0.0, -2.54, 1.27, 0.01, 0.03], &mut words), 0.02);
        let bytes = words.map(i32::to_le_bytes).concat().iter().map(|&byte| byte as i8).collect::<Vec<_>>();
        assert_eq!(bytes, [0, -127, 64, 0, 2, 0, 0, 0]);
        assert_eq!(quantize_row(&[0.0; 5], &mut words), 0.0);
        assert_eq!(words, [0, 0]);
    }
}
