//! A decode method at one size.

use std::path::Path;

use sparq_core::{AttentionLayer, Method, MethodKind};

use crate::{
    attention::{AttentionPlan, MethodSpec, Profile, widest},
    error::{Error, Result},
};

/// A decode method at one size, as an evaluation runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// What tables call it: the notation without its ratio, or the name of the profile.
    pub name: String,
    /// The methods.
    pub plan: AttentionPlan,
    /// Dense bytes over the method's; `None` for dense attention and for methods whose sizes are stated.
    pub compression: Option<f64>,
}

impl Variant {
    fn new(spec: MethodSpec, compression: Option<f64>) -> Self {
        let name = MethodSpec { compression: None, ..spec }.to_string();
        Self { name, plan: MethodSpec { compression, ..spec }.into(), compression }
    }

    /// Dense attention.
    pub fn dense() -> Self {
        Self::new(MethodKind::Dense.into(), None)
    }

    /// Every method at every compression; those that state a ratio or sizes of their own, and dense
    /// attention, once.
    pub fn all(specs: &[MethodSpec], compressions: &[f64]) -> Vec<Self> {
        let variants = |spec: &MethodSpec| -> Vec<Self> {
            let is_sized = spec.kind == MethodKind::Dense || spec.keys.top_k.is_some();
            match spec.compression {
                None if !is_sized => {
                    compressions.iter().map(|&ratio| Self::new(*spec, Some(ratio))).collect()
                }
                ratio => vec![Self::new(*spec, ratio)],
            }
        };
        specs.iter().flat_map(variants).collect()
    }

    /// What the profile in a file says, named after the file.
    ///
    /// # Errors
    /// As [`Profile::read`].
    pub fn profile(path: &Path) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, plan: AttentionPlan::Profile(Profile::read(path)?), compression: None })
    }

    /// Whether it is dense attention.
    pub fn is_dense(&self) -> bool {
        self.plan.is_dense()
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
    /// As [`AttentionPlan::methods`].
    pub fn methods(&self, layers: &[AttentionLayer], length: usize) -> Result<Vec<Method>> {
        self.plan.methods(layers, length)
    }

    /// The sizes at `length`, as results record them: the method of the widest layer, or the notation
    /// of every layer of a profile.
    pub(super) fn record(&self, layers: &[AttentionLayer], length: usize) -> Result<serde_json::Value> {
        let methods = self.methods(layers, length)?;
        if let AttentionPlan::Profile(_) = self.plan {
            let layers: Vec<String> =
                methods.iter().map(|method| MethodSpec::from(method).to_string()).collect();
            return Ok(layers.into());
        }
        let method = widest(layers).and_then(|widest| methods.get(widest));
        Ok(serde_json::to_value(method).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_without_a_size_run_at_every_compression() {
        let specs =
            ["dense", "sparq", "h2o@4", "exact-topk:k=9"].map(|text| MethodSpec::parse(text).unwrap());
        let variants = Variant::all(&specs, &[2.0, 8.0]);
        let labels: Vec<(String, Option<f64>)> =
            variants.iter().map(|variant| (variant.name.clone(), variant.compression)).collect();
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
        assert_eq!((variant.name.as_str(), variant.compression), ("tuned", None));
        let layer = sparq_core::AttentionShape { heads: 2, kv_heads: 1, head_dim: 64 }.into();
        assert_eq!(variant.methods(&[layer, layer], 512).unwrap()[0], Method::Dense);
        assert_eq!(variant.record(&[layer, layer], 512).unwrap()[0], "dense");
        assert!(variant.is_in_reach(&[layer], 512).is_err(), "another number of layers");
    }
}
