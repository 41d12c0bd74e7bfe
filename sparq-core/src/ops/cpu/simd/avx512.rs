//! AVX-512: one register of sixteen.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Lanes, Simd};

/// Proof that this processor has AVX-512 with its instructions on bytes and on doubles of vectors. Only
/// [`Avx512::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    /// The level, where the processor has it.
    #[inline]
    pub(in super::super) fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    /// A register as two of eight.
    #[inline(always)]
    fn halves(self, v: __m512) -> [__m256; 2] {
        // SAFETY: the processor has AVX-512 DQ; the instructions work on registers alone.
        unsafe { [_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)] }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn on_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl Simd for Avx512 {
    type V = __m512;
    type Part = __m512;
    type Values = Lanes;

    const ROOMY: bool = true;
    const MANY_PARTS: bool = true;

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: a value of `Avx512` exists only where the processor has these features.
        unsafe { on_avx512(f) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the processor has AVX-512; the instruction works on registers alone.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::V {
        // SAFETY: the processor has AVX-512, and 16 values may be read at `x`.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        // SAFETY: the processor has AVX-512, and 32 bytes may be read at `x`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        // SAFETY: the processor has AVX-512, and 32 bytes may be read at `x`.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::V {
        // SAFETY: the processor has AVX-512 BW, and 16 bytes may be read at `x`.
        unsafe {
            let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(x.as_ptr().cast()));
            // Byte i to the top of word i; a set sign bit in the choice stands for a zero.
            let top = |i: i32| i << 24 | 0x80_80_80;
            #[rustfmt::skip]
            let choice = _mm512_setr_epi32(
                top(0), top(1), top(2), top(3), top(4), top(5), top(6), top(7),
                top(8), top(9), top(10), top(11), top(12), top(13), top(14), top(15),
            );
            _mm512_cvtepi32_ps(_mm512_shuffle_epi8(bytes, choice))
        }
    }

    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::V {
        // SAFETY: the processor has AVX-512 BW; the instructions work on registers alone.
        unsafe {
            let pairs = _mm512_set1_epi64(i64::from_le_bytes(*x));
            #[rustfmt::skip]
            let choice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            // Words that end in a pair; every second one is moved down to its second code.
            let words = _mm512_shuffle_epi8(pairs, choice);
            let words = _mm512_srlv_epi32(words, _mm512_set1_epi64(4 << 32));
            // The choice looks at the last four bits of a word alone.
            const UNIT: f32 = 1.0 / super::I4_UNIT;
            #[rustfmt::skip]
            let codes = _mm512_setr_ps(
                0.0, UNIT, 2.0 * UNIT, 3.0 * UNIT, 4.0 * UNIT, 5.0 * UNIT, 6.0 * UNIT, 7.0 * UNIT,
                -8.0 * UNIT, -7.0 * UNIT, -6.0 * UNIT, -5.0 * UNIT, -4.0 * UNIT, -3.0 * UNIT, -2.0 * UNIT, -UNIT,
            );
            _mm512_permutexvar_ps(words, codes)
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Lanes) {
        // SAFETY: the processor has AVX-512, and 16 values may be written at `to`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the processor has AVX-512; the instruction works on registers alone.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn load_part(self, x: &Self::Values) -> Self::Part {
        self.load(x)
    }

    #[inline(always)]
    fn store_part(self, v: Self::Part, to: &mut Self::Values) {
        self.store(v, to);
    }

    #[inline(always)]
    fn zero_part(self) -> Self::Part {
        self.splat(0.0)
    }

    #[inline(always)]
    fn mul_add_part(self, a: Self::Part, b: Self::Part, c: Self::Part) -> Self::Part {
        self.mul_add(a, b, c)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe {
            let exponents = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponents))
        }
    }

    #[inline(always)]
    fn greater(self, a: Self::V, b: Self::V) -> u32 {
        // SAFETY: as for `add`.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b).into() }
    }

    #[inline(always)]
    fn greater_or_nan(self, a: Self::V, b: Self::V) -> u32 {
        // SAFETY: as for `add`.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, b).into() }
    }

    #[inline(always)]
    fn choose(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        // SAFETY: as for `add`.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: the processor has AVX-512; the instructions work on registers alone.
        unsafe {
            // In the order of `sum4`: every second one of four, neighbours, then halves.
            let v = _mm512_add_ps(v, _mm512_shuffle_ps::<0b_01_00_11_10>(v, v));
            let v = _mm512_add_ps(v, _mm512_shuffle_ps::<0b_10_11_00_01>(v, v));
            let [low, high] = self.halves(v);
            let v = _mm256_add_ps(low, high);
            _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)))
        }
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [Self::V; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the processor has AVX-512, and four values may be written at `sums`.
        unsafe {
            // Quarters of two vectors side by side, then of four.
            let ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
            let even = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            let odd = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
            let [low, high] = self.halves(_mm512_add_ps(even, odd));
            let v = _mm256_add_ps(low, high);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            _mm_storeu_ps(sums.as_mut_ptr(), v);
        }
        sums
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        let [low, high] = self.halves(v);
        // SAFETY: the processor has AVX; the instructions work on registers alone.
        unsafe {
            let v = _mm256_max_ps(low, high);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, row: &[T]) {
        for line in (0..size_of_val(row)).step_by(64) {
            // Into the second level: the first can wait for fewer lines at a time than memory can bring.
            // SAFETY: the address lies inside of `row`, and a prefetch changes no values.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(row.as_ptr().byte_add(line).cast()) }
        }
    }
}
