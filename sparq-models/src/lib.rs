//! Hugging Face checkpoints as Burn models that decode with SparQ attention.
//!
//! A model folder becomes text in four steps, one module each:
//!
//! - [`checkpoint`] finds the files of the folder, reads the weights and loads them,
//!   naming every tensor that does not fit;
//! - [`config`] reads `config.json` and `generation_config.json`;
//! - [`tokenizer`] turns text into token ids, and ids into text piece by piece;
//! - [`sampling`] chooses the next token from the logits, and [`stop`] ends the text at a stop string.
//!
//! [`chat`] turns a conversation into a prompt, by the model's own template.
//!
//! [`eval`] compares decode methods on tasks. [`inspect`] says what a folder holds and what it needs
//! without loading it.
//!
//! ```no_run
//! use burn::tensor::{DType, Device};
//! use sparq_models::checkpoint::Checkpoint;
//!
//! # fn main() -> sparq_models::Result<()> {
//! let checkpoint = Checkpoint::open("path/to/model")?;
//! println!("{} in {}", checkpoint.architecture()?, checkpoint.stored_dtype().name());
//!
//! let mut progress = |loaded: u64, total: u64| eprintln!("{loaded} of {total} bytes");
//! let mut loader = checkpoint.loader(&Device::flex(), DType::F32, &mut progress)?;
//! let embedding = loader.tensor::<2>("model.embed_tokens.weight", [32000, 2048]);
//! loader.finish()?; // Every missing, unused or misshapen tensor is named here.
//! # let _ = embedding;
//! # Ok(())
//! # }
//! ```

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
pub mod tokenizer;
pub mod tune;
pub mod verify;

/// The attention layer that the models are built on.
pub use sparq_core as core;

pub use error::{Error, Result, shorten};
pub use overflow::{Overflow, OverflowPart};
