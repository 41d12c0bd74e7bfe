//! Arrays, for processors without a level of their own: the compiler vectorises what it can.

use std::array::from_fn;

use half::{bf16, f16};

use super::{LANES, Lanes, Simd};

/// Plain loops over arrays.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Portable;

impl Simd for Portable {
    type V = Lanes;
    type Part = [f32; LANES / 4];
    type Values = [f32; LANES / 4];

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::V {
        *x
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        x.map(f16::to_f32)
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::V {
        from_fn(|i| (i32::from(x[i]) << 24) as f32)
    }

    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::V {
        from_fn(|i| ((i32::from(x[i / 2]) << (28 - i % 2 * 4)) & (0xf << 28)) as f32)
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Lanes) {
        *to = v;
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `f32::mul_add`, which is a function call where there is no such instruction.
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn load_part(self, x: &Self::Values) -> Self::Part {
        *x
    }

    #[inline(always)]
    fn store_part(self, v: Self::Part, to: &mut Self::Values) {
        *to = v;
    }

    #[inline(always)]
    fn zero_part(self) -> Self::Part {
        Self::Part::default()
    }

    #[inline(always)]
    fn mul_add_part(self, a: Self::Part, b: Self::Part, c: Self::Part) -> Self::Part {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn greater(self, a: Self::V, b: Self::V) -> u32 {
        (0..LANES).fold(0, |bits, i| bits | u32::from(a[i] > b[i]) << i)
    }

    #[inline(always)]
    fn greater_or_nan(self, a: Self::V, b: Self::V) -> u32 {
        let differs = |i: usize| a[i] > b[i] || a[i].is_nan() || b[i].is_nan();
        (0..LANES).fold(0, |bits, i| bits | u32::from(differs(i)) << i)
    }

    #[inline(always)]
    fn choose(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        from_fn(|i| if a[i] > b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut v = v;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                v[i] += v[i + half];
            }
        }
        v[0]
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn prefetch<T>(self, _: &[T]) {}
}
