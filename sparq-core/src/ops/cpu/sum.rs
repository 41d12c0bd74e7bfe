//! A sum over memory: what a machine reads at, where nothing else is done.
#![allow(clippy::needless_range_loop)] // of one length, over several streams at once

use rayon::prelude::*;

use super::simd::{LANES, Lanes, Simd, with_simd};

/// Values per task.
const PART: usize = 1 << 18;

/// Streams that a thread reads at a time, as the kernels do.
const STREAMS: usize = 4;

/// The sum of `values`, on all threads; what is behind the last whole vector of a part is left out.
pub(in crate::ops) fn sum(values: &[f32]) -> f32 {
    values.par_chunks(PART).map(|part| with_simd!(s => sum_part(s, part))).sum()
}

#[inline(always)]
fn sum_part<S: Simd>(s: S, part: &[f32]) -> f32 {
    let (vectors, _) = part.as_chunks::<LANES>();
    let per_stream = vectors.len() / STREAMS;
    let mut streams: [&[Lanes]; STREAMS] = [&[]; STREAMS];
    for (i, stream) in streams.iter_mut().enumerate() {
        *stream = &vectors[i * per_stream..(i + 1) * per_stream];
    }
    let mut sums = [s.splat(0.0); STREAMS];
    for j in 0..per_stream {
        for i in 0..STREAMS {
            sums[i] = s.add(sums[i], s.load(&streams[i][j]));
        }
    }
    s.sum4(sums).iter().sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn adds_up_every_part() {
        let values: Vec<f32> = (0..super::PART + 1024).map(|i| (i % 7) as f32 - 3.0).collect();
        assert_eq!(super::sum(&values), values.iter().sum::<f32>());
    }
}
