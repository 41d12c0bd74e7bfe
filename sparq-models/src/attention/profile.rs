//! Files that say which method each layer runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Map, Value};
use sparq_core::{AttentionLayer, Method};

use super::MethodSpec;
use crate::error::{Error, Result};

/// The method of one layer in a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum LayerMethod {
    /// As a user writes it: `"sparq:r=16:k=64"`. Open sizes are filled in for the run.
    Notation(MethodSpec),
    /// With all sizes and data.
    Method(Method),
}

/// Which method each layer runs, as JSON: `{ "layers": ["dense", "sparq:r=16:k=64", …] }`.
///
/// An entry is a notation ([`MethodSpec`]) or a method with all its data
/// (`{ "double_sparsity": { "rank": 8, … } }`). `about` is free: what the profile was made for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// What the profile was made for and what was measured.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub about: Map<String, Value>,
    /// One entry per layer, first layer first.
    pub layers: Vec<LayerMethod>,
    /// The file that it was read from, for errors.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Profile`] that names the layer.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |message: String| Error::Profile { path: path.to_owned(), message };
        let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let json = |error: serde_json::Error| bad(format!("it is not JSON: {error}"));
        let Value::Object(mut fields) = serde_json::from_slice(&bytes).map_err(json)? else {
            return Err(bad("it is not an object with a list `layers`".into()));
        };
        let Some(Value::Array(entries)) = fields.remove("layers") else {
            return Err(bad("it has no list `layers`".into()));
        };
        let about = match fields.remove("about") {
            None => Map::new(),
            Some(Value::Object(about)) => about,
            Some(_) => return Err(bad("`about` is not an object".into())),
        };
        if let Some(field) = fields.keys().next() {
            return Err(bad(format!("it has an unknown field `{field}`; it takes `layers` and `about`")));
        }
        let layer = |(index, entry): (usize, Value)| match entry {
            Value::String(text) => match MethodSpec::parse(&text) {
                Ok(spec) => Ok(LayerMethod::Notation(spec)),
                Err(error) => Err(bad(format!("layer {index}: {error}"))),
            },
            other => match serde_json::from_value(other) {
                Ok(method) => Ok(LayerMethod::Method(method)),
                Err(error) => Err(bad(format!("layer {index}: {error}"))),
            },
        };
        let layers: Result<_> = entries.into_iter().enumerate().map(layer).collect();
        Ok(Self { about, layers: layers?, file: Some(path.to_owned()) })
    }

    /// The profile as [`Profile::read`] reads it.
    pub fn to_json(&self) -> String {
        // Maps with text for keys always have a form in JSON.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The methods for a model's layers, in runs up to `seq_len` tokens.
    ///
    /// # Errors
    /// [`Error::ProfileLayers`] for a model of another depth, [`Error::Core`] for sizes that do not fit; both
    /// in [`Error::InFile`] for a profile that was read from a file.
    pub fn methods(&self, layers: &[AttentionLayer], seq_len: usize) -> Result<Vec<Method>> {
        if layers.len() != self.layers.len() {
            let error = Error::ProfileLayers { profile: self.layers.len(), model: layers.len() };
            return Err(self.in_file("`layers`".to_owned(), error));
        }
        let method = |(entry, layer): (&LayerMethod, &AttentionLayer)| match entry {
            LayerMethod::Notation(spec) => spec.resolve(layer, seq_len),
            LayerMethod::Method(method) => {
                method.for_layer(&layer.shape)?;
                Ok(method.clone())
            }
        };
        let of_layer =
            |(number, pair)| method(pair).map_err(|error| self.in_file(format!("layer {number}"), error));
        self.layers.iter().zip(layers).enumerate().map(of_layer).collect()
    }

    fn in_file(&self, place: String, error: Error) -> Error {
        match &self.file {
            Some(path) => Error::InFile { path: path.clone(), place, source: Box::new(error) },
            None => error,
        }
    }
}
