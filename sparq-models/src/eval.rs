//! Does it hold? Decode methods side by side on the tasks of the paper and of today.
//!
//! - [`tasks`] makes contexts and questions, from files in their published formats or from nothing;
//! - [`Evaluation`] runs them: each context is prefilled once, densely, and every method answers from
//!   there, the questions fed through its decode steps;
//! - [`metrics`] scores the answers; [`results`] is what is written, the same bytes for the same run;
//! - [`Journal`] lets a run that was killed go on.

mod error;
mod evaluation;
mod journal;
pub mod metrics;
pub mod results;
mod run;
mod script;
pub mod summary;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;
mod variant;
mod watchers;

pub use error::EvalError;
pub use evaluation::{Chosen, Evaluation, Names, Progress, journal_path};
pub use journal::Journal;
pub use results::Results;
pub use variant::Variant;
