//! Softmax attention over a stream of positions, one pass, for the query heads of one KV head.

use super::{
    Element,
    element::{axpy, dot, max, soft_cap, vectorised},
};

/// Positions whose logits are held at a time.
const BLOCK: usize = 64;

/// Exact attention of a group of queries over the positions that it is fed, in blocks, with the
/// running maximum and sum of each head (online softmax).
pub(super) struct Attend<'a> {
    head_dim: usize,
    softcap: Option<f32>,
    /// `[group, head_dim]`, already divided by √d.
    queries: Vec<f32>,
    /// `[group, head_dim]`: sum of weighted values so far.
    out: &'a mut [f32],
    maxima: Vec<f32>,
    sums: Vec<f32>,
    /// `[group, BLOCK]`.
    logits: Vec<f32>,
    row: Vec<f32>,
}

impl<'a> Attend<'a> {
    /// Starts with queries `q: [group, head_dim]`; the result is left in `out`, of the same shape.
    pub(super) fn new(q: &[f32], head_dim: usize, softcap: Option<f32>, out: &'a mut [f32]) -> Self {
        let group = q.len() / head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        out.fill(0.0);
        Self {
            head_dim,
            softcap,
            queries: q.iter().map(|x| x * scale).collect(),
            out,
            maxima: vec![f32::NEG_INFINITY; group],
            sums: vec![0.0; group],
            logits: vec![0.0; group * BLOCK],
            row: vec![0.0; head_dim],
        }
    }

    /// Attends to the given positions of `k` and `v`, both `[capacity, head_dim]`.
    pub(super) fn feed<E: Element>(&mut self, k: &[E], v: &[E], positions: impl Iterator<Item = usize>) {
        let mut positions = positions.peekable();
        let mut block = Vec::with_capacity(BLOCK);
        while positions.peek().is_some() {
            block.clear();
            block.extend(positions.by_ref().take(BLOCK));
            vectorised(|| self.feed_block(k, v, &block));
        }
    }

    #[inline(always)]
    fn feed_block<E: Element>(&mut self, k: &[E], v: &[E], block: &[usize]) {
        let d = self.head_dim;
        for (i, &position) in block.iter().enumerate() {
            let key = E::widen(&k[position * d..(position + 1) * d], &mut self.row);
            for (head, query) in self.queries.chunks_exact(d).enumerate() {
                self.logits[head * BLOCK + i] = dot(query, key);
            }
        }
        for head in 0..self.maxima.len() {
            let logits = &mut self.logits[head * BLOCK..][..block.len()];
            soft_cap(logits, self.softcap);
            let before = self.maxima[head];
            let maximum = before.max(max(logits));
            let shrink = (before - maximum).exp(); // 0 for the first block
            let mut sum = self.sums[head] * shrink;
            for logit in &mut *logits {
                *logit = (*logit - maximum).exp();
                sum += *logit;
            }
            self.maxima[head] = maximum;
            self.sums[head] = sum;
            if shrink < 1.0 {
                self.out[head * d..(head + 1) * d].iter_mut().for_each(|x| *x *= shrink);
            }
        }
        for (i, &position) in block.iter().enumerate() {
            let value = E::widen(&v[position * d..(position + 1) * d], &mut self.row);
            for (head, out) in self.out.chunks_exact_mut(d).enumerate() {
                axpy(out, self.logits[head * BLOCK + i], value);
            }
        }
    }

    /// Divides by the sums of weights. A head that was fed nothing is left at zero.
    pub(super) fn finish(self) {
        for (out, sum) in self.out.chunks_exact_mut(self.head_dim).zip(self.sums) {
            if sum > 0.0 {
                out.iter_mut().for_each(|x| *x /= sum);
            }
        }
    }
}
