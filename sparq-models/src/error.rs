//! What can go wrong between a model folder and text.

use std::path::PathBuf;

use burn::tensor::DType;

use crate::checkpoint::WeightReport;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and where.
///
/// The message says what failed and names the file, field or tensor; [`Error::hint`] says what to
/// do about it. Underlying errors are reachable through [`std::error::Error::source`] and are not
/// repeated in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model folder does not exist, or is not a folder.
    #[error("there is no model folder at `{}`", path.display())]
    FolderNotFound {
        /// The path that was asked for.
        path: PathBuf,
    },

    /// A file that the model needs is not in its folder.
    #[error("there is no file `{}`", path.display())]
    FileNotFound {
        /// The file that was looked for.
        path: PathBuf,
        /// Names of files beside it that look like weights.
        found: Vec<String>,
    },

    /// A file exists and cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },

    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },

    /// The notation of a decode method cannot be read.
    #[error("`{text}` names no decode method: {reason}")]
    MethodSpec {
        /// What was written.
        text: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },

    /// A decode method cannot move as little as it is asked to.
    #[error(
        "{method} cannot move one part in {ratio} of what dense attention moves: it stays above one in {least:.1}"
    )]
    Compression {
        /// The method.
        method: String,
        /// Dense bytes over the bytes that it should move.
        ratio: f64,
        /// The ratio that it cannot reach.
        least: f64,
    },

    /// A profile of decode methods does not have the form of one.
    #[error("`{}` is no profile: {message}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },

    /// What a file says does not fit the model.
    #[error("`{}`, {place}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The entry: a layer, a tensor.
        place: String,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// A profile is made for a model of another depth.
    #[error("the profile has {profile} layers, the model {model}")]
    ProfileLayers {
        /// Entries of the profile.
        profile: usize,
        /// Layers of the model.
        model: usize,
    },

    /// A file is not valid JSON.
    #[error("`{}` is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the JSON breaks.
        source: serde_json::Error,
    },

    /// A weight file has a header that cannot be read or that does not match its length.
    #[error("`{}` is not a complete safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with the header.
        source: safetensors::SafeTensorError,
    },

    /// A PyTorch weight file cannot be read, or holds something else than a state dict.
    #[error("`{}` is not a PyTorch state dict", path.display())]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<pytorch_reader::PytorchError>,
    },

    /// The model folder holds no weights under a name that is read.
    #[error("there are no weights in `{}` (looked for {})", folder.display(), looked_for.join(", "))]
    NoWeights {
        /// The model folder.
        folder: PathBuf,
        /// Names of the files that would have been read, in order.
        looked_for: Vec<&'static str>,
        /// Names of files in the folder that look like weights.
        found: Vec<String>,
    },

    /// A weight file holds a Git LFS pointer instead of the weights.
    #[error("`{}` is a Git LFS pointer, not the weights themselves", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },

    /// The index of a sharded checkpoint names files that are not there.
    #[error("`{}` names shards that are missing: {}", index.display(), shards.join(", "))]
    ShardsMissing {
        /// The index file.
        index: PathBuf,
        /// Names of the missing files.
        shards: Vec<String>,
    },

    /// The index of a sharded checkpoint promises a tensor that its shard does not hold.
    #[error("`{}` places tensor `{tensor}` in shard `{shard}`, which does not hold it", index.display())]
    ShardLacksTensor {
        /// The index file.
        index: PathBuf,
        /// Name of the shard.
        shard: String,
        /// The first such tensor, in the order of the names.
        tensor: String,
    },

    /// No model of this crate carries that architecture's name.
    #[error("architecture `{name}` is not supported (supported: {})", supported.join(", "))]
    UnsupportedArchitecture {
        /// The name in `config.json`.
        name: String,
        /// The names that are supported.
        supported: Vec<String>,
    },

    /// A field of a configuration file is missing, has the wrong type or an impossible value.
    #[error("`{}`: {message}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The field and what is wrong with it.
        message: String,
    },

    /// The tensors of the checkpoint are not those of the model.
    #[error("{0}")]
    Weights(Box<WeightReport>),

    /// The tokenizer cannot be read, or cannot encode or decode something.
    #[error("tokenizer `{}`: {message}", path.display())]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },

    /// A chat template cannot be parsed, or fails on a conversation.
    #[error("chat template in `{}`{place}: {message}", path.display())]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// `, line 3, ` and the piece of the template, as far as they are known.
        place: String,
        /// What is wrong.
        message: String,
    },

    /// The device cannot hold or compute in this number format.
    #[error("{device} does not support {}", dtype.name())]
    UnsupportedDtype {
        /// The number format.
        dtype: DType,
        /// The device.
        device: String,
    },

    /// A sampling option is out of its range.
    #[error("{option} is {value}, expected {expected}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// The value that was given.
        value: String,
        /// The range that is allowed.
        expected: &'static str,
    },

    /// The model's output is no distribution that a token can be drawn from.
    #[error("cannot choose a token: {message}")]
    InvalidLogits {
        /// What is wrong with the logits.
        message: String,
    },

    /// The prompt leaves no room for a new token.
    #[error("the prompt has {tokens} tokens, the longest context is {max_seq_len}")]
    PromptTooLong {
        /// Tokens of the prompt, with special tokens.
        tokens: usize,
        /// The longest context, prompt included.
        max_seq_len: usize,
    },

    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,

    /// A token that the model has no embedding for.
    #[error("token {id} is outside of the model's vocabulary of {vocab}")]
    TokenId {
        /// The token.
        id: u32,
        /// Entries of the vocabulary.
        vocab: usize,
    },

    /// The device failed to hand numbers back.
    #[error("cannot read results back from the device: {message}")]
    ReadBack {
        /// What the backend says.
        message: String,
    },

    /// A file of reference logits has another form than [`crate::verify`] reads.
    #[error("`{}` is no file of reference logits: {message}", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },

    /// A model on the hub was asked for, and this build cannot reach it.
    #[error("there is no model folder at `{name}`, and the hub is not compiled in")]
    NoHub {
        /// What was asked for.
        name: String,
    },

    /// The hub does not hand a model out.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),

    /// The attention layer failed.
    #[error(transparent)]
    Core(#[from] sparq_core::Error),

    /// An evaluation cannot be made.
    #[error(transparent)]
    Eval(#[from] crate::eval::EvalError),
}

impl Error {
    /// The next step for the user, where one is known: text for a line of its own.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::FolderNotFound { path } if path.is_file() => {
                Some("give the folder that holds config.json, not a file in it".into())
            }
            Error::FolderNotFound { .. } => Some(
                "a model is a folder with config.json, tokenizer.json and model.safetensors, or a name on the \
                 hub: ORG/NAME"
                    .into(),
            ),
            Error::FileNotFound { found, .. } => Some(missing_file_hint(found)),
            Error::NoWeights { found, .. } => Some(no_weights_hint(found)),
            Error::Pytorch { .. } => Some(
                "download it again if it is damaged; else save the model's state dict, best as safetensors"
                    .into(),
            ),
            Error::Json { .. } | Error::Safetensors { .. } => {
                Some("the file is damaged or was cut short: download it again".into())
            }
            Error::LfsPointer { .. } => {
                Some("run `git lfs pull` in the model folder, or download the file itself".into())
            }
            Error::ShardsMissing { .. } => Some("download the missing shards into the same folder".into()),
            Error::ShardLacksTensor { .. } => {
                Some("index and shards come from different downloads: download both again".into())
            }
            Error::MethodSpec { .. } => {
                Some("write NAME[@RATIO][:KEY=VALUE]…, such as sparq@8, sparq:r=16:k=64 or h2o:k=64".into())
            }
            Error::Compression { .. } => Some("ask for a smaller ratio, or state k".into()),
            Error::ProfileLayers { .. } => {
                Some("a profile fits one model: make one for this model with `sparq tune`".into())
            }
            Error::InFile { source, .. } => source.hint(),
            Error::Weights(report) => report.hint(),
            Error::Template { .. } => Some(
                "--no-chat-template does without it; a template that refuses the conversation may need one \
                 without --system"
                    .into(),
            ),
            Error::UnsupportedDtype { .. } => Some("try --dtype f32".into()),
            Error::InvalidLogits { .. } => {
                Some("the model's numbers overflowed: try --dtype f32, and check the weights".into())
            }
            Error::PromptTooLong { .. } => {
                Some("shorten the prompt, or raise --max-seq-len if the model allows more".into())
            }
            Error::TokenId { .. } => Some("tokenizer.json and the weights come from different models".into()),
            Error::NoHub { name } => Some(format!(
                "rebuild with `--features hub`, or `hf download {name} --local-dir FOLDER` and give the folder"
            )),
            #[cfg(feature = "hub")]
            Error::Hub(error) => Some(error.hint()),
            Error::Core(error) => error.hint(),
            Error::Eval(error) => error.hint(),
            Error::EmptyPrompt
            | Error::ReadBack { .. }
            | Error::Reference { .. }
            | Error::Io { .. }
            | Error::Write { .. }
            | Error::Profile { .. }
            | Error::UnsupportedArchitecture { .. }
            | Error::Config { .. }
            | Error::Tokenizer { .. }
            | Error::InvalidOption { .. } => None,
        }
    }
}

/// What to do about a missing file that is no weight file.
fn missing_file_hint(found: &[String]) -> String {
    match !found.is_empty() && found.iter().all(|name| name.ends_with(".gguf")) {
        true => gguf_hint(found),
        false => "the folder is incomplete: download this file as well".into(),
    }
}

/// What to do about missing weights, going by the weight-like files that are there instead.
fn no_weights_hint(found: &[String]) -> String {
    let list = found.join(", ");
    let any = |suffixes: &[&str]| {
        let ends = |name: &String| suffixes.iter().any(|suffix| name.ends_with(suffix));
        found.iter().any(ends)
    };
    let shards = |suffix: &str| found.iter().any(|name| name.contains("-of-") && name.ends_with(suffix));
    if found.is_empty() {
        "the folder holds no weights: download model.safetensors as well".into()
    } else if shards(".safetensors") {
        format!("found shards without model.safetensors.index.json, download it as well: {list}")
    } else if shards(".bin") {
        format!("found shards without pytorch_model.bin.index.json, download it as well: {list}")
    } else if any(&[".safetensors"]) {
        format!("found {list}: rename the file that holds the weights to model.safetensors")
    } else if any(&[".bin", ".pt", ".pth"]) {
        format!("found {list}: rename the file that holds the weights to pytorch_model.bin")
    } else {
        gguf_hint(found)
    }
}

fn gguf_hint(found: &[String]) -> String {
    format!("found {}: GGUF is not read, use the original model with safetensors files", found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_goes_by_the_files_that_are_there() {
        let owned = |found: &[&str]| found.iter().map(|&name| name.to_owned()).collect();
        let weights = |found: &[&str]| {
            let (folder, looked_for) = ("m".into(), vec!["model.safetensors"]);
            Error::NoWeights { folder, looked_for, found: owned(found) }.hint().unwrap()
        };
        assert!(weights(&["consolidated.00.pth"]).contains("rename"));
        assert!(weights(&["llama-q4.gguf"]).contains("GGUF is not read"));
        assert!(weights(&["m-1-of-2.safetensors"]).contains("model.safetensors.index.json"));
        assert!(weights(&["m-1-of-2.bin"]).contains("pytorch_model.bin.index.json"));
        assert!(weights(&["weights.safetensors"]).contains("rename"));
        assert!(weights(&[]).contains("holds no weights"));
        let file = |found: &[&str]| {
            Error::FileNotFound { path: "m/config.json".into(), found: owned(found) }.hint().unwrap()
        };
        assert!(file(&["x.gguf"]).contains("GGUF is not read"));
        assert!(file(&["model.safetensors"]).contains("download this file"));
        assert!(file(&[]).contains("download this file"));
    }

    #[test]
    fn messages_name_the_place_and_keep_the_source_apart() {
        let error = Error::Io { path: "m/config.json".into(), source: std::io::Error::other("disk on fire") };
        assert_eq!(error.to_string(), "cannot read `m/config.json`");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "disk on fire");
        let error = Error::UnsupportedArchitecture {
            name: "Qwen2MoeForCausalLM".into(),
            supported: vec!["LlamaForCausalLM".into()],
        };
        let message = "architecture `Qwen2MoeForCausalLM` is not supported (supported: LlamaForCausalLM)";
        assert_eq!(error.to_string(), message);
    }
}
