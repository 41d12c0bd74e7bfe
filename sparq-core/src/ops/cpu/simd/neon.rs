//! NEON, which every 64-bit Arm processor has: four registers of four.
#![allow(unsafe_code)]

use std::{arch::aarch64::*, array::from_fn};

use half::{bf16, f16};

use super::{LANES, Lanes, Portable, Simd};

/// NEON, part of the architecture.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Neon(());

impl Neon {
    /// The level.
    #[inline]
    pub(in super::super) fn new() -> Self {
        Self(())
    }
}

/// An instruction that works on registers alone.
macro_rules! register {
    ($($call:tt)+) => {
        // SAFETY: NEON is part of the architecture; the instruction works on registers alone.
        unsafe { $($call)+ }
    };
}

impl Simd for Neon {
    type V = [float32x4_t; 4];
    type Part = float32x4_t;
    type Values = [f32; LANES / 4];

    const MANY_PARTS: bool = true;

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        register!([vdupq_n_f32(x); 4])
    }

    #[inline(always)]
    fn load(self, x: &Lanes) -> Self::V {
        // SAFETY: NEON is part of the architecture, and 16 values may be read at `x`.
        from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        // Conversions from f16 are not stable as intrinsics: `half` finds the instruction.
        self.load(&Portable.load_f16(x))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::V {
        let x: *const u16 = x.as_ptr().cast();
        // SAFETY: NEON is part of the architecture, and 32 bytes may be read at `x`.
        from_fn(|i| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.add(4 * i)))) })
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::V {
        // SAFETY: NEON is part of the architecture, and 16 bytes may be read at `x`.
        unsafe {
            let bytes = vld1q_s8(x.as_ptr());
            let (low, high) = (vshll_n_s8::<8>(vget_low_s8(bytes)), vshll_n_s8::<8>(vget_high_s8(bytes)));
            let widen = |half| vcvtq_f32_s32(vshll_n_s16::<16>(half));
            [
                widen(vget_low_s16(low)),
                widen(vget_high_s16(low)),
                widen(vget_low_s16(high)),
                widen(vget_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::V {
        self.load(&Portable.load_i4(x))
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Lanes) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: NEON is part of the architecture, and 16 values may be written at `to`.
            unsafe { vst1q_f32(to.as_mut_ptr().add(4 * i), v) }
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| register!(vaddq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| register!(vmulq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| register!(vdivq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        from_fn(|i| register!(vfmaq_f32(c[i], a[i], b[i])))
    }

    #[inline(always)]
    fn load_part(self, x: &Self::Values) -> Self::Part {
        // SAFETY: NEON is part of the architecture, and four values may be read at `x`.
        unsafe { vld1q_f32(x.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, v: Self::Part, to: &mut Self::Values) {
        // SAFETY: NEON is part of the architecture, and four values may be written at `to`.
        unsafe { vst1q_f32(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn zero_part(self) -> Self::Part {
        register!(vdupq_n_f32(0.0))
    }

    #[inline(always)]
    fn mul_add_part(self, a: Self::Part, b: Self::Part, c: Self::Part) -> Self::Part {
        register!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| register!(vmaxq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| register!(vminq_f32(a[i], b[i])))
    }

    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        n.map(|n| {
            register! {{
                let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            }}
        })
    }

    #[inline(always)]
    fn greater(self, a: Self::V, b: Self::V) -> u32 {
        const BITS: [u32; 4] = [1, 2, 4, 8];
        // SAFETY: NEON is part of the architecture, and four values may be read at `BITS`.
        let bits = unsafe { vld1q_u32(BITS.as_ptr()) };
        let mask = |i: usize| register!(vaddvq_u32(vandq_u32(vcgtq_f32(a[i], b[i]), bits)));
        (0..4).fold(0, |all, i| all | mask(i) << (4 * i))
    }

    #[inline(always)]
    fn greater_or_nan(self, a: Self::V, b: Self::V) -> u32 {
        const BITS: [u32; 4] = [1, 2, 4, 8];
        // SAFETY: NEON is part of the architecture, and four values may be read at `BITS`.
        let bits = unsafe { vld1q_u32(BITS.as_ptr()) };
        // The bits of those that are at most as large; the others are wanted.
        let mask = |i: usize| register!(vaddvq_u32(vandq_u32(vcleq_f32(a[i], b[i]), bits)));
        !(0..4).fold(0, |all, i| all | mask(i) << (4 * i)) & ((1 << LANES) - 1)
    }

    #[inline(always)]
    fn choose(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        from_fn(|i| register!(vbslq_f32(vcgtq_f32(a[i], b[i]), x[i], y[i])))
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        register!(vaddvq_f32(vaddq_f32(vaddq_f32(v[0], v[1]), vaddq_f32(v[2], v[3]))))
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        register!(vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(v[0], v[1]), vmaxnmq_f32(v[2], v[3]))))
    }

    #[inline(always)]
    fn prefetch<T>(self, _: &[T]) {
        // No stable intrinsic.
    }
}
