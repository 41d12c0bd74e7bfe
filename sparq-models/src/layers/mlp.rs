//! Feed-forward layers.

use burn::tensor::Tensor;

use super::Linear;
use crate::{checkpoint::Loader, config::Activation};

/// Sizes of a [`GatedMlp`].
#[derive(Debug, Clone, Copy)]
pub struct GatedMlpConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the projections.
    pub intermediate: usize,
    /// Activation of the gate.
    pub activation: Activation,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Whether gate and up projection are one tensor `gate_up_proj`, the gate's rows first.
    pub fused: bool,
}

/// `down_proj(activation(gate_proj(x)) · up_proj(x))`.
#[derive(Debug, Clone)]
pub struct GatedMlp {
    gate_up: GateUp,
    down_proj: Linear,
    activation: Activation,
}

#[derive(Debug, Clone)]
enum GateUp {
    /// `gate_proj`, `up_proj`.
    Separate(Box<[Linear; 2]>),
    Fused(Box<Linear>),
}

impl GatedMlp {
    /// Reads the projections below `name`.
    pub fn load(loader: &mut Loader<'_>, name: &str, config: &GatedMlpConfig) -> Self {
        let GatedMlpConfig { hidden, intermediate, activation, bias, fused } = *config;
        let mut linear = |part, shape| Linear::load(loader, &format!("{name}.{part}"), shape, bias);
        let gate_up = match fused {
            true => GateUp::Fused(Box::new(linear("gate_up_proj", [2 * intermediate, hidden]))),
            false => GateUp::Separate(Box::new(
                ["gate_proj", "up_proj"].map(|p| linear(p, [intermediate, hidden])),
            )),
        };
        Self { gate_up, down_proj: linear("down_proj", [hidden, intermediate]), activation }
    }

    /// `x: [tokens, hidden]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (gate, up) = match &self.gate_up {
            GateUp::Separate(linears) => {
                let [gate_proj, up_proj] = linears.as_ref();
                (gate_proj.forward(x.clone()), up_proj.forward(x))
            }
            GateUp::Fused(linear) => {
                let both = linear.forward(x);
                let [_, width] = both.dims();
                (both.clone().narrow(1, 0, width / 2), both.narrow(1, width / 2, width / 2))
            }
        };
        self.down_proj.forward(self.activation.forward(gate) * up)
    }
}

/// Sizes and names of an [`Mlp`].
#[derive(Debug, Clone, Copy)]
pub struct MlpConfig<'a> {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the projections.
    pub intermediate: usize,
    /// Activation between the projections.
    pub activation: Activation,
    /// Names of the two projections.
    pub names: [&'a str; 2],
}

/// `down(activation(up(x)))`, both projections with biases.
#[derive(Debug, Clone)]
pub struct Mlp {
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    /// Reads the projections below `name`.
    pub fn load(loader: &mut Loader<'_>, name: &str, config: &MlpConfig<'_>) -> Self {
        let MlpConfig { hidden, intermediate, activation, names: [up, down] } = *config;
        let mut linear = |part, shape| Linear::load(loader, &format!("{name}.{part}"), shape, true);
        Self {
            up: linear(up, [intermediate, hidden]),
            down: linear(down, [hidden, intermediate]),
            activation,
        }
    }

    /// `x: [tokens, hidden]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down.forward(self.activation.forward(self.up.forward(x)))
    }
}
