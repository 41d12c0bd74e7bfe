//! What can go wrong between a model folder and text.

mod shorten;

use std::path::{Path, PathBuf};

use burn::tensor::DType;

pub use shorten::shorten;
pub(crate) use shorten::{excerpt, list, shown};

use crate::checkpoint::{FileError, WeightReport};

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

    /// A state is made for a model of another depth.
    #[error("the state has {state} layers, the model {model}")]
    StateLayers {
        /// Layers of the state.
        state: usize,
        /// Layers of the model.
        model: usize,
    },

    /// A profile is made for a model of another depth.
    #[error("the profile has {profile} layer{}, the model {model}", if *profile == 1 { "" } else { "s" })]
    ProfileLayers {
        /// Entries of the profile.
        profile: usize,
        /// Layers of the model.
        model: usize,
    },

    /// A file of the model folder is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),

    /// No model of this crate carries that architecture's name.
    #[error(
        "`{}`: architecture `{name}` is not supported (supported: {})", path.display(), supported.join(", ")
    )]
    UnsupportedArchitecture {
        /// The configuration file.
        path: PathBuf,
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

    /// The model folder has no `tokenizer.json`.
    #[error("there is no file `{}`", path.display())]
    NoTokenizer {
        /// The file that was looked for.
        path: PathBuf,
        /// Names of files beside it that hold a tokenizer in another form.
        found: Vec<String>,
    },

    /// A text has a token that the model has no embedding for.
    #[error(
        "tokenizer `{}`: token {id}, `{token}`, is outside of the model's vocabulary: the file has {tokens} \
         tokens, the embedding table {rows} rows",
        path.display()
    )]
    TokenBeyond {
        /// The tokenizer file.
        path: PathBuf,
        /// The token's id.
        id: u32,
        /// Its spelling.
        token: String,
        /// Tokens of the file.
        tokens: usize,
        /// Entries of the model's vocabulary.
        rows: usize,
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
        /// What helps.
        hint: &'static str,
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

    /// The settings of sampling leave no token to choose.
    #[error("cannot choose a token: {message} after {settings}")]
    NoTokenLeft {
        /// What is wrong with the logits.
        message: String,
        /// The settings that changed them.
        settings: String,
    },

    /// The prompt does not fit into the context.
    #[error(
        "the prompt has {tokens} tokens, the longest context is {max_seq_len} \
         (max_position_embeddings = {of_model} in config.json)"
    )]
    PromptTooLong {
        /// Tokens of the prompt, with special tokens.
        tokens: usize,
        /// The longest context, prompt included.
        max_seq_len: usize,
        /// The model's own limit.
        of_model: usize,
    },

    /// Numbers of the model stopped to be finite.
    #[error("the model's numbers overflowed: {0}")]
    Overflow(crate::overflow::Overflow),

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
            Error::FolderNotFound { path } if name_of_page(path).is_some() => {
                name_of_page(path).map(|name| format!("write it as {name}"))
            }
            Error::FolderNotFound { .. } => Some(
                "a model is a folder with config.json, tokenizer.json and model.safetensors, or a name on the \
                 hub: ORG/NAME"
                    .into(),
            ),
            Error::FileNotFound { path } => Some(match crate::checkpoint::model_name(path) {
                Some(name) => format!("the model is incomplete in the cache: `sparq pull {name}`"),
                None => "the folder is incomplete: download this file as well".into(),
            }),
            Error::File(error) => Some(error.hint()),
            Error::MethodSpec { .. } => {
                Some("write NAME[@RATIO][:KEY=VALUE]…, such as sparq@8, sparq:r=16:k=64 or h2o:k=64".into())
            }
            Error::Compression { method, .. } if method.contains(":k=") => {
                Some("state a smaller k, or r as well, or ask for a smaller ratio".into())
            }
            Error::Compression { method, .. } if method.contains(":r=") => {
                Some("state a smaller r, or k as well, or ask for a smaller ratio".into())
            }
            Error::Compression { .. } => Some("ask for a smaller ratio, or state k".into()),
            Error::ProfileLayers { .. } => {
                Some("a profile fits one model: make one for this model".into())
            }
            Error::StateLayers { .. } => Some("make the state for this model".into()),
            Error::InFile { source, .. } => source.hint(),
            Error::Weights(report) => report.hint(),
            Error::Template { hint, .. } => Some((*hint).into()),
            Error::UnsupportedDtype { .. } => Some("try f32".into()),
            Error::NoTokenLeft { .. } => {
                Some("change these settings, or leave out those of generation_config.json".into())
            }
            Error::Overflow(overflow) => Some(overflow.hint()),
            Error::PromptTooLong { .. } => {
                Some("shorten the prompt, or allow a longer context if the model does".into())
            }
            Error::NoTokenizer { path, found } => Some(tokenizer_hint(path, found)),
            Error::TokenId { .. } | Error::TokenBeyond { .. } => Some(
                "tokenizer.json and the weights come from different models: download both again from one place"
                    .into(),
            ),
            Error::NoHub { name } => Some(format!(
                "rebuild with `--features hub`, or `hf download {name} --local-dir FOLDER` and give the folder"
            )),
            #[cfg(feature = "hub")]
            Error::Hub(error) => Some(error.hint()),
            Error::Core(error) => error.hint(),
            Error::Eval(error) => error.hint(),
            Error::Reference { .. } => Some("docs/models.md says what tensors and metadata it holds".into()),
            Error::EmptyPrompt
            | Error::ReadBack { .. }
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

/// `ORG/NAME[@REVISION]` of the address of a model's page on the hub.
fn name_of_page(path: &Path) -> Option<String> {
    let address = path.to_str()?;
    let rest =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let (host, rest) = rest.split_once('/')?;
    let rest = ["huggingface.co", "www.huggingface.co", "hf.co"].contains(&host).then_some(rest)?;
    let mut parts = rest.split(['/', '?', '#']).filter(|part| !part.is_empty());
    let name = format!("{}/{}", parts.next()?, parts.next()?);
    Some(match (parts.next(), parts.next()) {
        (Some("tree"), Some(revision)) if revision != "main" => format!("{name}@{revision}"),
        _ => name,
    })
}

/// What to do about a missing `tokenizer.json`, going by the files that are there instead.
fn tokenizer_hint(path: &Path, found: &[String]) -> String {
    if found.is_empty() {
        return "the folder is incomplete: download this file as well".into();
    }
    let form = match found[0].rsplit('.').next() {
        Some("model") => "a SentencePiece or tiktoken model",
        _ => "an older form",
    };
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    format!(
        "found {}: {form} of the tokenizer, which is not read. Make tokenizer.json of it with Python's \
         transformers: python -c \"from transformers import AutoTokenizer; \
         AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\"",
        found.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_leave_no_token_have_a_next_step() {
        let settings = Error::NoTokenLeft { message: String::new(), settings: String::new() };
        assert!(settings.hint().unwrap().contains("generation_config.json"));
    }

    #[test]
    fn the_hint_for_a_tokenizer_goes_by_the_files_that_are_there() {
        let tokenizer = |found: &[&str]| {
            let found = found.iter().map(|&name| name.to_owned()).collect();
            Error::NoTokenizer { path: "m/tokenizer.json".into(), found }.hint().unwrap()
        };
        assert!(tokenizer(&[]).contains("download this file"));
        let hint = tokenizer(&["tokenizer.model"]);
        assert!(hint.contains("SentencePiece") && hint.contains("from_pretrained('m')"), "{hint}");
        assert!(
            tokenizer(&["vocab.json", "merges.txt"]).contains("found vocab.json, merges.txt: an older form")
        );
    }

    #[test]
    fn a_page_of_the_hub_is_a_name() {
        let hint = |path: &str| Error::FolderNotFound { path: path.into() }.hint().unwrap();
        for page in [
            "https://huggingface.co/org/name",
            "huggingface.co/org/name/",
            "https://hf.co/org/name/tree/main",
        ] {
            assert_eq!(hint(page), "write it as org/name");
        }
        assert_eq!(hint("https://huggingface.co/org/name/tree/v2?x=1"), "write it as org/name@v2");
        for other in ["https://example.org/org/name", "huggingface.co/org", "a/b/c"] {
            assert!(hint(other).starts_with("a model is a folder"));
        }
    }

    #[test]
    fn messages_name_the_place_and_keep_the_source_apart() {
        let error = Error::Io { path: "m/config.json".into(), source: std::io::Error::other("disk on fire") };
        assert_eq!(error.to_string(), "cannot read `m/config.json`");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "disk on fire");
        let error = Error::UnsupportedArchitecture {
            path: "m/config.json".into(),
            name: "Qwen2MoeForCausalLM".into(),
            supported: vec!["LlamaForCausalLM".into()],
        };
        let message = "`m/config.json`: architecture `Qwen2MoeForCausalLM` is not supported (supported: \
                       LlamaForCausalLM)";
        assert_eq!(error.to_string(), message);
    }
}
