//! Which attention to decode with, as a user states it: sizes that depend on the model and on the
//! length of the run are filled in later.

mod clash;
mod keys;
mod profile;
mod sizes;
mod spec;
mod value;

use std::str::FromStr;

use sparq_core::{AttentionLayer, Method, MethodKind};

use crate::error::{Error, Result};

pub use clash::{CLASHES, Clash, RATIO};
pub use keys::{KEYS, SpecKey, SpecKeys, key};
pub use profile::{LayerMethod, Profile};
pub use spec::{MethodSpec, keys_of, ratio};
pub use value::DenseBelow;

/// The compression ratio where none is stated.
pub const COMPRESSION: f64 = 8.0;

/// Which method decodes which layer.
#[derive(Debug, Clone, PartialEq)]
pub enum AttentionPlan {
    /// One method, behind layers that are attended densely.
    Method {
        /// The method.
        spec: MethodSpec,
        /// So many layers, the first ones, are dense.
        dense_layers: usize,
    },
    /// Layer by layer.
    Profile(Profile),
}

impl Default for AttentionPlan {
    /// SparQ attention in all layers, one part in [`COMPRESSION`].
    fn default() -> Self {
        MethodKind::Sparq.into()
    }
}

impl From<MethodSpec> for AttentionPlan {
    /// The method in all layers.
    fn from(spec: MethodSpec) -> Self {
        Self::Method { spec, dense_layers: 0 }
    }
}

impl From<MethodKind> for AttentionPlan {
    /// The method in all layers.
    fn from(kind: MethodKind) -> Self {
        MethodSpec::from(kind).into()
    }
}

impl FromStr for AttentionPlan {
    type Err = Error;

    /// The method of a notation in all layers.
    fn from_str(text: &str) -> Result<Self> {
        Ok(MethodSpec::parse(text)?.into())
    }
}

impl AttentionPlan {
    /// The decode methods for a model's layers, in runs up to `seq_len` tokens. A sliding window counts
    /// as the length where it is shorter.
    ///
    /// # Errors
    /// As [`MethodSpec::resolve`]; [`Error::ProfileLayers`] for the profile of another model.
    pub fn methods(&self, layers: &[AttentionLayer], seq_len: usize) -> Result<Vec<Method>> {
        match self {
            Self::Profile(profile) => profile.methods(layers, seq_len),
            Self::Method { spec, dense_layers } => {
                let method = |(number, layer)| match number < *dense_layers {
                    true => Ok(Method::Dense),
                    false => spec.resolve(layer, seq_len),
                };
                layers.iter().enumerate().map(method).collect()
            }
        }
    }

    /// Whether it is dense attention in all layers, whatever the model.
    pub fn is_dense(&self) -> bool {
        matches!(self, Self::Method { spec, .. } if spec.kind == MethodKind::Dense)
    }
}

/// The layer that sees the most, the last of several: its method stands for those of all layers.
pub fn widest(layers: &[AttentionLayer]) -> Option<usize> {
    (0..layers.len()).max_by_key(|&number| layers[number].window.unwrap_or(usize::MAX))
}

#[cfg(test)]
mod spec_tests;
