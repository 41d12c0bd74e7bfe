//! What tells one method from another in the rows of a benchmark.

use serde::Serialize;
use sparq_models::{
    attention::MethodSpec,
    core::{KtFormat, Method, MethodKind, TopkRule},
};

/// Settings of a method; of a profile, which has several, nothing.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct MethodSettings {
    /// With all sizes, as `--attention` takes it.
    method: Option<String>,
    sparq_r: Option<usize>,
    sparq_k: Option<usize>,
    /// How the transposed keys are stored.
    sparq_index: Option<KtFormat>,
    /// How positions are chosen.
    sparq_choice: Option<TopkRule>,
}

impl MethodSettings {
    pub(super) fn of(method: &Method) -> Self {
        let spec = MethodSpec::from(method);
        let method = Some(spec.to_string());
        match spec.kind {
            MethodKind::Sparq => Self {
                method,
                sparq_r: spec.keys.rank,
                sparq_k: spec.keys.top_k,
                sparq_index: Some(spec.keys.kt_format.unwrap_or_default()),
                sparq_choice: Some(spec.keys.topk.unwrap_or_default()),
            },
            _ => Self { method, ..Self::default() },
        }
    }

    /// The method in a table; `name` where there are several.
    pub(super) fn described(&self, name: &str) -> String {
        self.method.as_deref().unwrap_or(name).to_owned()
    }
}
