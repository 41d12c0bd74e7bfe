//! A linear layer.

use burn::tensor::{DType, Tensor};

use crate::{checkpoint::Loader, weight::LinearWeight};

/// `y = x · weightᵀ + bias`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, as checkpoints store it.
    weight: LinearWeight,
    /// `[out]`, f32.
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// Reads `{name}.weight: [outputs, inputs]`, and `{name}.bias: [outputs]` if there is to be one.
    pub fn load(loader: &mut Loader<'_>, name: &str, [outputs, inputs]: [usize; 2], bias: bool) -> Self {
        Self {
            weight: loader.linear_weight(&format!("{name}.weight"), [outputs, inputs]),
            bias: bias.then(|| loader.tensor_as(&format!("{name}.bias"), [outputs], DType::F32)),
        }
    }

    /// A layer without bias over a weight `[out, in]` that is there already (tied embeddings).
    pub fn from_weight(weight: Tensor<2>) -> Self {
        Self { weight: LinearWeight::Plain(weight), bias: None }
    }

    /// `x: [tokens, in]` to `[tokens, out]`, f32.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = self.weight.product(x);
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }
}
