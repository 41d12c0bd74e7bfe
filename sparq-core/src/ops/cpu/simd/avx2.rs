//! AVX2, FMA and F16C: two registers of eight.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Lanes, Simd};

/// Proof that this processor has AVX2, FMA and F16C. Only [`Avx2::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Avx2(());

impl Avx2 {
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
        let x: *const i8 = x.as_ptr();
        // SAFETY: the processor has AVX2, and 16 bytes may be read at `x`.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::V {
        // SAFETY: the processor has AVX2, and 8 bytes may be read at `x`.
        unsafe {
            let pairs = _mm_loadl_epi64(x.as_ptr().cast());
            let bits = _mm_set1_epi8(0xf);
            let (first, second) =
                (_mm_and_si128(pairs, bits), _mm_and_si128(_mm_srli_epi16::<4>(pairs), bits));
            let codes = _mm_unpacklo_epi8(first, second);
            // Flipping the sign bit and taking it away again fills the upper bits with the sign.
            let sign = _mm_set1_epi8(8);
            let codes = _mm_sub_epi8(_mm_xor_si128(codes, sign), sign);
            let low = _mm256_cvtepi8_epi32(codes);
            let high = _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(codes));
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
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
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
