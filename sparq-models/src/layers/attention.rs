//! The attention block: projections and rotation around the layer's cache and decode method.

use burn::tensor::Tensor;
use sparq_core::{AttentionLayer, LayerState};

use super::{Linear, Norm, Projections, Step, projections::Qkv};
use crate::{checkpoint::Loader, error::Result};

/// Sizes and variants of an [`Attention`] block.
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads and their size, sliding window, soft cap, scale.
    pub layer: AttentionLayer,
    /// Layout and names of the projections.
    pub projections: Projections,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
    /// Norms of each head's queries and keys, before the rotation.
    pub qk_norm: Option<QkNorm>,
    /// Which of the model's rotary embeddings the layer uses: an index into [`Step::rotations`].
    pub rope: usize,
}

impl AttentionConfig {
    /// Llama's block: separate projections without biases, no norms, the usual scale, one rotary
    /// embedding.
    pub fn new(hidden: usize, layer: impl Into<AttentionLayer>) -> Self {
        Self {
            hidden,
            layer: layer.into(),
            projections: Projections::Separate,
            qkv_bias: false,
            out_bias: false,
            qk_norm: None,
            rope: 0,
        }
    }
}

/// Norms `q_norm` and `k_norm` over the components of a head.
#[derive(Debug, Clone, Copy)]
pub struct QkNorm {
    /// What the norm adds to the mean square.
    pub epsilon: f64,
    /// Whether it multiplies by `1 + weight`, as in Gemma.
    pub one_plus: bool,
}

/// Self-attention with grouped queries and rotary embeddings.
#[derive(Debug, Clone)]
pub struct Attention {
    layer: AttentionLayer,
    qkv: Qkv,
    qk_norm: Option<[Norm; 2]>,
    rope: usize,
    o_proj: Linear,
}

impl Attention {
    /// Reads the projections and norms below `name`.
    pub fn load(loader: &mut Loader<'_>, name: &str, config: &AttentionConfig) -> Self {
        let shape = config.layer.shape;
        let mut norm = |part, norm: QkNorm| {
            let load = if norm.one_plus { Norm::rms_one_plus } else { Norm::rms };
            load(loader, &format!("{name}.{part}"), shape.head_dim, norm.epsilon)
        };
        let qk_norm = config.qk_norm.map(|config| [norm("q_norm", config), norm("k_norm", config)]);
        let output = format!("{name}.{}", config.projections.output());
        let output_shape = [config.hidden, shape.heads * shape.head_dim];
        Self {
            layer: config.layer,
            qkv: Qkv::load(loader, name, config),
            qk_norm,
            rope: config.rope,
            o_proj: Linear::load(loader, &output, output_shape, config.out_bias),
        }
    }

    /// Heads and their size, sliding window, soft cap, scale.
    pub fn layer(&self) -> AttentionLayer {
        self.layer
    }

    /// `x: [tokens, hidden]` to the same shape; the new keys and values stay in `state`.
    ///
    /// # Errors
    /// [`crate::Error::Core`] where the cache is full or does not fit.
    pub fn forward(&self, x: Tensor<2>, state: &mut LayerState, step: &Step) -> Result<Tensor<2>> {
        let [mut q, mut k, v] = self.qkv.forward(x, self.layer.shape);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            (q, k) = (q_norm.forward(q), k_norm.forward(k));
        }
        let rotation = &step.rotations[self.rope];
        let output = step.attend([rotation.apply(q), rotation.apply(k), v], state)?;
        Ok(self.o_proj.forward(output))
    }
}
