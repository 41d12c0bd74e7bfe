//! Weights of linear layers, in the formats that they are held in.

use burn::tensor::Tensor;
use sparq_core::{ops, weight::QuantizedWeight};

/// How the weights of linear layers are held. Norms, biases and embeddings keep the model's dtype, and so
/// does an output layer that is tied to the embeddings: they are one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightFormat {
    /// In the dtype of the model.
    #[default]
    Dtype,
    /// In eight bits with a scale per output, rounded while they are loaded.
    Int8,
}

/// The weight of a linear layer, `[outputs, inputs]`.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // A handle to a tensor grows with the backends compiled in.
pub enum LinearWeight {
    /// In the dtype of the model.
    Plain(Tensor<2>),
    /// In eight bits.
    Int8(Box<QuantizedWeight>),
}

impl LinearWeight {
    /// `x · weightᵀ` for `x: [tokens, inputs]` in f32: `[tokens, outputs]`, f32.
    pub fn product(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Plain(weight) => ops::linear(x, weight.clone()),
            Self::Int8(weight) => ops::linear_quantized(x, (**weight).clone()),
        }
    }
}
