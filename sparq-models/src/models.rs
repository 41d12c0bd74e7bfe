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
    checkpoint::Loader,
    config::{ConfigFields, KeyUse, Keys, ModelConfig, brief},
    error::{Error, Result, excerpt},
    layers::{Rotation, Step},
    state::ModelState,
};

/// A decoder-only language model.
///
/// The model never sees which decode method runs: its attention layers hand their queries to the
/// [`ModelState`] that the caller made.
///
/// The families here implement it, and so may types of other crates: [`crate::TextModel::new`] takes any.
pub trait CausalModel: std::fmt::Debug + Send + Sync {
    /// Heads and sizes, sliding window and soft cap of each attention layer.
    fn attention_layers(&self) -> Vec<AttentionLayer>;

    /// Entries of the output vocabulary.
    fn vocab_size(&self) -> usize;

    /// Longest context that the model was made for, in tokens.
    fn max_position_embeddings(&self) -> usize;

    /// Where the weights lie.
    fn device(&self) -> &Device;

    /// Rotary embeddings for tokens at these positions, each in a text of so many tokens as `lens` says: one for
    /// each that the model has. Models without rotary embeddings have none.
    fn rotations(&self, positions: &[usize], lens: &[usize]) -> Vec<Rotation> {
        let _ = (positions, lens);
        vec![]
    }

    /// The longest text whose keys are rotated as those of a short one, where longer texts rotate them
    /// otherwise (LongRoPE): what is cached is of no use on the other side.
    fn longest_with_short_factors(&self) -> Option<usize> {
        None
    }

    /// Hidden states `[tokens, hidden]` after the last layer and its norm, for the token `ids` of a step.
    ///
    /// # Errors
    /// [`Error::StateLayers`] for a state of another model, [`Error::Core`] where the state does not fit.
    fn hidden(&self, ids: &[u32], state: &mut ModelState, step: &Step) -> Result<Tensor<2>>;

    /// Logits `[tokens, vocab]` of hidden states `[tokens, hidden]`.
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2>;
}

/// An architecture that can be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// Its name in `config.json`.
    pub name: &'static str,
    /// Its `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The models that are built like this.
    pub family: &'static str,
    /// Repositories of some of them on huggingface.co.
    pub examples: &'static [&'static str],
    keys: Keys,
    read: fn(&ConfigFields<'_>) -> Result<ModelConfig>,
    load: fn(ModelConfig, &mut Loader<'_>) -> Result<Box<dyn CausalModel>>,
}

/// Everything that can be loaded, by the name in `config.json`.
const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "GPTNeoXForCausalLM",
        model_type: "gpt_neox",
        family: "GPT-NeoX, Pythia",
        examples: &["EleutherAI/pythia-1.4b", "EleutherAI/gpt-neox-20b"],
        keys: gpt_neox::KEYS,
        read: gpt_neox::read,
        load: gpt_neox::load,
    },
    Architecture {
        name: "Gemma2ForCausalLM",
        model_type: "gemma2",
        family: "Gemma 2",
        examples: &["google/gemma-2-2b-it", "google/gemma-2-9b-it"],
        keys: gemma2::KEYS,
        read: gemma2::read,
        load: gemma2::load,
    },
    Architecture {
        name: "Gemma3ForCausalLM",
        model_type: "gemma3_text",
        family: "Gemma 3, text",
        examples: &["google/gemma-3-270m-it", "google/gemma-3-1b-it"],
        keys: gemma3::KEYS,
        read: gemma3::read,
        load: gemma3::load,
    },
    Architecture {
        name: "GemmaForCausalLM",
        model_type: "gemma",
        family: "Gemma",
        examples: &["google/gemma-2b-it", "google/gemma-7b-it"],
        keys: gemma::KEYS,
        read: gemma::read,
        load: gemma::load,
    },
    Architecture {
        name: "LlamaForCausalLM",
        model_type: "llama",
        family: "Llama 2, 3, 3.1, 3.2 and models of their layout",
        examples: &["meta-llama/Llama-3.2-1B-Instruct", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"],
        keys: llama::KEYS,
        read: llama::read,
        load: llama::load,
    },
    Architecture {
        name: "MistralForCausalLM",
        model_type: "mistral",
        family: "Mistral 7B, Nemo, Small (text)",
        examples: &["mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-Nemo-Instruct-2407"],
        keys: mistral::KEYS,
        read: mistral::read,
        load: mistral::load,
    },
    Architecture {
        name: "Phi3ForCausalLM",
        model_type: "phi3",
        family: "Phi-3, Phi-3.5, Phi-4",
        examples: &["microsoft/Phi-3.5-mini-instruct", "microsoft/Phi-4-mini-instruct"],
        keys: phi3::KEYS,
        read: phi3::read,
        load: phi3::load,
    },
    Architecture {
        name: "Qwen2ForCausalLM",
        model_type: "qwen2",
        family: "Qwen 2, 2.5",
        examples: &["Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct-1M"],
        keys: qwen2::KEYS,
        read: qwen2::read,
        load: qwen2::load,
    },
    Architecture {
        name: "Qwen3ForCausalLM",
        model_type: "qwen3",
        family: "Qwen 3",
        examples: &["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"],
        keys: qwen3::KEYS,
        read: qwen3::read,
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

/// The fields of `config.json` that are known for an architecture, by name, and what comes of each; `None`
/// for one that cannot be loaded. A field that is not listed may hold anything.
pub fn config_keys(architecture: &str) -> Option<Vec<(&'static str, KeyUse)>> {
    let found = ARCHITECTURES.iter().find(|known| known.name == architecture);
    found.map(|architecture| architecture.keys.list())
}

/// The name of the architecture that `config.json` states: the first entry of `architectures`, with an output
/// layer where that is the class without one, or in files
/// without one that of the `model_type`; an unknown `model_type` as it is.
///
/// # Errors
/// [`Error::Config`] if the file has neither.
pub(crate) fn architecture_name<'a>(fields: &ConfigFields<'a>) -> Result<&'a str> {
    match fields.value("architectures") {
        Some(serde_json::Value::Array(list)) if !list.is_empty() => match list[0].as_str() {
            // A checkpoint of the base model names the class of that.
            Some(name) => {
                let base = name.strip_suffix("Model");
                let is_whole = |known: &&Architecture| known.name.strip_suffix("ForCausalLM") == base;
                let whole = base.and_then(|_| ARCHITECTURES.iter().find(is_whole));
                Ok(whole.map_or(name, |known| known.name))
            }
            None => {
                let problem = format!("expected the name of an architecture, found {}", brief(&list[0]));
                Err(fields.bad_field("architectures", problem))
            }
        },
        None | Some(serde_json::Value::Array(_)) => {
            let model_type = model_type(fields)?.ok_or_else(|| fields.missing("architectures"))?;
            let known = ARCHITECTURES.iter().find(|known| known.model_type == model_type);
            Ok(known.map_or(model_type, |known| known.name))
        }
        Some(other) => {
            Err(fields
                .bad_field("architectures", format!("expected a list of texts, found {}", brief(other))))
        }
    }
}

fn model_type<'a>(fields: &ConfigFields<'a>) -> Result<Option<&'a str>> {
    match fields.value("model_type") {
        None => Ok(None),
        Some(serde_json::Value::String(model_type)) => Ok(Some(model_type)),
        Some(other) => {
            Err(fields.bad_field("model_type", format!("expected a text, found {}", brief(other))))
        }
    }
}

impl Architecture {
    /// The architecture that `config.json` states.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`] that lists the supported ones, [`Error::Config`] where the file
    /// states none, or two.
    pub(crate) fn of(fields: &ConfigFields<'_>) -> Result<&'static Self> {
        let name = architecture_name(fields)?;
        let model_type = model_type(fields)?;
        let Some(found) = ARCHITECTURES.iter().find(|known| known.name == name) else {
            return Err(match model_type.filter(|model_type| *model_type == name) {
                Some(_) => {
                    let known: Vec<_> = ARCHITECTURES.iter().map(|known| known.model_type).collect();
                    fields.error(format!(
                        "field `architectures` is missing, and model_type = {} is none of {}",
                        brief(&name.into()),
                        known.join(", ")
                    ))
                }
                None => Error::UnsupportedArchitecture {
                    path: fields.path().to_owned(),
                    name: excerpt(name),
                    supported: supported().into_iter().map(str::to_owned).collect(),
                },
            });
        };
        // transformers builds what `model_type` says.
        match model_type {
            Some(other) if other != found.model_type => Err(fields.error(format!(
                "model_type = {} is not that of architectures = [\"{}\"], which is \"{}\": one of the two is wrong",
                brief(&other.into()),
                found.name,
                found.model_type
            ))),
            _ => Ok(found),
        }
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field that is missing, wrong, or asks for what is not built.
    pub(crate) fn config(&self, fields: &ConfigFields<'_>) -> Result<ModelConfig> {
        self.keys.check(fields)?;
        (self.read)(fields)
    }

    /// Loads the weights of a model of this architecture.
    ///
    /// # Errors
    /// [`Error::Config`] where the configuration and the weights are at odds. Tensors that do not fit are
    /// named by [`Loader::finish`].
    pub(crate) fn load(&self, config: ModelConfig, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
        (self.load)(config, loader)
    }
}

#[cfg(test)]
mod tests;
