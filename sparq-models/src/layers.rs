//! Layers that the model families are put together from.
//!
//! Hidden states are `[tokens, hidden]` in f32, the sequences of a batch one after the other;
//! weights keep the dtype that they were loaded in.

mod activation;
mod attention;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod projections;
mod rope;
mod step;

pub use attention::{Attention, AttentionConfig, QkNorm};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::{GatedMlp, GatedMlpConfig, Mlp, MlpConfig};
pub use norm::Norm;
pub use projections::Projections;
pub use rope::{Rope, Rotation};
pub use step::{Phase, Step, StepPart};
