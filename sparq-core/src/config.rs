//! Shapes and hyper-parameters of the attention layer.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::k_t::KtFormat;

/// Heads and sizes of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionShape {
    /// Query heads `H`.
    pub heads: usize,
    /// Key and value heads `Hkv`; divides `heads`.
    pub kv_heads: usize,
    /// Components per head `d`.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Query heads per key and value head, `g` in the paper.
    pub fn group(&self) -> usize {
        self.heads.checked_div(self.kv_heads).unwrap_or(0)
    }

    /// Checks that no size is zero and that the query heads divide into groups.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] that names the field.
    pub fn validate(&self) -> Result<()> {
        let sizes = [("heads", self.heads), ("kv_heads", self.kv_heads), ("head_dim", self.head_dim)];
        for (field, value) in sizes {
            if value == 0 {
                return Err(invalid(field, value, "it must be at least 1".into()));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let reason = format!("it must divide heads = {}", self.heads);
            return Err(invalid("kv_heads", self.kv_heads, reason));
        }
        Ok(())
    }
}

/// The attention of one layer, as its model defines it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AttentionLayer {
    /// Heads and sizes.
    pub shape: AttentionShape,
    /// Sliding window: a token sees itself and the `window - 1` tokens before it. `None` for all.
    pub window: Option<usize>,
    /// Soft cap on the scaled logits, `cap · tanh(logit / cap)`, before the softmax.
    pub softcap: Option<f32>,
    /// What products of queries and keys are multiplied by; `1 / √head_dim` where `None`.
    #[serde(default)]
    pub scale: Option<f32>,
    /// Components of a value, and of an output; as many as a key has where `None`. No backend has kernels for
    /// values of another width: these run as definitions, and [`crate::ops::ran`] says so.
    #[serde(default)]
    pub value_dim: Option<usize>,
}

impl AttentionLayer {
    /// What products of queries and keys are multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| 1.0 / (self.shape.head_dim as f32).sqrt())
    }

    /// Components of a value.
    pub fn value_dim(&self) -> usize {
        self.value_dim.unwrap_or(self.shape.head_dim)
    }

    /// Checks the shape, and that window, cap, scale and the width of values are above zero.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] that names the field.
    pub fn validate(&self) -> Result<()> {
        self.shape.validate()?;
        for (field, value) in [("window", self.window), ("value_dim", self.value_dim)] {
            if value == Some(0) {
                return Err(invalid(field, 0, "it must be at least 1".into()));
            }
        }
        for (field, value) in [("softcap", self.softcap), ("scale", self.scale)] {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value <= 0.0) {
                return Err(invalid(field, value, "it must be a number above 0".into()));
            }
        }
        Ok(())
    }
}

impl From<AttentionShape> for AttentionLayer {
    /// A layer that sees every token, scales by `1 / √head_dim` and has no soft cap.
    fn from(shape: AttentionShape) -> Self {
        Self { shape, window: None, softcap: None, scale: None, value_dim: None }
    }
}

/// How the query heads of one KV head agree on the positions that all of them read.
///
/// The two published rules are the same for one query head per KV head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupScores {
    /// Sum of the approximate logits, each divided by its head's temperature τ: the rule of the
    /// authors' published results. It costs one dot product per position for the whole group.
    #[default]
    ScaledLogits,
    /// Sum of the approximate softmax scores ŝ (paper, appendix B).
    Softmax,
}

/// How the positions of step 2 are chosen from their scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopkRule {
    /// The best ones.
    #[default]
    Exact,
    /// The best two of each bucket, position `p` being in bucket `p mod n`: the authors' bucket top-k. `n`
    /// is half of the positions that are chosen, rounded up to a multiple of 16; where that gives too many,
    /// the best of these are kept. It takes a fixed few operations per position, whatever the scores. CPUs
    /// have kernels for it; other devices run it as Burn's operations.
    Buckets,
}

/// Hyper-parameters of SparQ attention.
///
/// Counting follows the paper's Algorithm 1: `top_k` positions are read in all, and the last
/// `local_window` positions (the current token is one of them) are always among them. The authors'
/// experiment code counts the current token apart: its `k` and `local_k` are `top_k - 1` and
/// `local_window - 1` here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparqConfig {
    /// `r`: components of the query, and so rows of the transposed key cache, that step 1 reads.
    pub rank: usize,
    /// `k`: positions that step 2 reads in full.
    pub top_k: usize,
    /// `l`: most recent positions that are always read; at most `top_k`.
    pub local_window: usize,
    /// Step 3: let the mean of all values stand in for the positions that were not read.
    pub mean_value: bool,
    /// How a group of query heads selects together.
    pub group_scores: GroupScores,
    /// Sequences shorter than this many tokens are attended densely. Sequences that `top_k`
    /// covers whole always are. A sliding window counts as the sequence where it is shorter.
    pub dense_below: usize,
    /// How the transposed keys of step 1 are stored.
    #[serde(default, alias = "index")] // its name in records of before
    pub kt_format: KtFormat,
    /// How positions are chosen from their scores.
    #[serde(default, alias = "choice")] // as above
    pub topk_rule: TopkRule,
}

impl SparqConfig {
    /// The smallest `top_k` that [`SparqConfig::from_compression_ratio`] picks by default: the
    /// authors kept 128 in their long-context runs, and quality falls quickly below 64.
    pub const MIN_TOP_K: usize = 128;

    /// A configuration with the paper's defaults: a quarter of the positions local, the mean value
    /// on for one query head per KV head and off for grouped queries, where it hurts.
    pub fn new(shape: &AttentionShape, rank: usize, top_k: usize) -> Self {
        Self {
            rank,
            top_k,
            local_window: (top_k / 4).max(1),
            mean_value: shape.group() == 1,
            group_scores: GroupScores::default(),
            dense_below: 0,
            kt_format: KtFormat::default(),
            topk_rule: TopkRule::default(),
        }
    }

    /// The configuration that reads about `1 / ratio` of what dense attention reads at `seq_len`
    /// tokens: `r = d / ratio` and `k = seq_len / (2 · ratio)`, rounded, `k` at least `min_top_k`
    /// (the rule of the authors' end-to-end benchmark).
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a ratio below 1 or not finite.
    pub fn from_compression_ratio(
        shape: &AttentionShape,
        ratio: f64,
        seq_len: usize,
        min_top_k: usize,
    ) -> Result<Self> {
        if !ratio.is_finite() || ratio < 1.0 {
            let reason = "it must be a number of at least 1".into();
            return Err(invalid("compression_ratio", ratio, reason));
        }
        let rank = (shape.head_dim as f64 / ratio).round() as usize;
        let top_k = (seq_len as f64 / (2.0 * ratio)).round() as usize;
        Ok(Self::new(shape, rank.max(1), top_k.max(min_top_k).max(1)))
    }

    /// Buckets that positions compete in, where they do: see [`TopkRule::Buckets`].
    pub(crate) fn buckets(&self) -> Option<usize> {
        match self.topk_rule {
            TopkRule::Exact => None,
            TopkRule::Buckets => {
                Some(self.top_k.saturating_sub(self.local_window).div_ceil(2).next_multiple_of(16))
            }
        }
    }

    /// Checks the values against each other and against `head_dim`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] that names the field and its range.
    pub fn validate(&self, head_dim: usize) -> Result<()> {
        if self.rank == 0 || self.rank > head_dim {
            let reason = format!("it must lie between 1 and head_dim = {head_dim}");
            return Err(invalid("rank", self.rank, reason));
        }
        if self.top_k == 0 {
            return Err(invalid("top_k", 0, "it must be at least 1".into()));
        }
        if self.local_window > self.top_k {
            let reason = format!("it must be at most top_k = {}", self.top_k);
            return Err(invalid("local_window", self.local_window, reason));
        }
        Ok(())
    }
}

fn invalid(field: &'static str, value: impl ToString, reason: String) -> Error {
    Error::InvalidConfig { field, value: value.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPED: AttentionShape = AttentionShape { heads: 32, kv_heads: 8, head_dim: 128 };

    #[test]
    fn a_ratio_of_eight_reads_an_eighth() {
        let config = SparqConfig::from_compression_ratio(&GROUPED, 8.0, 4096, 128).unwrap();
        assert_eq!((config.rank, config.top_k, config.local_window), (16, 256, 64));
        assert!(!config.mean_value, "off for grouped queries");
        let short = SparqConfig::from_compression_ratio(&GROUPED, 8.0, 512, 128).unwrap();
        assert_eq!(short.top_k, 128, "the stated minimum");
    }

    #[test]
    fn the_mean_value_is_on_without_groups() {
        let shape = AttentionShape { kv_heads: 32, ..GROUPED };
        assert!(SparqConfig::new(&shape, 32, 128).mean_value);
    }

    #[test]
    fn bad_values_are_named() {
        let good = SparqConfig::new(&GROUPED, 32, 128);
        assert_eq!(good.validate(128), Ok(()));
        let message = |config: SparqConfig| config.validate(128).unwrap_err().to_string();
        assert_eq!(
            message(SparqConfig { rank: 129, ..good }),
            "rank = 129 is out of range: it must lie between 1 and head_dim = 128"
        );
        assert!(message(SparqConfig { rank: 0, ..good }).starts_with("rank = 0"));
        assert!(message(SparqConfig { top_k: 0, ..good }).starts_with("top_k = 0"));
        assert!(message(SparqConfig { local_window: 129, ..good }).contains("top_k = 128"));
        for ratio in [0.5, f64::NAN, f64::INFINITY] {
            assert!(SparqConfig::from_compression_ratio(&GROUPED, ratio, 1024, 128).is_err());
        }
        let uneven = AttentionShape { kv_heads: 5, ..GROUPED };
        assert!(uneven.validate().unwrap_err().to_string().contains("kv_heads = 5"));
    }

    #[test]
    fn windows_and_caps_are_above_zero() {
        let layer = AttentionLayer { window: Some(1), softcap: Some(50.0), ..GROUPED.into() };
        assert_eq!(layer.validate(), Ok(()));
        let message = |layer: AttentionLayer| layer.validate().unwrap_err().to_string();
        assert!(message(AttentionLayer { window: Some(0), ..layer }).starts_with("window = 0"));
        assert!(message(AttentionLayer { value_dim: Some(0), ..layer }).starts_with("value_dim = 0"));
        assert_eq!(
            [layer.value_dim(), AttentionLayer { value_dim: Some(64), ..layer }.value_dim()],
            [128, 64]
        );
        assert!(message(AttentionLayer { softcap: Some(0.0), ..layer }).starts_with("softcap = 0"));
        assert!(message(AttentionLayer { softcap: Some(f32::NAN), ..layer }).starts_with("softcap = NaN"));
        assert!(message(AttentionLayer { scale: Some(-1.0), ..layer }).starts_with("scale = -1"));
        assert_eq!(AttentionLayer { scale: Some(0.5), ..layer }.scale(), 0.5);
        assert_eq!(layer.scale(), 1.0 / 128f32.sqrt());
    }
}
