//! SparQ attention on [Burn](https://burn.dev): decode steps that read part of the KV cache.
//!
//! A decode step of dense attention reads every cached key and value. SparQ attention
//! (Ribar et al., ICML 2024, arXiv 2312.04985) reads `r` of the `d` components of every key,
//! from a transposed copy of the key cache, picks the `k` positions that score highest, and runs
//! exact attention on those alone. A running mean of the values may stand in for the rest.
//!
//! ```text
//!  q, k, v of the new tokens
//!     │
//!     ├── LayerCache::append      k, k_t (k transposed), v, running sum of v: O(d) per token
//!     │
//!     └── LayerState::prefill     dense and causal, in chunks
//!         LayerState::decode      one query per sequence, through the chosen DecodeMethod
//!                │
//!                └── ops::SparqOps     one extension trait over all backends:
//!                       default body = the oracle (plain Burn ops), overrides = kernels
//! ```
//!
//! # Example
//!
//! ```
//! use burn::tensor::{DType, Device, Distribution, Tensor};
//! use sparq_core::{AttentionShape, CacheConfig, LayerState, Method, NewTokens, SparqConfig};
//!
//! # fn main() -> Result<(), sparq_core::Error> {
//! let device = Device::flex();
//! let shape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };
//! let method = Method::Sparq(SparqConfig::new(&shape, 16, 32));
//! let cache = CacheConfig { layer: shape.into(), batch: 1, max_len: 1024, dtype: DType::F32 };
//! let mut layer = LayerState::new(&cache, &method, &device)?;
//!
//! let random = |heads, tokens| Tensor::<4>::random([1, heads, tokens, 64], Distribution::Default, &device);
//! // A prompt of 100 tokens: dense and causal.
//! layer.prefill(random(8, 100), random(2, 100), random(2, 100), &NewTokens::all(1, 100))?;
//! // One more token: SparQ reads 16 of 64 key components and 32 of 101 positions.
//! let output = layer.decode(random(8, 1), random(2, 1), random(2, 1))?;
//! assert_eq!(output.dims(), [1, 8, 1, 64]);
//! assert!(layer.traffic().ratio() < 0.6);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/your_own_model.rs` puts this layer into a Burn module with projections and rotary embeddings.
//!
//! # In a program of your own
//!
//! - Use [`burn`] from here: this crate is built with one exact release of it.
//! - Queries, keys and values may have any float dtype; they are cast to f32. Outputs are f32.
//! - Do not keep a tensor that [`LayerCache`] hands out across an append. A second handle turns the write in place into
//!   a copy of the whole cache.
//! - On Linux, large pages make steps about a fifth faster: `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`.
//! - On GPUs, use an allocator that expects memory to be freed by other threads, such as mimalloc.
//! - [`ops`] and its submodules are for backends and tests; their signatures may change in any release.

// In a build without any backend nothing is dispatched: the operations are there for one of the caller's own.
#![cfg_attr(
    not(any(feature = "flex", feature = "ndarray", feature = "libtorch", feature = "cube")),
    allow(unused, unreachable_code)
)]
// Their macros panic where a stream is full or closed.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod cache;
pub mod config;
pub mod device;
pub mod error;
pub mod k_t;
pub mod layer;
pub mod method;
pub mod ops;
pub mod sequences;
pub mod spans;
pub mod transfer;
pub mod weight;

/// The release of Burn that this crate is built with: its tensors and devices are those of the public functions.
pub use burn;

pub use cache::{CacheConfig, CachedSequence, LayerCache};
pub use config::{AttentionLayer, AttentionShape, GroupScores, SparqConfig, TopkRule};
pub use error::{Error, Result};
pub use k_t::KtFormat;
pub use layer::{LayerMark, LayerState, SequenceMark};
pub use method::{
    DecodeMethod, Decoded, DoubleSparsityConfig, H2oConfig, LocalConfig, Method, MethodKind, Operation,
    PromptChunk, QuestConfig, Selection, SparqMassConfig, TopkConfig,
};
pub use sequences::{DecodedBatch, DecodedGroup, Sequences};
pub use spans::{AppendPlan, NewTokens, Place, Span, Spans};
pub use transfer::{Traffic, Transfer};
