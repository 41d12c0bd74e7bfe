//! AVX2, FMA and F16C: two registers of eight.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Lanes, Simd};

/// Proof that this processor has AVX2, FMA and F16C. Only [`Avx2::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    /// The sum of both halves.
    #[inline(always)]
    fn folded(self, v: [__m256; 2]) -> __m256 {
        // SAFETY: the processor has AVX; the instruction works on registers alone.
        unsafe { _mm256_add_ps(v[0], v[1]) }
    }

    /// The level, where the processor has it.
    #[inline]
    pub(in super::super) fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

/// Applies an intrinsic to both halves.
macro_rules! halves {
    ($intrinsic:ident, $($v:ident),+) => {
        // SAFETY: a value of `Avx2` exists only where the processor has the instruction, which works
        // on registers alone.
        unsafe { [$intrinsic($($v[0]),+), $intrinsic($($v[1]),+)] }
    };
}

#[target_feature(enable = "avx2,fma,f16c")]
fn on_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    type Part = __m256;
    type Values = [f32; LANES / 2];

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: a value of `Avx2` exists only where the processor has these features.
        unsafe { on_avx2(f) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the processor has AVX.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::V {
        // SAFETY: the processor has AVX, and 16 values may be read at `x`.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        let x: *const __m128i = x.as_ptr().cast();
        // SAFETY: the processor has F16C, and 32 bytes may be read at `x`.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))] }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        let x: *const __m128i = x.as_ptr().cast();
        // SAFETY: the processor has AVX2, and 32 bytes may be read at `x`.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(x));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.add(1)));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::V {
        // SAFETY: the processor has AVX2, and 16 bytes may be read at `x`.
        unsafe {
            let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().cast()));
            // -1 stands for a zero.
            #[rustfmt::skip]
            let low = _mm256_setr_epi8(
                -1, -1, -1, 0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3,
                -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, 6, -1, -1, -1, 7,
            );
            #[rustfmt::skip]
            let high = _mm256_setr_epi8(
                -1, -1, -1, 8, -1, -1, -1, 9, -1, -1, -1, 10, -1, -1, -1, 11,
                -1, -1, -1, 12, -1, -1, -1, 13, -1, -1, -1, 14, -1, -1, -1, 15,
            );
            [
                _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, low)),
                _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, high)),
            ]
        }
    }

    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::V {
        // SAFETY: the processor has AVX2; the instructions work on registers alone.
        unsafe {
            let pairs = _mm256_set1_epi64x(i64::from_le_bytes(*x));
            #[rustfmt::skip]
            let low = _mm256_setr_epi8(
                -1, -1, -1, 0, -1, -1, -1, 0, -1, -1, -1, 1, -1, -1, -1, 1,
                -1, -1, -1, 2, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1, 3,
            );
            #[rustfmt::skip]
            let high = _mm256_setr_epi8(
                -1, -1, -1, 4, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, 5,
                -1, -1, -1, 6, -1, -1, -1, 6, -1, -1, -1, 7, -1, -1, -1, 7,
            );
            // The first code of a pair moves up behind the sign, over the second.
            let up = _mm256_setr_epi32(4, 0, 4, 0, 4, 0, 4, 0);
            let top = _mm256_set1_epi32(0xf << 28);
            let low = _mm256_and_si256(_mm256_sllv_epi32(_mm256_shuffle_epi8(pairs, low), up), top);
            let high = _mm256_and_si256(_mm256_sllv_epi32(_mm256_shuffle_epi8(pairs, high), up), top);
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Lanes) {
        // SAFETY: the processor has AVX, and 16 values may be written at `to`.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        halves!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn load_part(self, x: &Self::Values) -> Self::Part {
        // SAFETY: the processor has AVX, and 8 values may be read at `x`.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, v: Self::Part, to: &mut Self::Values) {
        // SAFETY: the processor has AVX, and 8 values may be written at `to`.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn zero_part(self) -> Self::Part {
        // SAFETY: the processor has AVX.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn mul_add_part(self, a: Self::Part, b: Self::Part, c: Self::Part) -> Self::Part {
        // SAFETY: the processor has FMA; the instruction works on registers alone.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        // SAFETY: the processor has AVX2; the instructions work on registers alone.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn greater(self, a: Self::V, b: Self::V) -> u32 {
        // SAFETY: the processor has AVX; the instructions work on registers alone.
        unsafe {
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]));
            low as u32 | (high as u32) << 8
        }
    }

    #[inline(always)]
    fn greater_or_nan(self, a: Self::V, b: Self::V) -> u32 {
        // SAFETY: the processor has AVX; the instructions work on registers alone.
        unsafe {
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a[0], b[0]));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a[1], b[1]));
            low as u32 | (high as u32) << 8
        }
    }

    #[inline(always)]
    fn choose(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        // SAFETY: the processor has AVX; the instructions work on registers alone.
        unsafe {
            [
                _mm256_blendv_ps(y[0], x[0], _mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0])),
                _mm256_blendv_ps(y[1], x[1], _mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1])),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: the processor has AVX; the instructions work on registers alone.
        unsafe {
            // In the order of `sum4`: pairs, fours, halves.
            let v = self.folded(v);
            let v = _mm256_hadd_ps(v, v);
            let v = _mm256_hadd_ps(v, v);
            _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)))
        }
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [Self::V; 4]) -> [f32; 4] {
        let halves = [self.folded(a), self.folded(b), self.folded(c), self.folded(d)];
        let mut sums = [0.0; 4];
        // SAFETY: the processor has AVX, and four values may be written at `sums`.
        unsafe {
            let pairs = [_mm256_hadd_ps(halves[0], halves[1]), _mm256_hadd_ps(halves[2], halves[3])];
            let v = _mm256_hadd_ps(pairs[0], pairs[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            _mm_storeu_ps(sums.as_mut_ptr(), v);
        }
        sums
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        // SAFETY: the processor has AVX; the instructions work on registers alone.
        unsafe {
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, row: &[T]) {
        for line in (0..size_of_val(row)).step_by(64) {
            // SAFETY: the address lies inside of `row`, and a prefetch changes no values.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().byte_add(line).cast()) }
        }
    }
}
