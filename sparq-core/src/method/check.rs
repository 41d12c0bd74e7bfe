//! Checks of hyper-parameters.

use crate::error::{Error, Result};

/// Refuses a value for the reason given.
pub(super) fn refuse<T>(field: &'static str, value: impl ToString, reason: String) -> Result<T> {
    Err(Error::InvalidConfig { field, value: value.to_string(), reason })
}

/// Refuses zero.
pub(super) fn at_least_one(field: &'static str, value: usize) -> Result<()> {
    match value {
        0 => refuse(field, 0, "it must be at least 1".into()),
        _ => Ok(()),
    }
}

/// Refuses a window that is empty or longer than `top_k`.
pub(super) fn local_window(local_window: usize, top_k: usize) -> Result<()> {
    at_least_one("top_k", top_k)?;
    if local_window == 0 || local_window > top_k {
        let reason = format!("it must lie between 1, the current token, and top_k = {top_k}");
        return refuse("local_window", local_window, reason);
    }
    Ok(())
}
