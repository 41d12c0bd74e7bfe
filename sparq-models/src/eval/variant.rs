//! A decode method at one size.

use std::path::Path;

use sparq_core::{AttentionLayer, Method};

use crate::{
    attention::{COMPRESSION, MethodName, MethodSpec, Profile},
    error::{Error, Result},
};

/// Where the sizes of a variant come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// One method for all layers, in the notation that was typed.
    Method(MethodSpec),
    /// A method for each layer, and what tables call it.
    Profile(String, Profile),
}

/// A decode method at one size, as an evaluation runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The method.
    pub source: Source,
    /// Dense bytes over the method's; `None` for dense attention and for methods whose sizes are stated.
    pub compression: Option<f64>,
}

impl Variant {
    /// Dense attention.
    pub fn dense() -> Self {
        Self { source: Source::Method(MethodName::Dense.into()), compression: None }
    }

    /// Every method at every compression; those that state a ratio or sizes of their own, and dense
    /// attention, once.
    pub fn all(specs: &[MethodSpec], compressions: &[f64]) -> Vec<Self> {
        let sizes = |spec: &MethodSpec| match spec {
            MethodSpec { compression: Some(ratio), .. } => vec![Some(*ratio)],
            MethodSpec { name: MethodName::Dense, .. } | MethodSpec { top_k: Some(_), .. } => vec![None],
            _ => compressions.iter().copied().map(Some).collect(),
        };
        let variant = |spec: &MethodSpec| -> Vec<Self> {
            let source = Source::Method(spec.clone());
            sizes(spec).into_iter().map(|compression| Self { source: source.clone(), compression }).collect()
        };
        specs.iter().flat_map(variant).collect()
    }

    /// What the profile in a file says, named after the file.
    ///
    /// # Errors
    /// As [`Profile::read`].
    pub fn profile(path: &Path) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { source: Source::Profile(name, Profile::read(path)?), compression: None })
    }

    /// Whether it is dense attention.
    pub fn is_dense(&self) -> bool {
        matches!(&self.source, Source::Method(spec) if spec.name == MethodName::Dense)
    }

    /// The name in tables: the notation without its ratio, or that of the profile.
    pub fn name(&self) -> String {
        match &self.source {
            Source::Method(spec) => MethodSpec { compression: None, ..spec.clone() }.to_string(),
            Source::Profile(name, _) => name.clone(),
        }
    }

    /// Whether the method can move as little as is asked of it.
    ///
    /// # Errors
    /// Other errors of its sizes.
    pub fn is_in_reach(&self, layers: &[AttentionLayer], length: usize) -> Result<bool> {
        match self.methods(layers, length) {
            Err(Error::Compression { .. }) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// The method of each layer for contexts of `length` tokens.
    ///
    /// # Errors
    /// [`Error::Core`] for sizes out of range, [`Error::Compression`] for a ratio out of reach,
    /// [`Error::ProfileLayers`] for the profile of another model.
    pub fn methods(&self, layers: &[AttentionLayer], length: usize) -> Result<Vec<Method>> {
        match &self.source {
            Source::Method(spec) => {
                let ratio = self.compression.unwrap_or(COMPRESSION);
                layers.iter().map(|layer| spec.resolve(layer, length, ratio)).collect()
            }
            Source::Profile(_, profile) => profile.methods(layers, length),
        }
    }

    /// The sizes at `length`, as results record them: the method of the widest layer, or the notation
    /// of every layer of a profile.
    pub(super) fn record(&self, layers: &[AttentionLayer], length: usize) -> Result<serde_json::Value> {
        let methods = self.methods(layers, length)?;
        if let Source::Profile(..) = self.source {
            let layers: Vec<String> =
                methods.iter().map(|method| MethodSpec::from(method).to_string()).collect();
            return Ok(layers.into());
        }
        let width = |layer: &AttentionLayer| layer.window.unwrap_or(usize::MAX);
        let widest = layers.iter().map(width).max();
        let widest = layers.iter().position(|layer| Some(width(layer)) == widest);
        let method = widest.and_then(|widest| methods.get(widest));
        Ok(serde_json::to_value(method).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_without_a_size_run_at_every_compression() {
        let specs = MethodSpec::parse_list("dense,sparq,h2o@4,exact-topk:k=9").unwrap();
        let variants = Variant::all(&specs, &[2.0, 8.0]);
        let labels: Vec<(String, Option<f64>)> =
            variants.iter().map(|variant| (variant.name(), variant.compression)).collect();
        let expected = [
            ("dense", None),
            ("sparq", Some(2.0)),
            ("sparq", Some(8.0)),
            ("h2o", Some(4.0)),
            ("exact-topk:k=9", None),
        ];
        assert_eq!(labels, expected.map(|(name, compression)| (name.to_owned(), compression)));
    }

    #[test]
    fn exact_topk_reads_all_keys() {
        let layer = sparq_core::AttentionShape { heads: 2, kv_heads: 1, head_dim: 64 }.into();
        let spec = MethodSpec::parse("exact-topk").unwrap();
        let variant = |ratio| Variant::all(std::slice::from_ref(&spec), &[ratio]).remove(0);
        let reach = |ratio| variant(ratio).is_in_reach(&[layer], 512);
        assert!(reach(1.5).unwrap() && !reach(4.0).unwrap());
    }

    #[test]
    fn profiles_are_named_after_their_files() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("tuned.json");
        std::fs::write(&file, r#"{"layers": ["dense", "sparq:r=8:k=16"]}"#).unwrap();
        let variant = Variant::profile(&file).unwrap();
        assert_eq!((variant.name().as_str(), variant.compression), ("tuned", None));
        let layer = sparq_core::AttentionShape { heads: 2, kv_heads: 1, head_dim: 64 }.into();
        assert_eq!(variant.methods(&[layer, layer], 512).unwrap()[0], Method::Dense);
        assert_eq!(variant.record(&[layer, layer], 512).unwrap()[0], "dense");
        assert!(variant.is_in_reach(&[layer], 512).is_err(), "another number of layers");
    }
}
