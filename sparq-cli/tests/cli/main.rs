//! The program as a user meets it.
#![allow(clippy::unwrap_used)] // In tests, helpers included.

mod bad_input;
mod bench;
mod chat;
mod common;
mod crossover;
mod docs;
mod doctor;
mod eval;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
mod loading;
mod memory;
mod methods;
#[cfg(unix)]
mod newcomer;
#[cfg(unix)]
mod outputs;
mod overflow;
mod template;
mod terminal;
mod tokenize;
mod tune;
mod verify;
