//! What is printed, and where: text to standard output or a file, the rest to standard error.

pub(crate) mod doctor;
mod inspection;
mod progress;
mod sink;
mod summary;

pub(crate) use inspection::inspection;
pub(crate) use progress::{EvalProgress, Progress};
pub(crate) use sink::Sink;
pub(crate) use summary::{bytes, summary};

use std::io;

use crate::hint::hint;

/// Prints an error with its causes on one line, and what to do about it on the next.
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    if let Some(hint) = hint(error) {
        eprintln!("  hint: {hint}");
    }
}

/// True where the reader of our output went away: that is how `sparq … | head` ends.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}
