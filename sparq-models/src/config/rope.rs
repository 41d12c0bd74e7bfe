//! Rotary embedding: base and scaling.

use super::fields::ConfigFields;
use crate::error::Result;

/// Base of the rotary frequencies in models whose configuration names none.
const DEFAULT_THETA: f64 = 10_000.0;

/// How rotary frequencies are stretched for sequences longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// Base and scaling from `rope_theta` and `rope_scaling`, or from `rope_parameters`, which holds
/// both since transformers 5.
pub(super) fn read(fields: &ConfigFields<'_>) -> Result<(f64, RopeScaling)> {
    let parameters = fields.section("rope_parameters")?;
    let theta = match &parameters {
        Some(section) => section.optional_positive_float("rope_theta")?,
        None => None,
    };
    let theta = match theta {
        Some(theta) => theta,
        None => fields.optional_positive_float("rope_theta")?.unwrap_or(DEFAULT_THETA),
    };
    let section = match parameters {
        Some(section) => Some(section),
        None => fields.section("rope_scaling")?,
    };
    let scaling = section.map_or(Ok(RopeScaling::None), |section| scaling(&section))?;
    Ok((theta, scaling))
}

fn scaling(section: &ConfigFields<'_>) -> Result<RopeScaling> {
    // `type` is the name that older files use.
    let kind: String = match section.optional("rope_type")? {
        Some(kind) => kind,
        None => section.optional("type")?.unwrap_or_else(|| "default".into()),
    };
    match kind.as_str() {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: section.positive_float("factor")? }),
        "llama3" => {
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
        _ => Err(section.error(format!(
            "rope scaling of type \"{kind}\" is not supported (supported: default, linear, llama3)"
        ))),
    }
}
