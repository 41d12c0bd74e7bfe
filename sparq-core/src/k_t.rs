//! The transposed keys in few bits: scales per channel and block of positions, codes packed in words.

use burn::tensor::{DType, Int, Tensor};
use serde::{Deserialize, Serialize};

/// Positions that share the scales of a block.
pub const BLOCK: usize = 64;

/// How the transposed keys are stored. Step 1 of SparQ reads them; exact attention reads the keys
/// themselves, whatever this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KtFormat {
    /// As the keys are.
    #[default]
    Cache,
    /// Whole numbers from -127 to 127 times a scale.
    Int8,
    /// Whole numbers from -7 to 7 times a scale.
    Int4,
}

impl KtFormat {
    /// Bits per component; `None` for the dtype of the cache.
    pub fn bits(self) -> Option<usize> {
        match self {
            Self::Cache => None,
            Self::Int8 => Some(8),
            Self::Int4 => Some(4),
        }
    }

    /// Bytes of `elements` components and of their scales, where the cache is in `dtype`.
    pub fn bytes(self, elements: usize, dtype: DType) -> usize {
        match self.bits() {
            None => elements * dtype.size(),
            Some(bits) => elements * bits / 8 + elements * DType::F32.size() / BLOCK,
        }
    }
}

/// Bits of a code, from the number of words and of scales.
pub(crate) fn bits(words: usize, scales: usize) -> usize {
    words * 32 / (scales * BLOCK).max(1)
}

/// Transposed keys as codes of [`KtFormat::bits`] bits.
///
/// A code `c` stands for `c · scale`; the scale of a channel and a block of [`BLOCK`] positions is its
/// largest magnitude over the largest code. Codes are two's complement. Position `p` of a channel lies in
/// word `p / n`, the lowest bits first, where `n` codes fill a word.
#[derive(Debug, Clone)]
pub struct QuantizedKt {
    /// `[batch, kv_heads, head_dim, capacity / n]`, 32 bits each.
    pub words: Tensor<4, Int>,
    /// `[batch, kv_heads, head_dim, capacity / BLOCK]`, f32.
    pub scales: Tensor<4>,
}
