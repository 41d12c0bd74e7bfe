//! The attention block: projections and rotation around the layer's cache and decode method.

use burn::tensor::Tensor;
use sparq_core::{AppendPlan, AttentionShape, LayerState};

use super::{Linear, Rotation};
use crate::{checkpoint::Loader, error::Result};

/// Sizes of an [`Attention`] block.
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads and their size.
    pub shape: AttentionShape,
    /// Whether `q_proj`, `k_proj` and `v_proj` have biases.
    pub qkv_bias: bool,
    /// Whether `o_proj` has a bias.
    pub out_bias: bool,
}

/// Whether a step attends densely to a prompt or decodes one token with the chosen method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Any number of tokens, dense and causal.
    Prefill,
    /// One token per sequence, through the layer's decode method.
    Decode,
}

/// What all layers of one forward pass share.
#[derive(Debug, Clone)]
pub struct Step {
    /// Prefill or decode.
    pub phase: Phase,
    /// Where the new tokens go.
    pub plan: AppendPlan,
    /// Rotary embeddings of the new tokens.
    pub rotation: Rotation,
}

/// Self-attention with grouped queries and rotary embeddings.
#[derive(Debug, Clone)]
pub struct Attention {
    shape: AttentionShape,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

impl Attention {
    /// Reads the four projections below `name`.
    pub fn load(loader: &mut Loader<'_>, name: &str, config: &AttentionConfig) -> Self {
        let AttentionShape { heads, kv_heads, head_dim } = config.shape;
        let (queries, keys, hidden) = (heads * head_dim, kv_heads * head_dim, config.hidden);
        let mut linear = |part, shape, bias| Linear::load(loader, &format!("{name}.{part}"), shape, bias);
        Self {
            shape: config.shape,
            q_proj: linear("q_proj", [queries, hidden], config.qkv_bias),
            k_proj: linear("k_proj", [keys, hidden], config.qkv_bias),
            v_proj: linear("v_proj", [keys, hidden], config.qkv_bias),
            o_proj: linear("o_proj", [hidden, queries], config.out_bias),
        }
    }

    /// `x: [batch · width, hidden]` to the same shape; the new keys and values stay in `state`.
    ///
    /// # Errors
    /// [`crate::Error::Core`] where the cache is full or does not fit.
    pub fn forward(&self, x: Tensor<2>, state: &mut LayerState, step: &Step) -> Result<Tensor<2>> {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let (batch, width) = (step.plan.as_slice().len(), step.plan.width());
        // `[batch · width, heads · head_dim]` to `[batch, heads, width, head_dim]`
        let split = |x: Tensor<2>, heads| x.reshape([batch, width, heads, head_dim]).swap_dims(1, 2);
        let q = step.rotation.apply(split(self.q_proj.forward(x.clone()), heads));
        let k = step.rotation.apply(split(self.k_proj.forward(x.clone()), kv_heads));
        let v = split(self.v_proj.forward(x), kv_heads);
        let output = match step.phase {
            Phase::Prefill => state.prefill_planned(q, k, v, &step.plan)?,
            Phase::Decode => state.decode_planned(q, k, v, &step.plan)?.output,
        };
        let output = output.swap_dims(1, 2).reshape([batch * width, heads * head_dim]);
        Ok(self.o_proj.forward(output))
    }
}
