//! The program as a user meets it.
#![allow(clippy::unwrap_used)] // In tests, helpers included.

mod bad_input;
mod bench;
mod chat;
mod common;
mod docs;
mod doctor;
mod eval;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
mod loading;
mod methods;
mod tune;
mod verify;
