//! How much a decode step reads and writes: the currency in which SparQ attention is judged.
//!
//! [`Transfer`] counts what a step touches in the KV cache: for dense attention and SparQ what their
//! kernels read and write, for the methods that are made of Burn ops what the method has to read and
//! write, whatever the ops copy in between. A cache keeps what any of its sequences asks for, and each is
//! charged for these copies of its own tokens: dense attention beside SparQ moves a little more than by
//! itself. The paper's formulas (section 4 and appendix F: elements
//! per KV head and step) stand beside it, in [`paper_dense`] and [`paper_sparq`]; they differ in that
//! the paper leaves out the write of the transposed key copy and always counts the mean value.

use std::ops::{Add, AddAssign};

use serde::Serialize;

/// Elements and bytes of one part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Part {
    /// Elements read or written.
    pub elements: u64,
    /// The same in bytes, by the size of the elements that are really stored.
    pub bytes: u64,
}

impl Part {
    /// `elements` elements of `size` bytes each.
    pub fn new(elements: usize, size: usize) -> Self {
        Self { elements: elements as u64, bytes: (elements as u64).saturating_mul(size as u64) }
    }

    /// The same so many times.
    pub(crate) fn times(self, count: usize) -> Self {
        Self {
            elements: self.elements.saturating_mul(count as u64),
            bytes: self.bytes.saturating_mul(count as u64),
        }
    }
}

impl Add for Part {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            elements: self.elements.saturating_add(other.elements),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// What one decode step of one layer touches in the KV cache, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Transfer {
    /// What is read to choose positions: rows of the transposed key cache, bounds of pages.
    pub k_t: Part,
    /// Keys read.
    pub k: Part,
    /// Values read.
    pub v: Part,
    /// Running sum of values, read and written.
    pub mean_value: Part,
    /// The new token's key, its transposed copy if one is kept, and its value, written.
    pub append: Part,
    /// What a method keeps of its own, read and written: H2O's running scores, the bounds of the page
    /// that a token joins.
    pub state: Part,
}

impl Transfer {
    /// All parts together.
    pub fn total(&self) -> Part {
        self.k_t + self.k + self.v + self.mean_value + self.append + self.state
    }
}

impl AddAssign for Transfer {
    fn add_assign(&mut self, other: Self) {
        self.k_t = self.k_t + other.k_t;
        self.k = self.k + other.k;
        self.v = self.v + other.v;
        self.mean_value = self.mean_value + other.mean_value;
        self.append = self.append + other.append;
        self.state = self.state + other.state;
    }
}

/// Transfers summed over decode steps, beside what dense attention would have moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Traffic {
    /// Decode steps counted: one is a step of one sequence in one layer.
    pub steps: u64,
    /// What the method moved.
    pub moved: Transfer,
    /// What dense attention over the same cache would have moved.
    pub dense: Transfer,
}

impl Traffic {
    /// Counts one step.
    pub fn record(&mut self, moved: Transfer, dense: Transfer) {
        self.steps += 1;
        self.moved += moved;
        self.dense += dense;
    }

    /// Bytes moved over bytes that dense attention would have moved; 1 before the first step.
    pub fn ratio(&self) -> f64 {
        match self.dense.total().bytes {
            0 => 1.0,
            dense => self.moved.total().bytes as f64 / dense as f64,
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.moved += other.moved;
        self.dense += other.dense;
    }
}

/// Sum of products of three sizes; the largest number where it is beyond it.
fn sum<const N: usize>(terms: [[usize; 3]; N]) -> usize {
    let product = |[a, b, c]: [usize; 3]| a.saturating_mul(b).saturating_mul(c);
    terms.into_iter().map(product).fold(0, usize::saturating_add)
}

/// The paper's count for dense attention, in elements per KV head and step: `2·S·d + 2·d`.
pub fn paper_dense(seq_len: usize, head_dim: usize) -> usize {
    sum([[2, seq_len, head_dim], [2, 1, head_dim]])
}

/// The paper's count for SparQ attention, in elements per KV head and step: `S·r + 2·k·d + 4·d`.
pub fn paper_sparq(seq_len: usize, head_dim: usize, rank: usize, top_k: usize) -> usize {
    sum([[1, seq_len, rank], [2, top_k, head_dim], [4, 1, head_dim]])
}

/// The SparQ paper's count for exact top-k (FlexGen), in elements per KV head and step:
/// `S·d + k·d + 2·d`.
pub fn paper_exact_topk(seq_len: usize, head_dim: usize, top_k: usize) -> usize {
    sum([[1, seq_len, head_dim], [1, top_k, head_dim], [2, 1, head_dim]])
}

/// The SparQ paper's count for LM-Infinite, in elements per KV head and step: `2·k·d + 2·d`.
pub fn paper_local(head_dim: usize, top_k: usize) -> usize {
    sum([[2, top_k, head_dim], [2, 1, head_dim]])
}

/// The SparQ paper's count for H2O, in elements per KV head and step: `2·k·d + 2·d + 2·S`.
pub fn paper_h2o(seq_len: usize, head_dim: usize, top_k: usize) -> usize {
    sum([[2, top_k, head_dim], [2, 1, head_dim], [2, 1, seq_len]])
}

/// Quest's count in the same manner, in elements per KV head and step: two bounds of `S / page` pages,
/// `top_k` keys and values, `2·⌈S/p⌉·d + 2·k·d + 2·d`. (Quest paper, section 3.4.)
pub fn paper_quest(seq_len: usize, head_dim: usize, top_k: usize, page: usize) -> usize {
    sum([[2, seq_len.div_ceil(page.max(1)), head_dim], [2, top_k, head_dim], [2, 1, head_dim]])
}

/// Double Sparsity's count in the same manner, in elements per KV head and step: `rank` label channels
/// of all keys, `top_k` keys and values, `S·r + 2·k·d + 2·d + r`.
pub fn paper_double_sparsity(seq_len: usize, head_dim: usize, rank: usize, top_k: usize) -> usize {
    sum([[1, seq_len, rank], [2, top_k, head_dim], [2, 1, head_dim], [1, 1, rank]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_bound_at_4096() {
        let bound = paper_dense(4096, 128) as f64 / paper_sparq(4096, 128, 32, 128) as f64;
        assert!((bound - 6.4).abs() < 0.05, "{bound}");
    }

    #[test]
    fn totals_add_up_by_part() {
        let step = Transfer { k_t: Part::new(10, 2), v: Part::new(3, 4), ..Transfer::default() };
        assert_eq!(step.total(), Part { elements: 13, bytes: 32 });
        let mut traffic = Traffic::default();
        assert_eq!(traffic.ratio(), 1.0);
        traffic.record(step, Transfer { k: Part::new(32, 4), ..Transfer::default() });
        traffic.record(step, Transfer { k: Part::new(32, 4), ..Transfer::default() });
        assert_eq!((traffic.steps, traffic.ratio()), (2, 0.25));
    }
}
