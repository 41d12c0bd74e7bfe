//! From the bytes of a file to tensor data of another float format, on all cores.

use std::io;

use burn::tensor::{DType, Element, TensorData};
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::source::TensorBytes;

#[cfg(target_endian = "big")]
compile_error!("safetensors are little-endian, and their bytes are taken over as they are");

/// Elements between two reports of progress.
const STEP: usize = 1 << 24;
/// Elements that one thread converts at a time.
const PART: usize = 1 << 16;
/// Elements that pass through f32 at a time; they stay in the first-level cache.
const BLOCK: usize = 1 << 11;

/// A float format that weights may be stored in and converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloatFormat {
    F32,
    F16,
    BF16,
}

impl FloatFormat {
    /// The format of a stored tensor, if it is one of these.
    pub(super) fn of_stored(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// The format of a tensor on a device, if it is one of these.
    pub(super) fn of_tensor(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::F16 => Some(Self::F16),
            DType::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }

    fn size(self) -> usize {
        self.dtype().size()
    }

    /// Converts the bytes of a block in this format to f32.
    fn widen(self, source: &[u8], block: &mut [f32]) {
        // The bytes of a file have no alignment, so they are copied before they are read as numbers.
        match self {
            Self::F32 => bytemuck::cast_slice_mut(block).copy_from_slice(source),
            Self::F16 => {
                let mut halves = [f16::ZERO; BLOCK];
                let halves = &mut halves[..block.len()];
                bytemuck::cast_slice_mut(halves).copy_from_slice(source);
                halves.convert_to_f32_slice(block);
            }
            Self::BF16 => {
                let mut halves = [bf16::ZERO; BLOCK];
                let halves = &mut halves[..block.len()];
                bytemuck::cast_slice_mut(halves).copy_from_slice(source);
                halves.convert_to_f32_slice(block);
            }
        }
    }
}

/// An element type of the converted tensor.
trait Target: Pod + Element {
    const FORMAT: FloatFormat;

    /// Rounds a block to the nearest values of this type.
    fn narrow(block: &[f32], target: &mut [Self]);

    fn finite(self) -> bool;
}

impl Target for f32 {
    const FORMAT: FloatFormat = FloatFormat::F32;

    fn narrow(block: &[f32], target: &mut [Self]) {
        target.copy_from_slice(block);
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Target for f16 {
    const FORMAT: FloatFormat = FloatFormat::F16;

    fn narrow(block: &[f32], target: &mut [Self]) {
        target.convert_from_f32_slice(block);
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Target for bf16 {
    const FORMAT: FloatFormat = FloatFormat::BF16;

    fn narrow(block: &[f32], target: &mut [Self]) {
        target.convert_from_f32_slice(block);
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// Why a tensor has no data.
#[derive(Debug)]
pub(super) enum Unloadable {
    /// The element at this position is NaN or infinite in the target format, and none before it is.
    NonFinite(usize),
    /// The file does not give its bytes.
    Unreadable(io::Error),
}

/// Reads the stored `bytes` of a tensor with axes `shape` and converts them to `target`.
///
/// `progress` is called with the number of stored bytes done since its last call.
pub(super) fn convert(
    stored: FloatFormat,
    bytes: &TensorBytes<'_>,
    shape: &[usize],
    target: FloatFormat,
    progress: &mut dyn FnMut(u64),
) -> Result<TensorData, Unloadable> {
    match target {
        FloatFormat::F32 => Ok(TensorData::new(convert_to::<f32>(stored, bytes, progress)?, shape)),
        FloatFormat::F16 => Ok(TensorData::new(convert_to::<f16>(stored, bytes, progress)?, shape)),
        FloatFormat::BF16 => Ok(TensorData::new(convert_to::<bf16>(stored, bytes, progress)?, shape)),
    }
}

fn convert_to<T: Target>(
    stored: FloatFormat,
    bytes: &TensorBytes<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<T>, Unloadable> {
    let mut values: Vec<T> = bytemuck::zeroed_vec(bytes.len() / stored.size());
    for (step, values) in values.chunks_mut(STEP).enumerate() {
        let size = values.len() * stored.size();
        let parts = values.par_chunks_mut(PART).enumerate();
        let non_finite = parts.map_init(Vec::new, |buffer, (part, values)| {
            let first = step * STEP + part * PART;
            read_part(stored, bytes, first, values, buffer)?;
            Ok::<_, io::Error>(first_non_finite(values).map(|position| first + position))
        });
        let first = non_finite.try_reduce(|| None, |one, other| Ok(one.into_iter().chain(other).min()));
        if let Some(position) = first.map_err(Unloadable::Unreadable)? {
            return Err(Unloadable::NonFinite(position));
        }
        progress(size as u64);
    }
    Ok(values)
}

/// Reads the elements from number `first` on. `buffer` is for bytes that are not in the format of `T`.
fn read_part<T: Target>(
    stored: FloatFormat,
    bytes: &TensorBytes<'_>,
    first: usize,
    values: &mut [T],
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let start = first * stored.size();
    if stored == T::FORMAT {
        return bytes.read(start, bytemuck::cast_slice_mut(values));
    }
    buffer.resize(values.len() * stored.size(), 0);
    bytes.read(start, buffer)?;
    let mut block = [0.0; BLOCK];
    for (bytes, values) in buffer.chunks(BLOCK * stored.size()).zip(values.chunks_mut(BLOCK)) {
        let block = &mut block[..values.len()];
        stored.widen(bytes, block);
        T::narrow(block, values);
    }
    Ok(())
}

fn first_non_finite<T: Target>(values: &[T]) -> Option<usize> {
    // A pass without early exit is vectorised; the position is looked for only if there is one.
    let all_finite = values.iter().fold(true, |finite, value| finite & value.finite());
    if all_finite {
        return None;
    }
    values.iter().position(|value| !value.finite())
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    const FORMATS: [FloatFormat; 3] = [FloatFormat::F32, FloatFormat::F16, FloatFormat::BF16];

    fn encode(format: FloatFormat, values: &[f32]) -> Vec<u8> {
        let bytes = |value: &f32| match format {
            FloatFormat::F32 => value.to_le_bytes().to_vec(),
            FloatFormat::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            FloatFormat::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
        };
        values.iter().flat_map(bytes).collect()
    }

    #[test]
    fn every_pair_of_formats_keeps_values_that_both_hold() {
        // Enough for several parts, the last one incomplete; the byte in front breaks alignment.
        let values: Vec<f32> = (0..2 * PART + 77).map(|i| (i % 256) as f32 - 128.0).collect();
        for stored in FORMATS {
            let bytes = [vec![0], encode(stored, &values)].concat();
            for target in FORMATS {
                let mut done = 0;
                let bytes = Source::Static(bytes.clone().leak());
                let range = 1..bytes.len();
                let bytes = TensorBytes::Stored { source: &bytes, range };
                let data = convert(stored, &bytes, &[values.len()], target, &mut |bytes| done += bytes);
                let data = data.unwrap();
                assert_eq!(data.dtype(), target.dtype());
                assert_eq!(data.try_into_vec_as::<f32>().unwrap(), values, "{stored:?} to {target:?}");
                assert_eq!(done as usize, bytes.len());
            }
        }
    }

    #[test]
    fn rounds_to_nearest() {
        let third = 1.0_f32 / 3.0;
        let bytes = TensorBytes::Read(encode(FloatFormat::F32, &[third]));
        let get = |target| {
            let data = convert(FloatFormat::F32, &bytes, &[1], target, &mut |_| ()).unwrap();
            data.try_into_vec_as::<f32>().unwrap()[0]
        };
        assert_eq!(get(FloatFormat::F16), f16::from_f32(third).to_f32());
        assert_eq!(get(FloatFormat::BF16), bf16::from_f32(third).to_f32());
    }

    #[test]
    fn first_non_finite_value_is_found_also_when_it_comes_from_rounding() {
        let mut values = vec![1.0; PART + 10];
        values[PART + 3] = 1e6; // Above the largest f16.
        values[PART + 5] = f32::NAN;
        let bytes = TensorBytes::Read(encode(FloatFormat::F32, &values));
        let find = |target| match convert(FloatFormat::F32, &bytes, &[values.len()], target, &mut |_| ()) {
            Err(Unloadable::NonFinite(position)) => Some(position),
            _ => None,
        };
        assert_eq!(find(FloatFormat::F16), Some(PART + 3));
        assert_eq!(find(FloatFormat::BF16), Some(PART + 5));
        assert_eq!(find(FloatFormat::F32), Some(PART + 5));
    }
}
