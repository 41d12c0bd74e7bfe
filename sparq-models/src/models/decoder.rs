//! What all families share: embedding, blocks one after the other, norm, output projection.

use burn::tensor::{Device, Tensor};
use sparq_core::{AttentionLayer, LayerState};

use super::CausalModel;
use crate::{
    checkpoint::Loader,
    config::ModelConfig,
    error::Result,
    layers::{Attention, Embedding, Linear, Norm, Rope, Rotation, Step},
    state::ModelState,
};

/// A family's decoder layer.
pub(super) trait Block: std::fmt::Debug + Send + Sync {
    /// Its attention.
    fn attention(&self) -> &Attention;

    /// Hidden states `[batch · width, hidden]` to the same shape.
    fn forward(&self, x: Tensor<2>, state: &mut LayerState, step: &Step) -> Result<Tensor<2>>;
}

/// A decoder made of a family's blocks.
#[derive(Debug)]
pub(super) struct Decoder<B> {
    pub(super) config: ModelConfig,
    pub(super) device: Device,
    /// One for most families; layers name theirs by index.
    pub(super) ropes: Vec<Rope>,
    pub(super) embed_tokens: Embedding,
    pub(super) layers: Vec<B>,
    pub(super) norm: Norm,
    pub(super) lm_head: Linear,
    /// `cap · tanh(logit / cap)` on the output.
    pub(super) logit_softcap: Option<f64>,
}

/// The output projection: the embeddings where they are `tied`, else the weight below `name`.
pub(super) fn lm_head(
    loader: &mut Loader<'_>,
    name: &str,
    config: &ModelConfig,
    tied: Option<&Embedding>,
) -> Linear {
    match tied {
        Some(embedding) => {
            // Some files hold the shared weight under both names.
            loader.ignore(|tensor| tensor == format!("{name}.weight"));
            embedding.tied_head()
        }
        None => Linear::load(loader, name, config.table(), false),
    }
}

impl<B: Block> CausalModel for Decoder<B> {
    fn attention_layers(&self) -> Vec<AttentionLayer> {
        self.layers.iter().map(|block| block.attention().layer()).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn rotations(&self, positions: &[usize], batch: usize, max_len: usize) -> Vec<Rotation> {
        self.ropes.iter().map(|rope| rope.at(positions, batch, max_len, &self.device)).collect()
    }

    fn hidden(&self, ids: &[u32], state: &mut ModelState, step: &Step) -> Result<Tensor<2>> {
        let mut x = self.embed_tokens.forward(ids, &self.device);
        for (block, state) in self.layers.iter().zip(state.layers_mut()) {
            x = block.forward(x, state, step)?;
        }
        Ok(self.norm.forward(x))
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = self.lm_head.forward(hidden);
        match self.logit_softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }
}
