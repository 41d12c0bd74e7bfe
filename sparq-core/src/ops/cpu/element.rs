//! Storage types of caches and weights.

use half::{bf16, f16};

use super::simd::{I8_UNIT, LANES, Simd};

/// A storage type of caches and weights, widened to f32 in registers.
pub(in crate::ops) trait Element: burn::tensor::Element + bytemuck::Pod + Send + Sync {
    /// Sixteen values as f32.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V;

    /// One value as f32.
    fn wide(self) -> f32;

    /// Rounds to the storage type.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V {
        s.load(x)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V {
        s.load_f16(x)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V {
        s.load_bf16(x)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// `values` as f32: themselves where they are, else converted into `buffer`.
#[inline(always)]
pub(super) fn widen<'a, S: Simd, E: Element>(s: S, values: &'a [E], buffer: &'a mut Vec<f32>) -> &'a [f32] {
    if let Ok(values) = bytemuck::try_cast_slice::<E, f32>(values)
        && size_of::<E>() == size_of::<f32>()
    {
        return values;
    }
    buffer.resize(values.len(), 0.0);
    let (from, rest) = values.as_chunks::<LANES>();
    let (to, to_rest) = buffer.as_chunks_mut::<LANES>();
    for (to, from) in to.iter_mut().zip(from) {
        s.store(E::load(s, from), to);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = from.wide();
    }
    buffer
}

/// Codes of eight bits. Sixteen of them are loaded over [`I8_UNIT`]: who multiplies by them scales the sum.
impl Element for i8 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V {
        s.load_i8(x)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from(self) / I8_UNIT
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        (value * I8_UNIT).round_ties_even() as Self
    }
}

/// The values behind the last whole vector of `row`, filled up with zeros; `None` where there are none.
#[inline(always)]
pub(super) fn tail<E: bytemuck::Zeroable + Copy>(row: &[E]) -> Option<[E; LANES]> {
    let (_, rest) = row.as_chunks::<LANES>();
    if rest.is_empty() {
        return None;
    }
    let mut padded = [E::zeroed(); LANES];
    padded[..rest.len()].copy_from_slice(rest);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::with_simd;

    #[test]
    fn half_types_widen_exactly_and_narrow_to_nearest() {
        fn round_trip<E: Element + PartialEq + std::fmt::Debug>() {
            let row: [E; LANES] = std::array::from_fn(|i| E::narrow(3.0e-5 * (i as f32 - 7.3).powi(5)));
            let mut wide = [0.0; LANES];
            with_simd!(s => s.store(E::load(s, &row), &mut wide));
            assert_eq!(wide, row.map(E::wide));
            assert_eq!(wide.map(E::narrow), row);
            assert_eq!([1.5, -0.25].map(|x| E::narrow(x).wide()), [1.5, -0.25]);
        }
        round_trip::<f32>();
        round_trip::<f16>();
        round_trip::<bf16>();
    }

    #[test]
    fn a_tail_is_filled_up_with_zeros() {
        assert_eq!(tail(&[1.0f32; 32]), None);
        let padded = tail(&[2.0f32; 18]).unwrap();
        assert_eq!(padded[..3], [2.0, 2.0, 0.0]);
    }
}
