//! From an error to the next step.

use std::{error::Error, fmt};

/// An error of this program itself that knows the next step.
#[derive(Debug)]
pub(crate) struct Advice {
    message: String,
    hint: String,
}

impl Advice {
    /// What is wrong, and what to do about it.
    pub(crate) fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: hint.into() }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Advice {}

/// What the user can do about an error, where one of its causes knows.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<Advice>().map(|advice| advice.hint.clone());
        let of_models = || cause.downcast_ref::<sparq_models::Error>().and_then(|error| error.hint());
        let of_core = || cause.downcast_ref::<sparq_core::Error>().and_then(|error| error.hint());
        own.or_else(of_models).or_else(of_core)
    })
}
