//! Model families, one file each, and what they have in common.

mod decoder;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt_neox;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;

use burn::tensor::{Device, Tensor};
use sparq_core::AttentionLayer;

use crate::{
    checkpoint::{Checkpoint, Loader},
    error::{Error, Result},
    layers::{Rotation, Step},
    state::ModelState,
};

/// A decoder-only language model.
///
/// The model never sees which decode method runs: its attention layers hand their queries to the
/// [`ModelState`] that the caller made.
pub trait CausalModel: std::fmt::Debug + Send + Sync {
    /// Heads and sizes, sliding window and soft cap of each attention layer.
    fn attention_layers(&self) -> Vec<AttentionLayer>;

    /// Entries of the output vocabulary.
    fn vocab_size(&self) -> usize;

    /// Longest context that the model was made for, in tokens.
    fn max_position_embeddings(&self) -> usize;

    /// Where the weights lie.
    fn device(&self) -> &Device;

    /// Rotary embeddings for tokens at `positions: [batch, width]`, row-major, in a run of up to
    /// `max_len` tokens: one for each that the model has.
    fn rotations(&self, positions: &[usize], batch: usize, max_len: usize) -> Vec<Rotation>;

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
const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "GPTNeoXForCausalLM",
        family: "GPT-NeoX, Pythia",
        examples: &["EleutherAI/pythia-1.4b", "EleutherAI/gpt-neox-20b"],
        load: gpt_neox::load,
    },
    Architecture {
        name: "Gemma2ForCausalLM",
        family: "Gemma 2",
        examples: &["google/gemma-2-2b-it", "google/gemma-2-9b-it"],
        load: gemma2::load,
    },
    Architecture {
        name: "Gemma3ForCausalLM",
        family: "Gemma 3, text",
        examples: &["google/gemma-3-270m-it", "google/gemma-3-1b-it"],
        load: gemma3::load,
    },
    Architecture {
        name: "GemmaForCausalLM",
        family: "Gemma",
        examples: &["google/gemma-2b-it", "google/gemma-7b-it"],
        load: gemma::load,
    },
    Architecture {
        name: "LlamaForCausalLM",
        family: "Llama 2, 3, 3.1, 3.2 and models of their layout",
        examples: &["meta-llama/Llama-3.2-1B-Instruct", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"],
        load: llama::load,
    },
    Architecture {
        name: "MistralForCausalLM",
        family: "Mistral 7B, Nemo, Small (text)",
        examples: &["mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-Nemo-Instruct-2407"],
        load: mistral::load,
    },
    Architecture {
        name: "Phi3ForCausalLM",
        family: "Phi-3, Phi-3.5, Phi-4",
        examples: &["microsoft/Phi-3.5-mini-instruct", "microsoft/Phi-4-mini-instruct"],
        load: phi3::load,
    },
    Architecture {
        name: "Qwen2ForCausalLM",
        family: "Qwen 2, 2.5",
        examples: &["Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct-1M"],
        load: qwen2::load,
    },
    Architecture {
        name: "Qwen3ForCausalLM",
        family: "Qwen 3",
        examples: &["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"],
        load: qwen3::load,
    },
];

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

#[cfg(test)]
mod tests;
