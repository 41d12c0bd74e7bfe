//! Hugging Face checkpoints as Burn models that decode with SparQ attention.
//!
//! ```no_run
//! use sparq_models::TextModel;
//!
//! # fn main() -> sparq_models::Result<()> {
//! let model = TextModel::open("path/to/model")?;
//! println!("{}", model.complete("Once upon a time")?.text);
//! # Ok(())
//! # }
//! ```
//!
//! # From a folder to text
//!
//! - [`checkpoint`] finds the files of a folder, reads the weights and names every tensor that does not fit.
//!   `hub` fetches a folder by the model's name (a feature of this crate).
//! - [`config`] reads `config.json` and `generation_config.json`.
//! - [`models`] has one file per family, built from [`layers`] and [`weight`].
//! - [`attention`] says which decode method runs on which layer; [`crossover`] measures from which length on a
//!   sparse method is faster than dense attention.
//! - [`state`] holds the caches of a model, [`forward`] runs it.
//! - [`tokenizer`] turns text into token ids, and ids into text piece by piece. [`chat`] turns a conversation into
//!   a prompt, by the model's own template.
//! - [`text_model`] joins a model and its tokenizer. [`session`] continues texts over caches that live on;
//!   [`generate`] has its options, events and statistics. [`sampling`] chooses the next token, and [`stop`] ends a
//!   text at a stop string.
//!
//! # Measuring and checking
//!
//! - [`inspect`] says what a folder holds and how much memory it needs, without loading it.
//! - [`eval`] compares decode methods on tasks, [`verify`] a model's logits with recorded ones.
//! - [`tune`] searches for the smallest settings that meet a target; [`calibrate`] finds the fixed channels of Double
//!   Sparsity.
//! - [`presets`] has the shapes of known models, for benchmarks without a download.
//!
//! # A model of another crate
//!
//! A type that implements [`models::CausalModel`] generates text like the families here: [`TextModel::new`] joins it
//! with a tokenizer. `tests/own_family.rs` does that in some 60 lines.

// Their macros panic where a stream is full or closed.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod attention;
pub mod calibrate;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod crossover;
mod error;
pub mod eval;
pub mod forward;
pub mod generate;
mod guard;
#[cfg(feature = "hub")]
pub mod hub;
pub mod inspect;
pub mod layers;
pub mod models;
mod overflow;
pub mod presets;
pub mod sampling;
pub mod session;
pub mod state;
pub mod stop;
pub mod text_model;
pub mod tokenizer;
pub mod tune;
pub mod verify;
pub mod weight;

/// The release of Burn that this crate is built with: its tensors and devices are those of the public functions.
pub use burn;
/// The attention layer that the models are built on.
pub use sparq_core as core;

pub use error::{Error, Result, shorten};
pub use overflow::{Overflow, OverflowPart};
pub use text_model::TextModel;
