//! How a decode step is cut into tasks for threads.
//!
//! What is summed together depends on the span of its own sequence alone: the same sequence gives the same bits
//! beside any others, and on any number of threads.

use std::ops::Range;

use crate::{k_t, spans::Span};

/// Elements read below which one thread is faster than handing work to others: at a few elements
/// per nanosecond, about the time that waking a thread takes.
pub(super) const PARALLEL_ABOVE: usize = 1 << 17;

/// Positions that a part of a head has at least.
const MIN_POSITIONS: usize = 512;

/// Parts that a head is cut into at most: four KV heads are enough for 64 threads.
const MOST_PARTS: usize = 16;

/// Positions whose approximate scores are summed together, from a multiple of this on.
pub(super) const UNIT: usize = 512;

/// Parts of a head whose positions are all attended to: each is summed by itself, then they are merged.
pub(super) fn parts(span: Span) -> usize {
    (span.len() / MIN_POSITIONS).clamp(1, MOST_PARTS)
}

/// Positions of one of the [`parts`]; none where there are fewer.
pub(super) fn part_of(span: Span, part: usize) -> (usize, usize) {
    cut(span, parts(span), part, k_t::BLOCK)
}

/// Live positions, cut about evenly at multiples of `unit`.
fn cut(span: Span, parts: usize, part: usize, unit: usize) -> (usize, usize) {
    let at = |part: usize| {
        let at = span.start + span.len() * part.min(parts) / parts;
        if part < parts { (at - at % unit).max(span.start) } else { at }
    };
    (at(part), at(part + 1))
}

/// Whether a step over `heads` KV heads in all sequences, with up to `len` positions, of each of which
/// `per_position` elements are read, is worth more than one thread.
pub(super) fn is_parallel(heads: usize, len: usize, per_position: usize) -> bool {
    rayon::current_num_threads() > 1 && heads * len * per_position > PARALLEL_ABOVE
}

/// Each KV head as a number of runs of whole units that are scored at the same time: one, where there are heads
/// enough for all threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    heads: usize,
    /// Runs per head.
    pub(super) chunks: usize,
    /// Whether the step is worth more than one thread.
    pub(super) is_parallel: bool,
}

impl Split {
    /// As [`is_parallel`].
    pub(super) fn new(heads: usize, len: usize, per_position: usize) -> Self {
        let is_parallel = is_parallel(heads, len, per_position);
        let threads = if is_parallel { rayon::current_num_threads() } else { 1 };
        Self { heads, chunks: Self::chunks(threads, heads, len), is_parallel }
    }

    fn chunks(threads: usize, heads: usize, len: usize) -> usize {
        match threads == 1 || heads >= 2 * threads {
            true => 1,
            // Twice as many tasks as threads, for threads that are held up.
            false => (2 * threads).div_ceil(heads).min(len / UNIT).max(1),
        }
    }

    /// Number of tasks.
    pub(super) fn tasks(&self) -> usize {
        self.heads * self.chunks
    }

    /// Head and run of a task.
    pub(super) fn of_task(&self, task: usize) -> (usize, usize) {
        (task / self.chunks, task % self.chunks)
    }

    /// The tasks of a head.
    pub(super) fn tasks_of(&self, head: usize) -> Range<usize> {
        head * self.chunks..(head + 1) * self.chunks
    }

    /// Positions of a run.
    pub(super) fn run_of(&self, span: Span, chunk: usize) -> (usize, usize) {
        cut(span, self.chunks, chunk, UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_heads_are_cut_and_many_are_not() {
        let chunks = |heads, len| Split::chunks(8, heads, len);
        assert_eq!([chunks(32, 16384), chunks(8, 16384), chunks(1, 16384), chunks(1, 1024)], [1, 2, 16, 2]);
        assert_eq!(Split::chunks(1, 1, 16384), 1);
    }

    #[test]
    fn parts_cover_each_position_once() {
        let cuts = |start, end| {
            let span = Span { slot: 0, start, end };
            (0..=parts(span)).map(|part| part_of(span, part)).collect::<Vec<_>>()
        };
        assert_eq!(cuts(5, 1029), [(5, 512), (512, 1029), (1029, 1029)]);
        assert_eq!(cuts(0, 1023), [(0, 1023), (1023, 1023)]);
        assert_eq!(cuts(3, 3), [(3, 3), (3, 3)]);
        assert_eq!((cuts(0, 1 << 20).len(), cuts(0, 1 << 20)[15]), (17, (15 << 16, 1 << 20)));
    }

    #[test]
    fn runs_are_cut_where_units_begin() {
        let split = Split { heads: 2, chunks: 3, is_parallel: true };
        let span = Span { slot: 0, start: 5, end: 1805 };
        let runs: Vec<_> = (0..3).map(|chunk| split.run_of(span, chunk)).collect();
        assert_eq!(runs, [(5, 512), (512, 1024), (1024, 1805)]);
        assert_eq!((split.tasks(), split.of_task(4), split.tasks_of(1)), (6, (1, 1), 3..6));
    }
}
