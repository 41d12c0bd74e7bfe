//! Root mean square normalisation.

use burn::tensor::{DType, Tensor};

use crate::checkpoint::Loader;

/// `x / √(mean(x²) + ε) · weight`, over the last axis, in f32.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[hidden]`, f32.
    weight: Tensor<1>,
    epsilon: f64,
}

impl RmsNorm {
    /// Reads `{name}.weight: [hidden]`.
    pub fn load(loader: &mut Loader<'_>, name: &str, hidden: usize, epsilon: f64) -> Self {
        Self { weight: loader.tensor_as(&format!("{name}.weight"), [hidden], DType::F32), epsilon }
    }

    /// `x: [tokens, hidden]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mean_square = x.clone().square().mean_dim(1);
        let scale = (mean_square + self.epsilon).sqrt().recip();
        x * scale * self.weight.clone().unsqueeze()
    }
}
