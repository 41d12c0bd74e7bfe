//! Activation functions.

use burn::tensor::{
    Tensor,
    activation::{gelu, gelu_approximate, silu},
};

use crate::config::Activation;

impl Activation {
    /// Applies the function to each element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
        }
    }
}
