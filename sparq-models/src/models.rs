//! Model families, one file each, and what they have in common.

pub mod llama;

use burn::tensor::Device;
use sparq_core::AttentionShape;

use burn::tensor::Tensor;

use crate::{
    checkpoint::{Checkpoint, Loader},
    error::{Error, Result},
    layers::Step,
    state::ModelState,
};

/// A decoder-only language model.
///
/// The model never sees which decode method runs: its attention layers hand their queries to the
/// [`ModelState`] that the caller made.
pub trait CausalModel: std::fmt::Debug + Send {
    /// Heads and sizes of each attention layer.
    fn attention_shapes(&self) -> Vec<AttentionShape>;

    /// Entries of the output vocabulary.
    fn vocab_size(&self) -> usize;

    /// Longest context that the model was made for, in tokens.
    fn max_position_embeddings(&self) -> usize;

    /// Where the weights lie.
    fn device(&self) -> &Device;

    /// Rotary embeddings for tokens at `positions: [batch, width]`, row-major.
    fn rotation(&self, positions: &[usize], batch: usize) -> crate::layers::Rotation;

    /// Hidden states `[batch · width, hidden]` after the last layer and its norm, for token `ids`
    /// `[batch, width]`, row-major.
    ///
    /// # Errors
    /// [`Error::Core`] where the state does not fit.
    fn hidden(&self, ids: &[u32], state: &mut ModelState, step: &Step) -> Result<Tensor<2>>;

    /// Logits `[tokens, vocab]` of hidden states `[tokens, hidden]`.
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2>;
}

type Load = fn(&Checkpoint, &mut Loader<'_>) -> Result<Box<dyn CausalModel>>;

/// An architecture that can be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// Its name in `config.json`.
    pub name: &'static str,
    /// The models that are built like this.
    pub family: &'static str,
    /// Repositories of some of them on huggingface.co.
    pub examples: &'static [&'static str],
    load: Load,
}

/// Everything that can be loaded, by the name in `config.json`.
const ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "LlamaForCausalLM",
    family: "Llama 2, 3, 3.1, 3.2 and models of their layout",
    examples: &["meta-llama/Llama-3.2-1B-Instruct", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"],
    load: llama::load,
}];

/// The architectures that can be loaded.
pub fn architectures() -> &'static [Architecture] {
    ARCHITECTURES
}

/// Names of the architectures that can be loaded.
pub fn supported() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|architecture| architecture.name).collect()
}

/// How to load the checkpoint's architecture.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`] that lists the supported ones.
pub(crate) fn loader_of(checkpoint: &Checkpoint) -> Result<Load> {
    let name = checkpoint.architecture()?;
    let found = ARCHITECTURES.iter().find(|architecture| architecture.name == name);
    found.map(|architecture| architecture.load).ok_or_else(|| Error::UnsupportedArchitecture {
        name: name.to_owned(),
        supported: supported().into_iter().map(str::to_owned).collect(),
    })
}
