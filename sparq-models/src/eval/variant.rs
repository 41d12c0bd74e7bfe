//! A decode method at one size.

use sparq_core::{AttentionLayer, Method};

use crate::{
    attention::{MethodName, MethodSpec},
    error::{Error, Result},
};

/// A decode method at one size, as an evaluation runs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The method, in the notation that was typed.
    pub spec: MethodSpec,
    /// Dense bytes over the method's; `None` for dense attention and for methods whose sizes are stated.
    pub compression: Option<f64>,
}

impl Variant {
    /// Dense attention.
    pub fn dense() -> Self {
        Self { spec: MethodName::Dense.into(), compression: None }
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
            let spec = spec.clone();
            sizes(&spec).into_iter().map(|compression| Self { spec: spec.clone(), compression }).collect()
        };
        specs.iter().flat_map(variant).collect()
    }

    /// Whether it is dense attention.
    pub fn is_dense(&self) -> bool {
        self.spec.name == MethodName::Dense
    }

    /// The name in tables: the notation without its ratio.
    pub fn name(&self) -> String {
        MethodSpec { compression: None, ..self.spec.clone() }.to_string()
    }

    /// Whether the method can move as little as is asked of it.
    ///
    /// # Errors
    /// Other errors of its sizes.
    pub fn is_in_reach(&self, layers: &[AttentionLayer], length: usize) -> Result<bool> {
        for layer in layers {
            match self.method(layer, length) {
                Err(Error::Compression { .. }) => return Ok(false),
                other => other?,
            };
        }
        Ok(true)
    }

    /// The method of a layer for contexts of `length` tokens.
    ///
    /// # Errors
    /// [`Error::Core`] for sizes out of range, [`Error::Compression`] for a ratio out of reach.
    pub fn method(&self, layer: &AttentionLayer, length: usize) -> Result<Method> {
        self.spec.resolve(layer, length, self.compression.unwrap_or(crate::attention::COMPRESSION))
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
        let reach =
            |ratio| Variant { spec: spec.clone(), compression: Some(ratio) }.is_in_reach(&[layer], 512);
        assert!(reach(1.5).unwrap() && !reach(4.0).unwrap());
    }
}
