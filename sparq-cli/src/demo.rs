//! The small model inside the program: see `demo/README.md` for what it is and how it was trained.

use sparq_models::checkpoint::{Checkpoint, StaticFiles};

/// Smallest top-k for this model: its heads are half as wide and its contexts short, so it takes
/// half of what is safe for large models.
pub(crate) const MIN_TOP_K: usize = 64;

/// The embedded checkpoint.
pub(crate) fn checkpoint() -> sparq_models::Result<Checkpoint> {
    Checkpoint::from_static(StaticFiles {
        config: include_bytes!("../demo/config.json"),
        generation_config: Some(include_bytes!("../demo/generation_config.json")),
        tokenizer: Some(include_bytes!("../demo/tokenizer.json")),
        weights: include_bytes!("../demo/model.safetensors"),
    })
}
