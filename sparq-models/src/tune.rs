//! From a quality target to the sizes of SparQ attention: the least traffic that meets it on a text.
//!
//! A [`Probe`] cuts a text into windows, decodes the end of each with dense attention and with any other
//! methods, the same tokens fed to both, and says how far the predictions lie apart. [`tune`] tries ranks
//! and numbers of positions, and keeps what moves least and meets the [`Target`]; then it makes single
//! layers cheaper for as long as the target holds.

mod probe;
mod search;

pub use probe::{Measurement, Probe, Windows};
pub use search::{Best, Grid, GridPoint, Point, Progress, Target, Tuned, frontier, tune};
