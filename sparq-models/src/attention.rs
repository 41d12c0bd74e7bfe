//! Which attention to decode with, as a user states it: sizes that depend on the model and on the
//! length of the run are filled in later.

mod profile;
mod sizes;
mod spec;

use sparq_core::{AttentionLayer, AttentionShape, Choice, GroupScores, IndexDtype, Method, SparqConfig};

use crate::error::{Error, Result};

pub use profile::{LayerMethod, Profile};
pub use spec::{MethodName, MethodSpec};

/// The compression ratio where none is stated.
pub const COMPRESSION: f64 = 8.0;

/// The decode attention of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Attention {
    /// Read the whole cache.
    Dense,
    /// SparQ attention.
    Sparq(SparqOptions),
    /// Any method, sized by its notation.
    Method(MethodSpec),
    /// Dense attention in the first layers, another in the rest.
    DenseFirst {
        /// Layers that are attended densely.
        layers: usize,
        /// The others'.
        rest: Box<Attention>,
    },
    /// Layer by layer.
    Profile(Profile),
}

/// How much SparQ attention reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SparqSize {
    /// About one part in `ratio` of what dense attention reads at the end of the run, but at least
    /// `min_top_k` positions: see [`SparqConfig::from_compression_ratio`].
    Ratio {
        /// Dense bytes over SparQ bytes.
        ratio: f64,
        /// The smallest `top_k`.
        min_top_k: usize,
    },
    /// Rank and top-k as given.
    Explicit {
        /// `r`: components of the query that step 1 uses.
        rank: usize,
        /// `k`: positions that step 2 reads.
        top_k: usize,
    },
}

/// SparQ attention as a user states it; `None` takes the default for the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparqOptions {
    /// How much to read.
    pub size: SparqSize,
    /// `l`: recent positions that are always read; a quarter of `k` by default.
    pub local_window: Option<usize>,
    /// Step 3; off by default for models with grouped queries.
    pub mean_value: Option<bool>,
    /// How a group of query heads selects together.
    pub group_scores: GroupScores,
    /// Sequences shorter than this many tokens are attended densely.
    pub dense_below: usize,
    /// How the transposed keys are stored.
    pub index: IndexDtype,
    /// How positions are chosen from their scores.
    pub choice: Choice,
}

impl Default for SparqOptions {
    /// One part in eight.
    fn default() -> Self {
        Self {
            size: SparqSize::Ratio { ratio: 8.0, min_top_k: SparqConfig::MIN_TOP_K },
            local_window: None,
            mean_value: None,
            group_scores: GroupScores::default(),
            dense_below: 0,
            index: IndexDtype::default(),
            choice: Choice::default(),
        }
    }
}

impl SparqOptions {
    /// The configuration for layers of this shape and runs up to `seq_len` tokens.
    ///
    /// # Errors
    /// [`crate::Error::Core`] for values out of range.
    pub fn resolve(&self, shape: &AttentionShape, seq_len: usize) -> Result<SparqConfig> {
        let mut config = match self.size {
            SparqSize::Ratio { ratio, min_top_k } => {
                SparqConfig::from_compression_ratio(shape, ratio, seq_len, min_top_k)?
            }
            SparqSize::Explicit { rank, top_k } => SparqConfig::new(shape, rank, top_k),
        };
        config.local_window = self.local_window.unwrap_or(config.local_window);
        config.mean_value = self.mean_value.unwrap_or(config.mean_value);
        config.group_scores = self.group_scores;
        config.dense_below = self.dense_below;
        config.index = self.index;
        config.choice = self.choice;
        config.validate(shape.head_dim)?;
        Ok(config)
    }
}

impl Attention {
    /// The decode methods for a model's layers, in runs up to `seq_len` tokens. A sliding window counts
    /// as the length where it is shorter.
    ///
    /// # Errors
    /// [`Error::Core`] for values out of range, [`Error::Compression`] for a ratio that a method cannot
    /// reach, [`Error::ProfileLayers`] for the profile of another model.
    pub fn methods(&self, layers: &[AttentionLayer], seq_len: usize) -> Result<Vec<Method>> {
        match self {
            Self::Profile(profile) => profile.methods(layers, seq_len),
            Self::DenseFirst { layers: dense, rest } => {
                let mut methods = rest.methods(layers, seq_len)?;
                methods.iter_mut().take(*dense).for_each(|method| *method = Method::Dense);
                Ok(methods)
            }
            _ => layers.iter().map(|layer| self.resolve(layer, seq_len)).collect(),
        }
    }

    /// The decode method for a layer that has no place of its own in a map of layers, in runs up to
    /// `seq_len` tokens.
    ///
    /// # Errors
    /// As [`Attention::methods`]; [`Error::ProfileLayers`] for any profile.
    pub fn resolve(&self, layer: &AttentionLayer, seq_len: usize) -> Result<Method> {
        let live = layer.window.map_or(seq_len, |window| window.min(seq_len));
        Ok(match self {
            Self::Dense => Method::Dense,
            Self::Sparq(options) => Method::Sparq(options.resolve(&layer.shape, live)?),
            Self::Method(spec) => spec.resolve(layer, seq_len, spec.name.default_compression())?,
            Self::DenseFirst { rest, .. } => rest.resolve(layer, seq_len)?,
            Self::Profile(profile) => {
                return Err(Error::ProfileLayers { profile: profile.layers.len(), model: 1 });
            }
        })
    }
}

#[cfg(test)]
mod spec_tests;

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPED: AttentionShape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };

    #[test]
    fn what_is_stated_wins_over_the_defaults() {
        let stated = SparqOptions {
            size: SparqSize::Explicit { rank: 16, top_k: 40 },
            local_window: Some(3),
            mean_value: Some(true),
            dense_below: 512,
            ..SparqOptions::default()
        };
        let config = stated.resolve(&GROUPED, 9999).unwrap();
        assert_eq!((config.rank, config.top_k, config.local_window), (16, 40, 3));
        assert!(config.mean_value && config.dense_below == 512);
        let config = SparqOptions::default().resolve(&GROUPED, 4096).unwrap();
        assert_eq!((config.rank, config.top_k, config.local_window, config.mean_value), (8, 256, 64, false));
    }

    #[test]
    fn a_ratio_is_taken_of_the_window() {
        let top_k = |window| {
            let layer = AttentionLayer { window, ..GROUPED.into() };
            match Attention::Sparq(SparqOptions::default()).resolve(&layer, 16384).unwrap() {
                Method::Sparq(config) => config.top_k,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([top_k(None), top_k(Some(4096)), top_k(Some(99999))], [1024, 256, 1024]);
    }

    #[test]
    fn a_rank_above_head_dim_is_refused() {
        let size = SparqSize::Explicit { rank: 65, top_k: 40 };
        let error = SparqOptions { size, ..SparqOptions::default() }.resolve(&GROUPED, 1).unwrap_err();
        assert!(error.to_string().contains("rank = 65"), "{error}");
    }
}
