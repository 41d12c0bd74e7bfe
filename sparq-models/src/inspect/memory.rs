//! The memory that a run takes on a device.

use burn::tensor::DType;
use serde::Serialize;
use sparq_core::KtFormat;

use super::Inspection;
use crate::weight::WeightFormat;

/// The number formats of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// Of weights and KV cache.
    pub dtype: DType,
    /// Of the weights of linear layers.
    pub weights: WeightFormat,
    /// Of the transposed keys that SparQ chooses by.
    pub k_t: KtFormat,
}

impl From<DType> for Formats {
    /// Everything in `dtype`.
    fn from(dtype: DType) -> Self {
        Self { dtype, weights: WeightFormat::Dtype, k_t: KtFormat::Cache }
    }
}

/// Memory of a run in one number format, for one sequence. What a step computes on the way comes on
/// top and is small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Number format of weights and KV cache.
    pub dtype: &'static str,
    /// Longest sequence, prompt included.
    pub context_tokens: u64,
    /// Format of the weights of linear layers, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<&'static str>,
    /// Form of the transposed keys, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k_t: Option<KtFormat>,
    /// Weights in these formats; norms and biases in f32.
    pub weight_bytes: u64,
    /// With dense attention; absent where the configuration does not state the sizes of a cache.
    pub dense: Option<CacheMemory>,
    /// With SparQ attention, which keeps the keys twice and a running sum of the values.
    pub sparq: Option<CacheMemory>,
}

/// Memory of a KV cache, and all together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheMemory {
    /// What every token adds, over all layers.
    pub kv_bytes_per_token: u64,
    /// The running sums of values, whatever the length.
    pub running_sum_bytes: u64,
    /// The cache of the longest sequence.
    pub cache_bytes: u64,
    /// Weights and cache.
    pub total_bytes: u64,
}

impl Inspection {
    /// Memory of a run with sequences of up to `context_tokens` tokens.
    ///
    /// Layers with a sliding window keep all tokens, like the others.
    pub fn memory(&self, formats: impl Into<Formats>, context_tokens: u64) -> Memory {
        let Formats { dtype, weights, k_t } = formats.into();
        let matrices = self.parameters - self.vector_parameters;
        let bytes = |elements: u64, dtype: DType| elements.saturating_mul(dtype.size() as u64);
        let matrix_bytes = match weights {
            WeightFormat::Dtype => bytes(matrices, dtype),
            WeightFormat::Int8 => {
                let scales = bytes(self.linear_outputs, DType::F32);
                self.linear_parameters + scales + bytes(matrices - self.linear_parameters, dtype)
            }
        };
        let weight_bytes = matrix_bytes + bytes(self.vector_parameters, DType::F32);
        // Keys of one token in all layers; values take as much.
        let vector = self.sizes.attention_shape().zip(self.sizes.layers).map(|(shape, layers)| {
            let sizes = [layers, shape.kv_heads, shape.head_dim];
            sizes.into_iter().fold(1u64, |product, size| product.saturating_mul(size as u64))
        });
        let cache = |is_sparq: bool| {
            vector.map(|vector| {
                let rows = bytes(vector.saturating_mul(2), dtype);
                let copy = if is_sparq { k_t.bytes(vector as usize, dtype) as u64 } else { 0 };
                let kv_bytes_per_token = rows.saturating_add(copy);
                let running_sum_bytes = if is_sparq { bytes(vector, DType::F32) } else { 0 };
                let cache_bytes =
                    kv_bytes_per_token.saturating_mul(context_tokens).saturating_add(running_sum_bytes);
                let total_bytes = weight_bytes.saturating_add(cache_bytes);
                CacheMemory { kv_bytes_per_token, running_sum_bytes, cache_bytes, total_bytes }
            })
        };
        Memory {
            dtype: dtype.name(),
            context_tokens,
            weights: (weights == WeightFormat::Int8).then_some("int8"),
            k_t: (k_t != KtFormat::Cache).then_some(k_t),
            weight_bytes,
            dense: cache(false),
            sparq: cache(true),
        }
    }
}
