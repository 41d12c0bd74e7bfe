//! Storage types and the few vector operations that the kernels are made of.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// A storage type of caches and weights.
pub(in crate::ops) trait Element: burn::tensor::Element + bytemuck::Pod + Send + Sync {
    /// The row in f32: itself where it is f32 already, else converted into `buffer`, which must be
    /// at least as long.
    fn widen<'a>(row: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32];

    /// Rounds to the storage type.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen<'a>(row: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        row
    }

    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    fn widen<'a>(row: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
        let buffer = &mut buffer[..row.len()];
        row.convert_to_f32_slice(buffer);
        buffer
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen<'a>(row: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
        let buffer = &mut buffer[..row.len()];
        for (wide, narrow) in buffer.iter_mut().zip(row) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
        buffer
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Runs `f` compiled for the widest vectors that this processor has. What `f` calls must be
/// `#[inline(always)]` to take part.
pub(super) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn on_avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
        {
            // SAFETY: the processor has the features that the function is compiled for.
            #[allow(unsafe_code)]
            return unsafe { on_avx2(f) };
        }
    }
    f()
}

/// Scalar product. Sixteen running sums, because the compiler may not reorder a float sum itself.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// `y += w · x`.
#[inline(always)]
pub(super) fn axpy(y: &mut [f32], w: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += w * x;
    }
}

/// `cap · tanh(x / cap)` for each value, where there is a cap.
pub(super) fn soft_cap(values: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        values.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
}

/// Largest value; minus infinity for none.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_types_widen_exactly_and_narrow_to_nearest() {
        fn round_trip<E: Element + PartialEq>() {
            let row = [E::narrow(1.5), E::narrow(-0.25), E::narrow(3.0e-5)];
            let mut buffer = [0.0; 8];
            let wide = E::widen(&row, &mut buffer).to_vec();
            assert_eq!(wide[..2], [1.5, -0.25]);
            assert_eq!(wide.iter().map(|&x| E::narrow(x)).collect::<Vec<_>>(), row);
        }
        round_trip::<f32>();
        round_trip::<f16>();
        round_trip::<bf16>();
    }

    #[test]
    fn dot_covers_the_tail() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        let expected: f32 = a.iter().map(|x| x * x).sum();
        assert_eq!(dot(&a, &a), expected);
    }
}
