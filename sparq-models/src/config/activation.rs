//! Activation functions by the names of transformers.

use super::fields::ConfigFields;
use crate::error::{Result, excerpt};

/// Activation function of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the normal distribution Φ, exact.
    Gelu,
    /// The same with the tanh approximation of Φ.
    GeluTanh,
}

impl Activation {
    /// The activation that field `name` names, `default` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a name that is not supported.
    pub fn read(fields: &ConfigFields<'_>, name: &str, default: Self) -> Result<Self> {
        let Some(value) = fields.optional::<String>(name)? else {
            return Ok(default);
        };
        match value.as_str() {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu" | "gelu_python" => Ok(Self::Gelu),
            // Four spellings of one formula.
            "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_new" | "gelu_fast" => Ok(Self::GeluTanh),
            _ => Err(fields.error(format!(
                "{name} = \"{}\" is not supported (supported: silu, gelu, gelu_pytorch_tanh)",
                excerpt(&value)
            ))),
        }
    }
}
