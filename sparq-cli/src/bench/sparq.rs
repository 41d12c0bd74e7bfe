//! What tells one SparQ from another in the rows of a benchmark.

use serde::Serialize;
use sparq_models::core::{Choice, IndexDtype, Method};

/// Settings of a method that is SparQ; of another one nothing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct SparqSettings {
    sparq_r: Option<usize>,
    sparq_k: Option<usize>,
    /// How the transposed keys are stored.
    sparq_index: Option<IndexDtype>,
    /// How positions are chosen.
    sparq_choice: Option<Choice>,
}

impl SparqSettings {
    pub(super) fn of(method: &Method) -> Self {
        match method {
            Method::Sparq(config) => Self {
                sparq_r: Some(config.rank),
                sparq_k: Some(config.top_k),
                sparq_index: Some(config.index),
                sparq_choice: Some(config.choice),
            },
            _ => Self::default(),
        }
    }

    /// The method in a table, with its settings.
    pub(super) fn described(self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some((rank, top_k)) = self.sparq_r.zip(self.sparq_k) {
            text += &format!(" r={rank} k={top_k}");
        }
        if let Some(bits) = self.sparq_index.and_then(IndexDtype::bits) {
            text += &format!(" int{bits}");
        }
        if self.sparq_choice == Some(Choice::Buckets) {
            text += " buckets";
        }
        text
    }
}
