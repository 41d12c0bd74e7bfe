//! How the steps that a thread starts are shared with other threads.

use std::cell::Cell;

thread_local! {
    static WHOLE_HEADS: Cell<bool> = const { Cell::new(false) };
}

/// Decode steps that this thread starts from here on cut no KV head between threads, so that the same step
/// gives the same bits on any number of them. With fewer heads (over all sequences of a batch) than threads
/// it takes longer.
pub fn keep_heads_whole() {
    WHOLE_HEADS.set(true);
}

/// Whether [`keep_heads_whole`] was called on this thread.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch"))]
pub(crate) fn heads_are_whole() -> bool {
    WHOLE_HEADS.get()
}
