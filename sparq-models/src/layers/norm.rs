//! Normalisation over the last axis, in f32.

use burn::tensor::{DType, Tensor};

use crate::checkpoint::Loader;

/// `x / √(mean(x²) + ε) · weight + bias`: RMSNorm, and LayerNorm where the mean of `x` is taken off
/// first.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[width]`, f32.
    weight: Tensor<1>,
    /// `[width]`, f32; LayerNorm only.
    bias: Option<Tensor<1>>,
    epsilon: f64,
}

impl Norm {
    /// RMSNorm with `{name}.weight: [width]`.
    pub fn rms(loader: &mut Loader<'_>, name: &str, width: usize, epsilon: f64) -> Self {
        Self { weight: part(loader, name, "weight", width), bias: None, epsilon }
    }

    /// Gemma's RMSNorm, which multiplies by `1 + weight`. The sum is taken in f32.
    pub fn rms_one_plus(loader: &mut Loader<'_>, name: &str, width: usize, epsilon: f64) -> Self {
        Self { weight: part(loader, name, "weight", width) + 1.0, bias: None, epsilon }
    }

    /// LayerNorm with `{name}.weight` and `{name}.bias`, both `[width]`.
    pub fn layer(loader: &mut Loader<'_>, name: &str, width: usize, epsilon: f64) -> Self {
        let weight = part(loader, name, "weight", width);
        Self { weight, bias: Some(part(loader, name, "bias", width)), epsilon }
    }

    /// `x: [.., width]` to the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = match self.bias {
            Some(_) => x.clone() - x.mean_dim(D - 1),
            None => x,
        };
        let mean_square = x.clone().square().mean_dim(D - 1);
        let scale = (mean_square + self.epsilon).sqrt().recip();
        let y = x * scale * self.weight.clone().unsqueeze();
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }
}

fn part(loader: &mut Loader<'_>, name: &str, part: &str, width: usize) -> Tensor<1> {
    loader.tensor_as(&format!("{name}.{part}"), [width], DType::F32)
}
