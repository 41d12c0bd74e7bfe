//! Rotary embedding: base, width and scaling.

use super::fields::ConfigFields;
use crate::error::Result;

/// Rotary embedding of a model, or of one type of its layers.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Components of a head that are rotated, the first ones.
    pub rotary_dim: usize,
    /// How the frequencies are stretched for longer sequences.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched for sequences longer than those of the first training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every position is divided by `factor`.
    Linear {
        /// How many times longer the sequences become.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided by `factor`, high ones stay, those between are blended.
    Llama3 {
        /// How many times longer the sequences become.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` stay as they are.
        high_freq_factor: f64,
        /// Longest sequence in tokens of the first training.
        original_max_position_embeddings: usize,
    },
    /// LongRoPE (Phi-3): every frequency is divided by a factor of its own.
    LongRope {
        /// Divisors for runs of up to `original_max_position_embeddings` tokens.
        short_factor: Vec<f64>,
        /// Divisors for longer runs.
        long_factor: Vec<f64>,
        /// What sines and cosines are multiplied by, in short and long runs.
        attention_factor: f64,
        /// Longest sequence in tokens of the first training.
        original_max_position_embeddings: usize,
    },
}

/// Where a family's `config.json` keeps its rotary embedding, besides `rope_parameters`, which holds
/// everything since transformers 5.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeFields {
    /// The entry of `rope_parameters` for this type of layer, in families with several.
    pub layer_type: Option<&'static str>,
    /// Field of the base.
    pub theta: &'static str,
    /// The base where no field names one.
    pub default_theta: f64,
    /// Field of the part of a head that is rotated.
    pub partial: &'static str,
    /// That part where no field names it.
    pub default_partial: f64,
    /// Whether `rope_scaling` applies to these layers.
    pub scaled: bool,
}

impl Default for RopeFields {
    /// Llama's names: `rope_theta` and `rope_scaling`, whole heads.
    fn default() -> Self {
        Self {
            layer_type: None,
            theta: "rope_theta",
            default_theta: 10_000.0,
            partial: "partial_rotary_factor",
            default_partial: 1.0,
            scaled: true,
        }
    }
}

impl RopeConfig {
    /// Reads the rotary embedding of heads of `head_dim` components.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a scaling that is not supported or incomplete.
    pub fn read(fields: &ConfigFields<'_>, head_dim: usize, names: RopeFields) -> Result<Self> {
        let mut parameters = fields.section("rope_parameters")?;
        if let (Some(section), Some(layer_type)) = (&parameters, names.layer_type) {
            parameters = section.section(layer_type)?;
        }
        let either = |inner: &str, outer: &str| {
            let value = match &parameters {
                Some(section) => section.optional_positive_float(inner)?,
                None => None,
            };
            value.map_or_else(|| fields.optional_positive_float(outer), |value| Ok(Some(value)))
        };
        let partial = either("partial_rotary_factor", names.partial)?.unwrap_or(names.default_partial);
        if partial > 1.0 {
            return Err(fields.error(format!("{} = {partial} must be at most 1", names.partial)));
        }
        let theta = either("rope_theta", names.theta)?.unwrap_or(names.default_theta);
        let rotary_dim = (head_dim as f64 * partial) as usize;
        let section = match parameters {
            Some(section) => Some(section),
            None if names.scaled => fields.section("rope_scaling")?,
            None => None,
        };
        let scaling = match section {
            Some(section) => scaling(fields, &section, rotary_dim)?,
            None => RopeScaling::None,
        };
        Ok(Self { theta, rotary_dim, scaling })
    }
}

fn scaling(fields: &ConfigFields<'_>, section: &ConfigFields<'_>, rotary_dim: usize) -> Result<RopeScaling> {
    // `type` is the name that older files use.
    let kind: String = match section.optional("rope_type")? {
        Some(kind) => kind,
        None => section.optional("type")?.unwrap_or_else(|| "default".into()),
    };
    match kind.as_str() {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: section.positive_float("factor")? }),
        "llama3" => llama3(section),
        // `su` is what the first Phi-3 checkpoints call it.
        "longrope" | "su" => long_rope(fields, section, rotary_dim),
        _ => Err(section.error(format!(
            "rope scaling of type \"{kind}\" is not supported (supported: default, linear, llama3, longrope)"
        ))),
    }
}

fn llama3(section: &ConfigFields<'_>) -> Result<RopeScaling> {
    let low_freq_factor = section.positive_float("low_freq_factor")?;
    let high_freq_factor = section.positive_float("high_freq_factor")?;
    // The blend divides by their difference.
    if high_freq_factor <= low_freq_factor {
        return Err(section.error(format!(
            "rope scaling: high_freq_factor = {high_freq_factor} must be above \
             low_freq_factor = {low_freq_factor}"
        )));
    }
    Ok(RopeScaling::Llama3 {
        factor: section.positive_float("factor")?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: section.positive("original_max_position_embeddings")?,
    })
}

/// See `_compute_longrope_parameters` of `transformers/modeling_rope_utils.py`.
fn long_rope(
    fields: &ConfigFields<'_>,
    section: &ConfigFields<'_>,
    rotary_dim: usize,
) -> Result<RopeScaling> {
    let divisors = |name: &str| {
        let values: Vec<f64> = section.required(name)?;
        let pairs = rotary_dim.div_ceil(2);
        if values.len() != pairs || values.iter().any(|value| value.is_nan() || *value <= 0.0) {
            let count = values.len();
            return Err(section.error(format!(
                "rope scaling: {name} must hold {pairs} numbers above 0, one per rotated pair; it holds {count}"
            )));
        }
        Ok(values)
    };
    let max_position_embeddings = fields.positive("max_position_embeddings")?;
    // Phi-3 keeps the original length beside the section, and that one wins.
    let original = match fields.optional_positive("original_max_position_embeddings")? {
        Some(original) => original,
        None => {
            section.optional_positive("original_max_position_embeddings")?.unwrap_or(max_position_embeddings)
        }
    };
    let factor = section
        .optional_positive_float("factor")?
        .unwrap_or(max_position_embeddings as f64 / original as f64);
    let attention_factor = match section.optional_positive_float("attention_factor")? {
        Some(attention_factor) => attention_factor,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short_factor: divisors("short_factor")?,
        long_factor: divisors("long_factor")?,
        attention_factor,
        original_max_position_embeddings: original,
    })
}

#[cfg(test)]
mod tests;
