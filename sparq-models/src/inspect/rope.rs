//! Rotary embeddings: as they run, or as a configuration that cannot be loaded states them.

use serde::Serialize;

use super::sizes::find;
use crate::config::{ConfigFields, RopeConfig, Ropes};

/// Types of layers that have rotary embeddings of their own.
const LAYER_TYPES: [&str; 2] = ["full_attention", "sliding_attention"];

/// One rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RopeSummary {
    /// The layers that use it: `all`, or a type of layer.
    pub layers: String,
    /// Base of the frequencies.
    pub theta: Option<f64>,
    /// How the frequencies are stretched for longer sequences: `default` for not at all.
    pub scaling: String,
    /// How many times longer the sequences become.
    pub factor: Option<f64>,
    /// Components of a head that are rotated, the first ones.
    pub rotary_dim: Option<usize>,
    /// Longest sequence of the first training.
    pub original_context_tokens: Option<usize>,
}

impl RopeSummary {
    /// Those of a model that can be loaded.
    pub(super) fn all(ropes: &Ropes) -> Vec<Self> {
        let summary = |(layers, rope): (&str, &RopeConfig)| Self {
            layers: layers.to_owned(),
            theta: Some(rope.theta),
            scaling: rope.scaling.name().to_owned(),
            factor: rope.scaling.factor(),
            rotary_dim: Some(rope.rotary_dim),
            original_context_tokens: rope.scaling.original_max_position_embeddings(),
        };
        ropes.iter().map(summary).collect()
    }

    fn new(layers: &str, theta: Option<f64>, section: Option<&ConfigFields<'_>>) -> Self {
        let number = |name: &str| section.and_then(|section| section.optional(name).ok().flatten());
        // `type` is the name that older files use.
        let scaling = section.and_then(|section| find::<String>(section, &["rope_type", "type"]));
        Self {
            layers: layers.to_owned(),
            theta: number("rope_theta").or(theta),
            scaling: scaling.unwrap_or_else(|| "default".into()),
            factor: number("factor"),
            rotary_dim: None,
            original_context_tokens: section
                .and_then(|section| find(section, &["original_max_position_embeddings"])),
        }
    }
}

/// The rotary embeddings that any configuration states.
pub(super) fn read(fields: &ConfigFields<'_>) -> Vec<RopeSummary> {
    let text = fields.section("text_config").ok().flatten();
    let section = |name: &str| {
        let own = fields.section(name).ok().flatten();
        own.or_else(|| text.as_ref().and_then(|text| text.section(name).ok().flatten()))
    };
    let theta = find::<f64>(fields, &["rope_theta", "rotary_emb_base"]);
    let parameters = section("rope_scaling").or_else(|| section("rope_parameters"));
    if let Some(parameters) = &parameters {
        let of_type = |layers: &&str| {
            let section = parameters.section(layers).ok().flatten()?;
            Some(RopeSummary::new(layers, theta, Some(&section)))
        };
        let per_type: Vec<_> = LAYER_TYPES.iter().filter_map(of_type).collect();
        if !per_type.is_empty() {
            return per_type;
        }
    }
    if theta.is_none() && parameters.is_none() {
        return vec![];
    }
    let mut rope = RopeSummary::new("all", theta, parameters.as_ref());
    if rope.scaling != "default" && rope.original_context_tokens.is_none() {
        rope.original_context_tokens = find(fields, &["original_max_position_embeddings"]);
    }
    // Gemma 3 before transformers 5.
    match find::<f64>(fields, &["rope_local_base_freq"]) {
        Some(local) => {
            rope.layers = LAYER_TYPES[0].to_owned();
            vec![rope, RopeSummary::new(LAYER_TYPES[1], Some(local), None)]
        }
        None => vec![rope],
    }
}
