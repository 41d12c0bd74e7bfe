//! Token embeddings.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::Linear;
use crate::checkpoint::Loader;

/// A table of token vectors.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[vocab, hidden]`
    weight: Tensor<2>,
}

impl Embedding {
    /// Reads `{name}.weight: [vocab, hidden]`.
    pub fn load(loader: &mut Loader<'_>, name: &str, [vocab, hidden]: [usize; 2]) -> Self {
        Self { weight: loader.tensor(&format!("{name}.weight"), [vocab, hidden]) }
    }

    /// The vectors of `ids`, one per token: `[tokens, hidden]` in f32.
    pub fn forward(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        let values: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(values, [ids.len()]), device);
        self.weight.clone().select(0, ids).cast(DType::F32)
    }

    /// The output projection of a model that ties it to the embeddings.
    pub fn tied_head(&self) -> Linear {
        Linear::from_weight(self.weight.clone())
    }
}
