//! Approximate scores of a part of a head's positions.

use std::ops::Range;

use super::super::{
    attend::{log_sum_exp, soft_cap},
    simd::{LANES, Lanes, Simd},
};

/// Logits of each query head over a part of the positions, with the log-sum-exp of each of its units.
#[derive(Debug, Default)]
pub(super) struct Logits {
    /// `[group, positions]`, each head filled up to whole vectors with minus infinity.
    values: Vec<Lanes>,
    /// Vectors per head.
    stride: usize,
    /// `[units, group]`: the largest logit, and the sum of weights relative to it.
    units: Vec<(f32, f32)>,
    /// `ln Σ exp(logit)` over all positions of the sequence.
    log_sums: Vec<f32>,
}

impl Logits {
    /// Starts over: zeros for `len` positions.
    pub(super) fn reset(&mut self, group: usize, len: usize) {
        self.stride = len.div_ceil(LANES);
        self.values.clear();
        self.values.resize(group * self.stride, [0.0; LANES]);
        self.units.clear();
        self.log_sums.resize(group, 0.0);
    }

    /// The vectors from position `first` on (a multiple of [`LANES`]), and their distance from one
    /// head to the next.
    pub(super) fn starting_at(&mut self, first: usize) -> (&mut [Lanes], usize) {
        (&mut self.values[first / LANES..], self.stride)
    }

    /// Sums over the heads of `count` positions from `first` on.
    #[inline(always)]
    pub(super) fn sum<S: Simd>(&self, s: S, first: usize, count: usize, sums: &mut [Lanes]) {
        let first = first / LANES;
        for (j, sum) in sums[..count.div_ceil(LANES)].iter_mut().enumerate() {
            let mut v = s.load(&self.values[first + j]);
            for head in 1..self.log_sums.len() {
                v = s.add(v, s.load(&self.values[head * self.stride + first + j]));
            }
            s.store(v, sum);
        }
    }

    /// Caps the logits of a unit, which starts at `first`, and adds up the weights of those in `live`.
    #[inline(always)]
    pub(super) fn seal<S: Simd>(&mut self, s: S, first: usize, live: Range<usize>, softcap: Option<f32>) {
        for head in 0..self.log_sums.len() {
            let values = &mut self.values[head * self.stride + first / LANES..][..live.end.div_ceil(LANES)];
            if let Some(cap) = softcap {
                soft_cap(s, values, cap);
            }
            let flat = values.as_flattened_mut();
            flat[..live.start].fill(f32::NEG_INFINITY);
            flat[live.end..].fill(f32::NEG_INFINITY);
            let (mut maximum, mut sum) = (f32::NEG_INFINITY, 0.0);
            log_sum_exp::<S, false>(s, values, &mut maximum, &mut sum);
            self.units.push((maximum, sum));
        }
    }

    /// Largest logit of a head in each unit, and its sum of weights relative to that.
    pub(super) fn of_head(&self, head: usize) -> impl Iterator<Item = (f32, f32)> {
        self.units.iter().skip(head).step_by(self.log_sums.len()).copied()
    }

    /// `ln Σ exp(logit)` of a head, as it was set.
    pub(super) fn log_sum(&self, head: usize) -> f32 {
        self.log_sums[head]
    }

    /// Sets `ln Σ exp(logit)` of a head, over all parts.
    pub(super) fn set_log_sum(&mut self, head: usize, log_sum: f32) {
        self.log_sums[head] = log_sum;
    }

    /// Sums over the heads of ŝ, of `count` positions from `first` on.
    #[inline(always)]
    pub(super) fn sum_probabilities<S: Simd>(&self, s: S, first: usize, count: usize, sums: &mut [Lanes]) {
        let first = first / LANES;
        for (j, sum) in sums[..count.div_ceil(LANES)].iter_mut().enumerate() {
            let mut v = s.splat(0.0);
            for (head, log_sum) in self.log_sums.iter().enumerate() {
                let logit = s.load(&self.values[head * self.stride + first + j]);
                v = s.add(v, s.exp(s.add(logit, s.splat(-log_sum))));
            }
            s.store(v, sum);
        }
    }

    /// ŝ of a query head at a position of the part.
    pub(super) fn probability(&self, head: usize, position: usize) -> f32 {
        let values = self.values[head * self.stride..(head + 1) * self.stride].as_flattened();
        (values[position] - self.log_sums[head]).exp()
    }
}
