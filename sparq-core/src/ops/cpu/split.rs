//! How a decode step is cut into tasks for threads.

use std::ops::Range;

use crate::{index, spans::Span, threads};

/// Elements read below which one thread is faster than handing work to others: at a few elements
/// per nanosecond, about the time that waking a thread takes.
pub(super) const PARALLEL_ABOVE: usize = 1 << 17;

/// Positions that a part of a head has at least.
const MIN_POSITIONS: usize = 256;

/// Each KV head as a number of parts along its positions: one, where there are heads enough for all
/// threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    heads: usize,
    /// Parts per head.
    pub(super) chunks: usize,
    /// Whether the step is worth more than one thread.
    pub(super) is_parallel: bool,
}

impl Split {
    /// For `heads` KV heads in all sequences with up to `len` positions, of each of which `per_position`
    /// elements are read.
    pub(super) fn new(heads: usize, len: usize, per_position: usize) -> Self {
        let split = Self::for_threads(rayon::current_num_threads(), heads, len, per_position);
        match threads::heads_are_whole() {
            true => Self { chunks: 1, ..split },
            false => split,
        }
    }

    fn for_threads(threads: usize, heads: usize, len: usize, per_position: usize) -> Self {
        let is_parallel = threads > 1 && heads * len * per_position > PARALLEL_ABOVE;
        let wanted = match heads >= 2 * threads {
            true => 1,
            // Twice as many tasks as threads, for threads that are held up.
            false => (2 * threads).div_ceil(heads),
        };
        let chunks = if is_parallel { wanted.min(len / MIN_POSITIONS).max(1) } else { 1 };
        Self { heads, chunks, is_parallel }
    }

    /// Number of tasks.
    pub(super) fn tasks(&self) -> usize {
        self.heads * self.chunks
    }

    /// Head and part of a task.
    pub(super) fn of_task(&self, task: usize) -> (usize, usize) {
        (task / self.chunks, task % self.chunks)
    }

    /// The tasks of a head.
    pub(super) fn tasks_of(&self, head: usize) -> Range<usize> {
        head * self.chunks..(head + 1) * self.chunks
    }

    /// Positions of a part: the live ones, cut about evenly, where a block of scales begins.
    pub(super) fn part_of(&self, span: Span, chunk: usize) -> (usize, usize) {
        let at = |chunk: usize| {
            let at = span.start + span.len() * chunk / self.chunks;
            match chunk == self.chunks {
                true => at,
                false => (at - at % index::BLOCK).max(span.start),
            }
        };
        (at(chunk), at(chunk + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_heads_are_cut_and_many_are_not() {
        let chunks = |heads, len| Split::for_threads(8, heads, len, 256).chunks;
        assert_eq!([chunks(32, 16384), chunks(8, 16384), chunks(1, 16384), chunks(1, 1024)], [1, 2, 16, 4]);
        assert!(!Split::for_threads(8, 1, 100, 256).is_parallel);
        assert!(!Split::for_threads(1, 32, 16384, 256).is_parallel);
    }

    #[test]
    fn heads_stay_whole_where_it_is_asked_for() {
        let chunks = || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
            pool.install(|| {
                let cut = Split::new(1, 16384, 256).chunks;
                threads::keep_heads_whole();
                [cut, Split::new(1, 16384, 256).chunks]
            })
        };
        assert_eq!(chunks(), [8, 1]);
    }

    #[test]
    fn parts_cover_each_position_once() {
        let split = Split { heads: 2, chunks: 3, is_parallel: true };
        let span = Span { start: 5, end: 305 };
        let parts: Vec<_> = (0..3).map(|chunk| split.part_of(span, chunk)).collect();
        assert_eq!(parts, [(5, 64), (64, 192), (192, 305)]);
        assert_eq!((split.tasks(), split.of_task(4), split.tasks_of(1)), (6, (1, 1), 3..6));
        assert_eq!(split.part_of(Span { start: 3, end: 3 }, 1), (3, 3));
    }
}
