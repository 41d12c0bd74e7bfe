//! Reading rotary embeddings in all forms.

use serde_json::{Map, Value};

use super::{ConfigFields, Result, RopeConfig, RopeScaling, Ropes};
use crate::config::{ModelConfig, fields::brief};

/// What is a family's own in how it states its rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeFields {
    /// Field of the base outside of the section.
    pub theta: &'static str,
    /// Whether heads may be rotated in part. Elsewhere transformers ignores a part that is stated, and
    /// fails on one beside a scaling.
    pub partial: Option<Partial>,
    /// Names of the types of scaling that the family takes.
    pub types: &'static [&'static str],
    /// What `original_max_position_embeddings` beside the section is where it is absent. Where it is
    /// there it wins over the one in the section, in every family.
    pub default_original: Option<usize>,
    /// Whether `layer_types` is a field of the family: sections by type of layer are refused then, where
    /// other families ignore them.
    pub has_layer_types: bool,
}

/// The part of a head that is rotated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partial {
    /// Field of the part outside of the section.
    pub field: &'static str,
    /// The part where no field names it.
    pub default: f64,
}

/// Types of scaling that are built, as `rope_type` names them.
const BUILT: &[&str] = &["default", "linear", "llama3", "longrope"];

impl RopeFields {
    /// Llama's, and those of most families since.
    pub const LLAMA: Self = Self {
        theta: "rope_theta",
        partial: None,
        types: BUILT,
        default_original: None,
        has_layer_types: false,
    };

    /// Phi-3's: heads in part, no scaling but LongRoPE.
    pub const PHI3: Self = Self {
        theta: "rope_theta",
        partial: Some(Partial { field: "partial_rotary_factor", default: 1.0 }),
        types: &["default", "longrope"],
        default_original: Some(4096),
        has_layer_types: false,
    };

    /// GPT-NeoX's, with names of its own.
    pub const GPT_NEOX: Self = Self {
        theta: "rotary_emb_base",
        partial: Some(Partial { field: "rotary_pct", default: 0.25 }),
        types: BUILT,
        default_original: None,
        has_layer_types: false,
    };
}

/// One rotary embedding as it is being read.
struct Reader<'r, 'a> {
    /// The whole file.
    fields: &'r ConfigFields<'a>,
    /// The section that counts.
    section: ConfigFields<'r>,
    names: RopeFields,
    /// The base outside of the section, or the default.
    theta: f64,
    head_dim: usize,
    /// Longest sequence that the model was made for.
    longest: usize,
    /// Whether `original_max_position_embeddings` outside of the section counts.
    has_outer_original: bool,
}

const DEFAULT_THETA: f64 = 10_000.0;

impl Ropes {
    /// Reads the one rotary embedding of a model whose sizes and windows are read.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a form or scaling that is not supported or incomplete.
    pub fn read(fields: &ConfigFields<'_>, config: &ModelConfig, names: RopeFields) -> Result<Self> {
        // An empty `rope_scaling` counts as none.
        let scaling = fields.section("rope_scaling")?.filter(|section| !section.object().is_empty());
        let name = if scaling.is_some() { "rope_scaling" } else { "rope_parameters" };
        let empty = Map::new();
        let section = match scaling {
            Some(section) => section,
            None => fields
                .section("rope_parameters")?
                .unwrap_or_else(|| ConfigFields::of_object(fields.path(), "rope_parameters.".into(), &empty)),
        };
        if names.has_layer_types {
            let by_type = config.windows.layer_types().find(|layer_type| section.has(layer_type));
            let is_flat = section.has("rope_type") && section.has("rope_theta");
            if let Some(layer_type) = by_type.filter(|_| !is_flat) {
                return Err(section.bad_field(
                    layer_type,
                    format!("the layers of this architecture share one rotary embedding, state it in `{name}` itself"),
                ));
            }
        }
        let theta = fields.optional_positive_float(names.theta)?.unwrap_or(DEFAULT_THETA);
        let ModelConfig { head_dim, max_position_embeddings: longest, .. } = *config;
        let reader = Reader { fields, section, names, theta, head_dim, longest, has_outer_original: true };
        Ok(Self::All(reader.read()?))
    }

    /// Reads Gemma 3's two: `rope_scaling` adds to that of the layers that see everything.
    ///
    /// # Errors
    ///
    /// As [`Ropes::read`].
    pub fn read_by_layer_type(fields: &ConfigFields<'_>, config: &ModelConfig) -> Result<Self> {
        let parameters = fields.section("rope_parameters")?;
        let scaling = fields.section("rope_scaling")?;
        let stated = |layer_type: &str| -> Result<_> {
            Ok(match &parameters {
                Some(parameters) => parameters.section(layer_type)?.map(|section| section.object().clone()),
                // What transformers starts from: a `type` in the older spelling does not win over it.
                None => Some(Map::from_iter([("rope_type".to_owned(), Value::from("default"))])),
            })
        };
        let mut full = stated("full_attention")?;
        let is_scaled = scaling.is_some();
        if let Some(scaling) = scaling {
            let full = full.as_mut().ok_or_else(|| {
                fields.bad_field("rope_scaling", "adds to `rope_parameters.full_attention`, which is missing")
            })?;
            full.extend(scaling.object().clone());
        }
        let read =
            |layer_type: &str, section: Option<Map<String, Value>>, theta: &str, default_theta: f64| {
                let section = section.unwrap_or_default();
                let prefix = match is_scaled && layer_type == "full_attention" {
                    true => "rope_scaling.".to_owned(),
                    false => format!("rope_parameters.{layer_type}."),
                };
                let reader = Reader {
                    fields,
                    section: ConfigFields::of_object(fields.path(), prefix, &section),
                    names: RopeFields::LLAMA,
                    theta: fields.optional_positive_float(theta)?.unwrap_or(default_theta),
                    head_dim: config.head_dim,
                    longest: config.max_position_embeddings,
                    has_outer_original: false,
                };
                reader.read()
            };
        let [mut ropes_full, mut ropes_sliding] = [None, None];
        for layer_type in config.windows.layer_types() {
            match layer_type {
                "full_attention" => {
                    ropes_full = Some(read(layer_type, full.take(), "rope_theta", 1_000_000.0)?);
                }
                _ => {
                    let section = stated(layer_type)?;
                    ropes_sliding = Some(read(layer_type, section, "rope_local_base_freq", DEFAULT_THETA)?);
                }
            }
        }
        Ok(Self::ByLayerType { full: ropes_full, sliding: ropes_sliding })
    }
}

impl Reader<'_, '_> {
    fn read(&self) -> Result<RopeConfig> {
        let kind = self.kind()?;
        let theta = self.section.optional_positive_float("rope_theta")?.unwrap_or(self.theta);
        let rotary_dim = self.rotary_dim(kind)?;
        let scaling = match kind {
            "linear" => RopeScaling::Linear { factor: self.section.positive_float("factor")? },
            "llama3" => self.llama3()?,
            "longrope" => self.long_rope(rotary_dim)?,
            _ => RopeScaling::None,
        };
        let rope = RopeConfig { theta, rotary_dim, scaling };
        self.check_range(&rope)?;
        Ok(rope)
    }

    /// The type of scaling: `type` is the name that older files use.
    fn kind(&self) -> Result<&'static str> {
        let name = if self.section.has("rope_type") { "rope_type" } else { "type" };
        let kind: String = self.section.optional(name)?.unwrap_or_else(|| "default".into());
        let kind = match kind.as_str() {
            // What the first Phi-3 checkpoints call it.
            "su" | "yarn" if self.names == RopeFields::PHI3 => "longrope",
            other => other,
        };
        let built = self.names.types.iter().find(|&&known| known == kind);
        built.copied().ok_or_else(|| {
            let supported = self.names.types.join(", ");
            let kind = brief(&Value::from(kind));
            self.section.bad_field(
                name,
                format!("rope scaling of type {kind} is not supported (supported: {supported})"),
            )
        })
    }

    /// Components of a head that are rotated.
    fn rotary_dim(&self, kind: &str) -> Result<usize> {
        let stated = |fields: &ConfigFields<'_>, name: &str| fields.optional::<f64>(name);
        let inner = || stated(&self.section, "partial_rotary_factor");
        let Some(Partial { field, default }) = self.names.partial else {
            if kind == "default" {
                return Ok(self.head_dim);
            }
            let part = inner()?.or(stated(self.fields, "partial_rotary_factor")?).unwrap_or(1.0);
            let dim = (self.head_dim as f64 * part) as usize;
            return match dim.div_ceil(2) == self.head_dim / 2 {
                true => Ok(dim),
                false => Err(self
                    .fields
                    .error(format!("partial_rotary_factor = {part}: this architecture rotates whole heads"))),
            };
        };
        let part = inner()?.or(stated(self.fields, field)?).unwrap_or(default);
        let dim = (self.head_dim as f64 * part) as usize;
        match part <= 1.0 && dim > 0 {
            true => Ok(dim),
            false => Err(self.fields.error(format!(
                "{field} = {part} rotates {dim} of the {} components of a head: 1 to {} are possible",
                self.head_dim, self.head_dim
            ))),
        }
    }

    fn llama3(&self) -> Result<RopeScaling> {
        let low_freq_factor = self.section.positive_float("low_freq_factor")?;
        let high_freq_factor = self.section.positive_float("high_freq_factor")?;
        // The blend divides by their difference.
        if high_freq_factor <= low_freq_factor {
            return Err(self.section.bad_field(
                "high_freq_factor",
                format!("{high_freq_factor} must be above low_freq_factor = {low_freq_factor}"),
            ));
        }
        Ok(RopeScaling::Llama3 {
            factor: self.section.positive_float("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: self.original()?,
        })
    }

    /// See `_compute_longrope_parameters` of `transformers/modeling_rope_utils.py`.
    fn long_rope(&self, rotary_dim: usize) -> Result<RopeScaling> {
        let divisors = |name: &str| {
            let values: Vec<f64> = self.section.required(name)?;
            let pairs = rotary_dim.div_ceil(2);
            if values.len() != pairs || values.iter().any(|value| value.is_nan() || *value <= 0.0) {
                let count = values.len();
                return Err(self.section.bad_field(
                    name,
                    format!("must hold {pairs} numbers above 0, one per rotated pair; it holds {count}"),
                ));
            }
            Ok(values)
        };
        let original = self.original()?;
        let stretch = self.longest as f64 / original as f64;
        let factor = self.section.optional_positive_float("factor")?.unwrap_or(stretch);
        let attention_factor = match self.section.optional_positive_float("attention_factor")? {
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

    /// Longest sequence of the first training: beside the section, in it, or the model's longest.
    fn original(&self) -> Result<usize> {
        const NAME: &str = "original_max_position_embeddings";
        if self.has_outer_original {
            let outer = self.fields.optional_positive(NAME)?.or(self.names.default_original);
            if let Some(original) = outer {
                return Ok(original);
            }
        }
        Ok(self.section.optional_positive(NAME)?.unwrap_or(self.longest))
    }

    /// Refuses numbers that angles in f32 cannot hold: they would come out as NaN.
    fn check_range(&self, rope: &RopeConfig) -> Result<()> {
        let least = |factors: &[f64]| factors.iter().copied().fold(f64::INFINITY, f64::min);
        let (divisor, attention_factor) = match &rope.scaling {
            RopeScaling::None => (1.0, 1.0),
            RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } => (factor.min(1.0), 1.0),
            RopeScaling::LongRope { short_factor, long_factor, attention_factor, .. } => {
                (least(short_factor).min(least(long_factor)).min(1.0), *attention_factor)
            }
        };
        // The largest frequency, of the first pair or, for bases below 1, of the last one.
        let frequency = (1.0 / rope.theta).max(1.0) / divisor;
        let largest = f64::from(f32::MAX);
        if frequency * self.longest as f64 > largest {
            let theta = rope.theta;
            return Err(self.fields.error(format!(
                "the rotary embedding (base {theta:e}, divided by {divisor:e}) turns further than f32 can hold"
            )));
        }
        if attention_factor > largest {
            let problem = format!("{attention_factor:e} is more than f32 can hold");
            return Err(self.section.bad_field("attention_factor", problem));
        }
        Ok(())
    }
}
