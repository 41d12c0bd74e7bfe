//! What all families share: embedding, blocks one after the other, norm, output projection.

use burn::tensor::{Device, Tensor};
use sparq_core::{AttentionLayer, LayerState};

use super::CausalModel;
use crate::{
    checkpoint::{Loader, Tie},
    config::ModelConfig,
    error::{Error, Result},
    layers::{Attention, Embedding, Linear, Norm, Rope, Rotation, Step},
    state::ModelState,
};

/// A family's decoder layer.
pub(super) trait Block: std::fmt::Debug + Send + Sync {
    /// Its attention.
    fn attention(&self) -> &Attention;

    /// Hidden states `[tokens, hidden]` to the same shape.
    fn forward(&self, x: Tensor<2>, state: &mut LayerState, step: &Step) -> Result<Tensor<2>>;
}

/// A decoder made of a family's blocks.
#[derive(Debug)]
pub(super) struct Decoder<B> {
    config: ModelConfig,
    device: Device,
    /// One for most families; layers name theirs by index.
    ropes: Vec<Rope>,
    embed_tokens: Embedding,
    layers: Vec<B>,
    norm: Norm,
    lm_head: Linear,
}

/// What the parts of a family's checkpoint are called, and what is its own in those that all have.
pub(super) struct Parts {
    /// The embedding table.
    pub(super) embedding: &'static str,
    /// What the names of the layers begin with.
    pub(super) layers: &'static str,
    /// The last norm.
    pub(super) norm: &'static str,
    /// Names of the output projection: the first that the checkpoint holds counts.
    pub(super) heads: &'static [&'static str],
    /// Reads a norm of this name, width and epsilon.
    pub(super) load_norm: fn(&mut Loader<'_>, &str, usize, f64) -> Norm,
    /// Whether token vectors are multiplied by the root of their width.
    pub(super) scaled_embeddings: bool,
}

impl Parts {
    /// Llama's, and those of most families since.
    pub(super) const LLAMA: Self = Self {
        embedding: "model.embed_tokens",
        layers: "model.layers",
        norm: "model.norm",
        heads: &["lm_head"],
        load_norm: Norm::rms,
        scaled_embeddings: false,
    };

    /// Gemma's: norms of `1 + weight`, scaled embeddings.
    pub(super) const GEMMA: Self =
        Self { load_norm: Norm::rms_one_plus, scaled_embeddings: true, ..Self::LLAMA };

    /// The name of part `part` of layer `index`.
    pub(super) fn of_layer(&self, index: usize, part: &str) -> String {
        format!("{}.{index}.{part}", self.layers)
    }
}

/// Loads a decoder: `load_layer` reads the layer of an index.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) where the configuration has more layers than the weights.
pub(super) fn load<B: Block + 'static>(
    config: ModelConfig,
    loader: &mut Loader<'_>,
    parts: &Parts,
    load_layer: fn(&mut Loader<'_>, usize, &ModelConfig) -> B,
) -> Result<Box<dyn CausalModel>> {
    let hidden = config.hidden_size;
    // Compared before anything is kept for each layer.
    let layers = loader.layers(parts.layers, config.num_hidden_layers)?;
    let (mut embed_tokens, lm_head) = embedding_and_head(&config, loader, parts);
    if parts.scaled_embeddings {
        embed_tokens = embed_tokens.scaled((hidden as f64).sqrt());
    }
    let layers = (0..layers).map(|index| load_layer(loader, index, &config)).collect();
    let norm = (parts.load_norm)(loader, parts.norm, hidden, config.norm_epsilon);
    // Sizes that the weights do not bear out may be of any size.
    let ropes = match loader.fits() {
        true => config.ropes.iter().map(|(_, rope)| Rope::new(rope)).collect(),
        false => vec![],
    };
    let device = loader.device().clone();
    Ok(Box::new(Decoder { config, device, ropes, embed_tokens, layers, norm, lm_head }))
}

/// The embedding table and the output projection. Where the configuration ties them they are one tensor,
/// unless the checkpoint holds two that differ.
fn embedding_and_head(config: &ModelConfig, loader: &mut Loader<'_>, parts: &Parts) -> (Embedding, Linear) {
    let table = config.table();
    let head = parts.heads.iter().find(|head| loader.contains(&format!("{head}.weight")));
    let head = head.or(parts.heads.last()).copied().unwrap_or_default();
    let names = [parts.embedding, head].map(|name| format!("{name}.weight"));
    let [embedding, output] = &names;
    let (source, is_tied) = match config.tied.then(|| loader.tie(embedding, output)) {
        None | Some(Tie::Different) => (parts.embedding, false),
        Some(Tie::Shared) => (parts.embedding, true),
        Some(Tie::HeadAlone) => (head, true),
    };
    let embed_tokens = Embedding::load(loader, source, table);
    let lm_head = match is_tied {
        true => embed_tokens.tied_head(),
        false => Linear::load(loader, head, table, false),
    };
    (embed_tokens, lm_head)
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

    fn rotations(&self, positions: &[usize], lens: &[usize]) -> Vec<Rotation> {
        self.ropes.iter().map(|rope| rope.at(positions, lens, &self.device)).collect()
    }

    fn longest_with_short_factors(&self) -> Option<usize> {
        self.ropes.iter().filter_map(Rope::longest_with_short_factors).min()
    }

    fn hidden(&self, ids: &[u32], state: &mut ModelState, step: &Step) -> Result<Tensor<2>> {
        let (layers, own) = (state.layers().len(), self.layers.len());
        if layers != own {
            return Err(Error::StateLayers { state: layers, model: own });
        }
        let mut x = self.embed_tokens.forward(ids, &self.device);
        for (block, state) in self.layers.iter().zip(state.layers_mut()) {
            x = block.forward(x, state, step)?;
        }
        Ok(self.norm.forward(x))
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = self.lm_head.forward(hidden);
        match self.config.logit_softcap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }
}
