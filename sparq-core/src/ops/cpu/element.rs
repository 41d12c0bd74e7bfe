//! Storage types of caches and weights.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::simd::{I8_UNIT, LANES, Simd};

/// A storage type of caches and weights, widened to f32 in registers.
pub(in crate::ops) trait Element: burn::tensor::Element + bytemuck::Pod + Send + Sync {
    /// Sixteen values as f32.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::V;

    /// One value as f32.
    fn wide(self) -> f32;

    /// Rounds to the storage type.
    fn narrow(value: f32) -> Self;

    /// Rounds to the storage type for a cache: what is infinite there is stored as NaN. A softmax would
    /// give a key of minus infinity no weight, and nobody would see that it overflowed; NaN reaches the
    /// output of every step that reads it.
    fn cached(value: f32) -> Self;

    /// [`Element::cached`] of as many values as there are in both.
    #[inline]
    fn store_cached(values: &[f32], to: &mut [Self]) {
        to.iter_mut().zip(values).for_each(|(to, &value)| *to = Self::cached(value));
    }
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

    #[inline(always)]
    fn cached(value: f32) -> Self {
        value + value * 0.0 // what is not finite times zero is not a number
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

    #[inline(always)]
    fn cached(value: f32) -> Self {
        let stored = Self::from_f32(value);
        if stored.is_infinite() { Self::NAN } else { stored }
    }

    /// Eight at a time, where the processor can.
    fn store_cached(values: &[f32], to: &mut [Self]) {
        let count = values.len().min(to.len());
        let to = &mut to[..count];
        to.convert_from_f32_slice(&values[..count]);
        for stored in to {
            if stored.is_infinite() {
                *stored = Self::NAN;
            }
        }
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

    #[inline(always)]
    fn cached(value: f32) -> Self {
        // The nearest, ties to even, in bits: without a branch many are rounded at a time.
        let bits = value.to_bits();
        let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        let is_finite = bits & 0x7fff_ffff < BF16_INFINITE;
        if is_finite { Self::from_bits(nearest) } else { Self::NAN }
    }
}

/// Bits of the least magnitude that rounds to infinity; those of what is not a number are above.
const BF16_INFINITE: u32 = 0x7f7f_8000;

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

    #[inline(always)]
    fn cached(value: f32) -> Self {
        Self::narrow(value) // no cache stores these, and none of them is infinite
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
    fn a_cache_holds_no_infinity() {
        fn check<E: Element>(largest: f32) {
            // Halfway between two numbers of each dtype, beside it, and far from it.
            let near_ties = (0..512).map(|i| f32::from_bits(0x3f80_0000 + i * 0x0fff));
            for x in [0.0, -0.0, 1.5, -3e-5, largest, -largest].into_iter().chain(near_ties) {
                assert_eq!(E::cached(x).wide().to_bits(), E::narrow(x).wide().to_bits(), "{x}");
            }
            for x in [largest * 1.01, -largest * 1.01, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                assert!(E::cached(x).wide().is_nan(), "{x} beyond {largest}");
            }
            let values: Vec<f32> = (0..37).map(|i| (i as f32 - 18.0) / 17.0 * largest).collect();
            let mut stored = vec![E::zeroed(); values.len()];
            E::store_cached(&values, &mut stored);
            let each: Vec<u32> = values.iter().map(|&x| E::cached(x).wide().to_bits()).collect();
            assert_eq!(stored.iter().map(|x| x.wide().to_bits()).collect::<Vec<_>>(), each);
        }
        check::<f32>(f32::MAX);
        check::<f16>(65504.0);
        check::<bf16>(bf16::MAX.to_f32());
        assert_eq!(f16::cached(65519.0).to_f32(), 65504.0, "rounds down");
    }

    #[test]
    fn a_tail_is_filled_up_with_zeros() {
        assert_eq!(tail(&[1.0f32; 32]), None);
        let padded = tail(&[2.0f32; 18]).unwrap();
        assert_eq!(padded[..3], [2.0, 2.0, 0.0]);
    }
}
