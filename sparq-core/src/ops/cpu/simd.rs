//! Vectors of sixteen f32, in the widest registers that this processor has.
//!
//! Kernels are generic over [`Simd`] and are instantiated once per level by [`with_simd!`]. A value
//! of a level's type proves that the processor has it, and every load and store takes a whole array,
//! so kernels are safe code: the intrinsics of each level are the only unsafe part.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use portable::Portable;

/// Values in a vector.
pub(in crate::ops) const LANES: usize = 16;

/// Values of a vector in memory.
pub(in crate::ops) type Lanes = [f32; LANES];

/// What [`Simd::load_i8`] is to be multiplied by.
pub(in crate::ops) const I8_UNIT: f32 = 1.0 / (1 << 24) as f32;

/// What [`Simd::load_i4`] is to be multiplied by.
pub(in crate::ops) const I4_UNIT: f32 = 1.0 / (1 << 28) as f32;

/// Operations on vectors of [`LANES`] values.
pub(in crate::ops) trait Simd: Copy + Send + Sync {
    /// A vector in registers.
    type V: Copy;

    /// Whether there are registers for two dozen vectors, where others have room for eight or so.
    const ROOMY: bool = false;

    /// One register, which holds a part of a vector.
    type Part: Copy;

    /// Values of a part in memory.
    type Values: bytemuck::Pod;

    /// Whether there are registers for 24 parts and what is multiplied, where others have room for 12.
    const MANY_PARTS: bool = false;

    /// Runs `f` compiled for this level. What `f` calls must be `#[inline(always)]` to take part.
    fn run<R>(self, f: impl FnOnce() -> R) -> R;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &Lanes) -> Self::V;
    fn load_f16(self, x: &[f16; LANES]) -> Self::V;
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V;
    /// Each code over [`I8_UNIT`]: a byte moved to the top of a word has its sign in place.
    fn load_i8(self, x: &[i8; LANES]) -> Self::V;
    /// Two codes of four bits in a byte, the first in the low bits, two's complement; each over
    /// [`I4_UNIT`].
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::V;
    fn store(self, v: Self::V, to: &mut Lanes);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn load_part(self, x: &Self::Values) -> Self::Part;
    fn store_part(self, v: Self::Part, to: &mut Self::Values);
    fn zero_part(self) -> Self::Part;
    /// [`Simd::mul_add`] of parts: the same operation for each value.
    fn mul_add_part(self, a: Self::Part, b: Self::Part, c: Self::Part) -> Self::Part;
    /// The larger one; not a number where `b` is none. Where only `a` is none, levels differ.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one, as [`Simd::max`].
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `2ⁿ` for whole numbers `-127 ≤ n ≤ 127`; zero for -127.
    fn pow2(self, n: Self::V) -> Self::V;

    /// Bit `i` is set where `a[i] > b[i]`.
    fn greater(self, a: Self::V, b: Self::V) -> u32;
    /// Bit `i` is set where `a[i] > b[i]`, and where one of them is not a number.
    fn greater_or_nan(self, a: Self::V, b: Self::V) -> u32;
    /// `x[i]` where `a[i] > b[i]`, else `y[i]`.
    fn choose(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// Sums of the lanes of four vectors, each of the bits that [`Simd::sum`] gives.
    #[inline(always)]
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4] {
        [self.sum(v[0]), self.sum(v[1]), self.sum(v[2]), self.sum(v[3])]
    }
    /// Largest lane.
    fn largest(self, v: Self::V) -> f32;

    /// Starts to bring `row` into the cache.
    fn prefetch<T>(self, row: &[T]);

    /// `eˣ`, within 2 units in the last place; 0 below -88. What is not a number stays none: a softmax
    /// over scores that overflowed must show it.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        // Adding 1.5 · 2²³ and taking it away again rounds to a whole number.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with few enough digits that n · ln 2 is exact.
        const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        // Cephes' polynomial for (eʳ - 1 - r) / r² on |r| ≤ ln 2 / 2.
        const POLYNOMIAL: [f32; 6] =
            [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
        let x = self.min(self.splat(88.0), self.max(self.splat(-88.029_69), x));
        let n = self.mul_add(x, self.splat(std::f32::consts::LOG2_E), self.splat(ROUND));
        let n = self.add(n, self.splat(-ROUND));
        let mut r = x;
        for part in LN_2 {
            r = self.mul_add(n, self.splat(-part), r);
        }
        let mut p = self.splat(POLYNOMIAL[0]);
        for c in &POLYNOMIAL[1..] {
            p = self.mul_add(p, r, self.splat(*c));
        }
        let e = self.mul_add(self.mul(p, r), r, self.add(r, self.splat(1.0)));
        self.mul(e, self.pow2(n))
    }

    /// `cap · tanh(x / cap)`
    #[inline(always)]
    fn soft_cap(self, x: Self::V, cap: f32) -> Self::V {
        // tanh t = 1 - 2 / (e²ᵗ + 1), and near zero, where that cancels, Cephes' polynomial for
        // (tanh t - t) / t³.
        const POLYNOMIAL: [f32; 5] =
            [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8];
        let t = self.mul(x, self.splat(1.0 / cap));
        let square = self.mul(t, t);
        let mut p = self.splat(POLYNOMIAL[0]);
        for c in &POLYNOMIAL[1..] {
            p = self.mul_add(p, square, self.splat(*c));
        }
        let near = self.mul_add(self.mul(p, square), x, x);
        let e = self.exp(self.add(t, t));
        let part = self.div(self.splat(-2.0), self.add(e, self.splat(1.0)));
        let far = self.mul_add(part, self.splat(cap), self.splat(cap));
        self.choose(square, self.splat(0.625 * 0.625), far, near)
    }
}

/// Evaluates `$body` with `$s` bound to the best level of [`Simd`], compiled for it.
macro_rules! with_simd {
    ($s:ident => $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            if let Some($s) = $crate::ops::cpu::simd::Avx512::detect() {
                $crate::ops::cpu::simd::Simd::run(
                    $s,
                    #[inline(always)]
                    || $body,
                )
            } else if let Some($s) = $crate::ops::cpu::simd::Avx2::detect() {
                $crate::ops::cpu::simd::Simd::run(
                    $s,
                    #[inline(always)]
                    || $body,
                )
            } else {
                let $s = $crate::ops::cpu::simd::Portable;
                $body
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let $s = $crate::ops::cpu::simd::Neon::new();
            $body
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            let $s = $crate::ops::cpu::simd::Portable;
            $body
        }
    }};
}
pub(super) use with_simd;

/// Which level [`with_simd!`] takes here.
#[cfg(test)]
pub(super) fn level() -> &'static str {
    with_simd!(s => std::any::type_name_of_val(&s))
}

#[cfg(test)]
mod tests;
