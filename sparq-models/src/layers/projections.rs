//! The projections to queries, keys and values, as checkpoints lay them out.

use burn::tensor::Tensor;
use sparq_core::AttentionShape;

use super::{AttentionConfig, Linear};
use crate::checkpoint::Loader;

/// How a checkpoint lays out the four projections of attention, and what it calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projections {
    /// `q_proj`, `k_proj`, `v_proj`; `o_proj`.
    Separate,
    /// `qkv_proj`, rows of all queries, then all keys, then all values; `o_proj`.
    Fused,
    /// `query_key_value`, rows `[heads, (query, key, value), head_dim]`; `dense`. Without groups.
    FusedPerHead,
}

impl Projections {
    /// Name of the output projection.
    pub(super) fn output(self) -> &'static str {
        match self {
            Self::Separate | Self::Fused => "o_proj",
            Self::FusedPerHead => "dense",
        }
    }
}

/// The projections to queries, keys and values. A fused weight is read once per step, and its output
/// is sliced.
#[derive(Debug, Clone)]
pub(super) enum Qkv {
    /// `q_proj`, `k_proj`, `v_proj`.
    Separate(Box<[Linear; 3]>),
    Fused(Linear),
    FusedPerHead(Linear),
}

impl Qkv {
    /// Reads the projections below `name`.
    pub(super) fn load(loader: &mut Loader<'_>, name: &str, config: &AttentionConfig) -> Self {
        let AttentionShape { heads, kv_heads, head_dim } = config.layer.shape;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let mut linear = |part: &str, rows| {
            Linear::load(loader, &format!("{name}.{part}"), [rows, config.hidden], config.qkv_bias)
        };
        match config.projections {
            Projections::Separate => Self::Separate(Box::new([
                linear("q_proj", queries),
                linear("k_proj", keys),
                linear("v_proj", keys),
            ])),
            Projections::Fused => Self::Fused(linear("qkv_proj", queries + 2 * keys)),
            Projections::FusedPerHead => Self::FusedPerHead(linear("query_key_value", 3 * queries)),
        }
    }

    /// `x: [tokens, hidden]` to queries, keys and values `[tokens, heads, head_dim]`.
    pub(super) fn forward(&self, x: Tensor<2>, shape: AttentionShape) -> [Tensor<3>; 3] {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let [tokens, _] = x.dims();
        let split = |x: Tensor<2>, heads| x.reshape([tokens, heads, head_dim]);
        match self {
            Self::Separate(linears) => {
                let [q_proj, k_proj, v_proj] = linears.as_ref();
                [
                    split(q_proj.forward(x.clone()), heads),
                    split(k_proj.forward(x.clone()), kv_heads),
                    split(v_proj.forward(x), kv_heads),
                ]
            }
            Self::Fused(linear) => {
                let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
                let all = linear.forward(x);
                let part = |start, count| all.clone().narrow(1, start, count);
                [
                    split(part(0, queries), heads),
                    split(part(queries, keys), kv_heads),
                    split(part(queries + keys, keys), kv_heads),
                ]
            }
            Self::FusedPerHead(linear) => {
                let all = linear.forward(x).reshape([tokens, heads, 3 * head_dim]);
                [0, 1, 2].map(|i| all.clone().narrow(2, i * head_dim, head_dim))
            }
        }
    }
}
