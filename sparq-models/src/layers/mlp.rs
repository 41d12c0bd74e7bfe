//! The gated feed-forward layer of the Llama line.

use burn::tensor::{Tensor, activation::silu};

use super::Linear;
use crate::checkpoint::Loader;

/// Sizes of a [`GatedMlp`].
#[derive(Debug, Clone, Copy)]
pub struct GatedMlpConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the projections.
    pub intermediate: usize,
    /// Whether the projections have biases.
    pub bias: bool,
}

/// `down_proj(silu(gate_proj(x)) · up_proj(x))`.
#[derive(Debug, Clone)]
pub struct GatedMlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl GatedMlp {
    /// Reads the three projections below `name`.
    pub fn load(loader: &mut Loader<'_>, name: &str, config: &GatedMlpConfig) -> Self {
        let GatedMlpConfig { hidden, intermediate, bias } = *config;
        let mut linear = |part, shape| Linear::load(loader, &format!("{name}.{part}"), shape, bias);
        Self {
            gate_proj: linear("gate_proj", [intermediate, hidden]),
            up_proj: linear("up_proj", [intermediate, hidden]),
            down_proj: linear("down_proj", [hidden, intermediate]),
        }
    }

    /// `x: [tokens, hidden]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}
