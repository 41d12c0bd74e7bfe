//! Token embeddings.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::{bf16, f16};

use super::Linear;
use crate::checkpoint::Loader;

/// A table of token vectors.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[vocab, hidden]`
    weight: Tensor<2>,
    /// What vectors are multiplied by.
    scale: Option<f32>,
}

impl Embedding {
    /// Reads `{name}.weight: [vocab, hidden]`.
    pub fn load(loader: &mut Loader<'_>, name: &str, [vocab, hidden]: [usize; 2]) -> Self {
        Self { weight: loader.tensor(&format!("{name}.weight"), [vocab, hidden]), scale: None }
    }

    /// Multiplies the vectors by `scale`, rounded to the dtype of the table as transformers does
    /// (<https://github.com/huggingface/transformers/pull/29402>). A tied head is not scaled.
    pub fn scaled(self, scale: f64) -> Self {
        let scale = match self.weight.dtype() {
            DType::F16 => f16::from_f64(scale).to_f32(),
            DType::BF16 => bf16::from_f64(scale).to_f32(),
            _ => scale as f32,
        };
        Self { scale: Some(scale), ..self }
    }

    /// The vectors of `ids`, one per token: `[tokens, hidden]` in f32.
    pub fn forward(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        let values: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(values, [ids.len()]), device);
        let vectors = self.weight.clone().select(0, ids).cast(DType::F32);
        match self.scale {
            Some(scale) => vectors * scale,
            None => vectors,
        }
    }

    /// The output projection of a model that ties it to the embeddings.
    pub fn tied_head(&self) -> Linear {
        Linear::from_weight(self.weight.clone())
    }
}
