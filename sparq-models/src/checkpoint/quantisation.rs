//! How the weights of a checkpoint are quantised, if they are: by `config.json`, else by their tensors.

use std::fmt;

use safetensors::Dtype;
use serde::Serialize;
use serde_json::Value;

use super::TensorInfo;
use crate::error::shown;

/// A quantised form of weights. None is read; this is for saying so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quantisation {
    /// Its name as tools write it, such as `gptq`; `unknown` for a form that nothing names.
    pub scheme: String,
    /// Bits of a number, where they are stated.
    pub bits: Option<u64>,
    /// What tells: a field of `config.json`, or a tensor.
    pub found_in: String,
}

/// Fields of `config.json` that describe a quantised form; MLX writes the last one.
const FIELDS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

/// Fields that hold the number of bits, by the tools that write them.
const BITS: [&str; 5] = ["bits", "w_bit", "nbits", "num_bits", "weight_bits"];

/// Ends of tensors' names that only one scheme has, the more telling ones first.
const ENDS: [(&str, &str); 18] = [
    (".g_idx", "gptq"),
    (".weight_packed", "compressed-tensors"),
    (".quant_state.bitsandbytes__nf4", "bitsandbytes"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes"),
    (".weight.absmax", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
    (".W_q", "hqq"),
    (".W_q.weight", "hqq"),
    ("_proj_blocks", "mxfp4"),
    (".codebooks", "aqlm"),
    (".centroids.weight", "vptq"),
    (".weight_scale_inv", "fp8"),
    (".weight._data", "quanto"),
    (".weight_scales", "eetq"),
    (".weight_quantizer.scale", "quark"),
    (".qweight", "awq"),
    (".qzeros", "awq"),
    (".weight_zero_point", "compressed-tensors"),
];

impl Quantisation {
    /// The form that `config` states, in itself or in the part that describes the text model.
    pub(super) fn of_config(config: &Value) -> Option<Self> {
        let parts = [("", Some(config)), ("text_config.", config.get("text_config"))];
        let mut stated = parts.into_iter().filter_map(|(prefix, part)| {
            let part = part?;
            FIELDS.iter().find_map(|&field| Self::of_field(&format!("{prefix}{field}"), part.get(field)?))
        });
        stated.next()
    }

    fn of_field(field: &str, value: &Value) -> Option<Self> {
        let section = value.as_object()?;
        let text = |name: &str| section.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let flag = |name: &str| section.get(name).and_then(Value::as_bool).unwrap_or(false);
        let named =
            text("quant_method").or_else(|| text("quant_algo")).or_else(|| text("quantization_method"));
        let scheme = if let Some(name) = named {
            name.to_lowercase()
        } else if flag("load_in_4bit") || flag("load_in_8bit") {
            "bitsandbytes".to_owned()
        } else if section.contains_key("group_size") && section.contains_key("bits") {
            // MLX states no name; GPTQ and AWQ do.
            "mlx".to_owned()
        } else {
            "unknown".to_owned()
        };
        let bits = match (flag("load_in_4bit"), flag("load_in_8bit")) {
            (true, _) => Some(4),
            (_, true) => Some(8),
            _ => BITS.iter().find_map(|name| section.get(*name)?.as_u64()).or_else(|| bits_of_groups(value)),
        };
        Some(Self { scheme, bits, found_in: format!("`{field}` in config.json") })
    }

    /// The form that the stored tensors show.
    pub(super) fn of_tensors<'a>(tensors: impl Iterator<Item = TensorInfo<'a>> + Clone) -> Option<Self> {
        let found = |scheme: &str, tensor: &str| {
            let found_in = format!("tensor `{}`", shown(tensor));
            Some(Self { scheme: scheme.to_owned(), bits: None, found_in })
        };
        for (end, scheme) in ENDS {
            if let Some(tensor) = tensors.clone().find(|tensor| tensor.name.ends_with(end)) {
                return found(scheme, tensor.name);
            }
        }
        // What is left shows in the number formats of weights.
        let is_weight = |tensor: &TensorInfo<'_>| tensor.shape.len() == 2 && tensor.name.ends_with(".weight");
        let has = |name: String| tensors.clone().any(|tensor| tensor.name == name);
        tensors.clone().filter(is_weight).find_map(|tensor| {
            let beside = |end: &str| has(format!("{}{end}", tensor.name.trim_end_matches("weight")));
            match tensor.dtype {
                Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => {
                    found("fp8", tensor.name)
                }
                Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 => found("mx", tensor.name),
                Dtype::U32 if beside("scales") => found("mlx", tensor.name),
                Dtype::I8 => found("int8", tensor.name),
                Dtype::U8 if beside("weight_scale") => found("bitnet", tensor.name),
                Dtype::U8 | Dtype::I16 | Dtype::U16 | Dtype::I32 | Dtype::U32 => {
                    found("unknown", tensor.name)
                }
                _ => None,
            }
        })
    }

    /// The next step for the user.
    pub(super) fn hint(&self) -> String {
        let undo = match self.scheme.as_str() {
            "bitsandbytes" | "hqq" | "fp8" | "mxfp4" | "compressed-tensors" => {
                ", or load it in transformers, call model.dequantize() and save_pretrained"
            }
            _ => "",
        };
        format!(
            "use the model that was quantised (its page names it as the base model){undo}; it may be rounded to \
             eight bits while it is loaded"
        )
    }
}

/// The number of bits in the first group of compressed-tensors.
fn bits_of_groups(section: &Value) -> Option<u64> {
    let groups = section.get("config_groups")?.as_object()?;
    groups.values().find_map(|group| group.get("weights")?.get("num_bits")?.as_u64())
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme.as_str() {
            "unknown" => f.write_str("in a form that is not known")?,
            scheme => f.write_str(&shown(scheme))?,
        }
        if let Some(bits) = self.bits {
            write!(f, ", {bits} bits")?;
        }
        write!(f, " (by {})", self.found_in)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_names_the_scheme() {
        let text = |config: Value| Quantisation::of_config(&config).map(|found| found.to_string());
        for method in [
            "gptq",
            "awq",
            "hqq",
            "mxfp4",
            "aqlm",
            "vptq",
            "quanto",
            "eetq",
            "quark",
            "torchao",
            "fbgemm_fp8",
        ] {
            let found = text(json!({"quantization_config": {"quant_method": method}})).unwrap();
            assert_eq!(found, format!("{method} (by `quantization_config` in config.json)"));
        }
        for (config, expected) in [
            (json!({"quantization_config": {"quant_method": "GPTQ", "bits": 4}}), "gptq, 4 bits"),
            (json!({"quantization_config": {"load_in_8bit": true}}), "bitsandbytes, 8 bits"),
            (
                json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}),
                "bitsandbytes, 4 bits",
            ),
            (json!({"quantization": {"group_size": 64, "bits": 4}}), "mlx, 4 bits"),
            (json!({"quantization_config": {"group_size": 64, "bits": 4}}), "mlx, 4 bits"),
            (
                json!({"compression_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}}),
                "compressed-tensors, 8 bits",
            ),
            (json!({"text_config": {"quantization_config": {"quant_method": "fp8"}}}), "fp8"),
            (json!({"quantization_config": {}}), "in a form that is not known"),
        ] {
            let found = text(config.clone()).unwrap();
            assert!(found.starts_with(&format!("{expected} (by ")), "{config}: {found}");
        }
        for plain in [json!({}), json!({"quantization_config": null}), json!({"quantization": "none"})] {
            assert_eq!(text(plain), None);
        }
    }

    #[test]
    fn tensors_tell_where_the_configuration_is_silent() {
        let of = |tensors: &[(&str, Dtype, &[usize])]| {
            let infos =
                tensors.iter().map(|&(name, dtype, shape)| TensorInfo { name, shape, dtype, bytes: 0 });
            Quantisation::of_tensors(infos).map(|found| found.scheme)
        };
        for (tensors, scheme) in [
            (
                &[("l.q_proj.qweight", Dtype::I32, &[8, 8][..]), ("l.q_proj.g_idx", Dtype::I32, &[8])][..],
                Some("gptq"),
            ),
            (
                &[("l.q_proj.qweight", Dtype::I32, &[8, 8]), ("l.q_proj.scales", Dtype::F16, &[8, 8])],
                Some("awq"),
            ),
            (&[("l.q_proj.weight_packed", Dtype::I32, &[8, 8])], Some("compressed-tensors")),
            (
                &[("l.q_proj.weight", Dtype::U8, &[8, 1]), ("l.q_proj.weight.absmax", Dtype::U8, &[8])],
                Some("bitsandbytes"),
            ),
            (
                &[("l.q_proj.weight", Dtype::I8, &[8, 8]), ("l.q_proj.SCB", Dtype::F32, &[8])],
                Some("bitsandbytes"),
            ),
            (&[("l.q_proj.W_q", Dtype::U8, &[8, 8])], Some("hqq")),
            (&[("l.mlp.experts.gate_up_proj_blocks", Dtype::U8, &[8, 8])], Some("mxfp4")),
            (
                &[
                    ("l.q_proj.weight", Dtype::F8_E4M3, &[8, 8]),
                    ("l.q_proj.weight_scale_inv", Dtype::F32, &[1, 1]),
                ],
                Some("fp8"),
            ),
            (&[("l.q_proj.weight", Dtype::F8_E5M2, &[8, 8])], Some("fp8")),
            (
                &[("l.q_proj.weight", Dtype::U32, &[8, 1]), ("l.q_proj.scales", Dtype::F16, &[8, 1])],
                Some("mlx"),
            ),
            (&[("l.q_proj.weight", Dtype::I8, &[8, 8])], Some("int8")),
            (&[("l.q_proj.weight", Dtype::U8, &[8, 8])], Some("unknown")),
            (
                &[("l.q_proj.weight", Dtype::F32, &[8, 8]), ("l.attention.bias", Dtype::BOOL, &[1, 1, 8, 8])],
                None,
            ),
            (&[("l.q_proj.weight", Dtype::F64, &[8, 8]), ("position_ids", Dtype::I64, &[1, 8])], None),
        ] {
            assert_eq!(of(tensors).as_deref(), scheme, "{tensors:?}");
        }
    }
}
