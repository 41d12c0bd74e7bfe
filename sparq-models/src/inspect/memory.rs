//! The memory that a run takes on a device.

use burn::tensor::DType;
use serde::Serialize;

use super::Inspection;

/// Memory of a run in one number format, for one sequence. What a step computes on the way comes on
/// top and is small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Number format of weights and KV cache.
    pub dtype: &'static str,
    /// Longest sequence, prompt included.
    pub context_tokens: u64,
    /// Weights in that format; norms and biases in f32.
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
    /// Memory of a run with sequences of up to `context_tokens` tokens, weights and cache in `dtype`.
    ///
    /// Layers with a sliding window keep all tokens, like the others.
    pub fn memory(&self, dtype: DType, context_tokens: u64) -> Memory {
        let matrices = self.parameters - self.vector_parameters;
        let bytes = |elements: u64, dtype: DType| elements.saturating_mul(dtype.size() as u64);
        let weight_bytes = bytes(matrices, dtype) + bytes(self.vector_parameters, DType::F32);
        // Keys of one token in all layers; values take as much.
        let vector = self.sizes.attention_shape().zip(self.sizes.layers).map(|(shape, layers)| {
            let sizes = [layers, shape.kv_heads, shape.head_dim];
            sizes.into_iter().fold(1u64, |product, size| product.saturating_mul(size as u64))
        });
        let cache = |copies: u64, sum: bool| {
            vector.map(|vector| {
                let kv_bytes_per_token = bytes(vector.saturating_mul(copies), dtype);
                let running_sum_bytes = if sum { bytes(vector, DType::F32) } else { 0 };
                let cache_bytes =
                    kv_bytes_per_token.saturating_mul(context_tokens).saturating_add(running_sum_bytes);
                let total_bytes = weight_bytes.saturating_add(cache_bytes);
                CacheMemory { kv_bytes_per_token, running_sum_bytes, cache_bytes, total_bytes }
            })
        };
        Memory {
            dtype: dtype.name(),
            context_tokens,
            weight_bytes,
            dense: cache(2, false),
            sparq: cache(3, true),
        }
    }
}
