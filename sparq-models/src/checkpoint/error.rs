//! What can be wrong with the files of a model folder, and what helps.

use std::fmt;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::names::Lack;
use super::quantisation::Quantisation;
use crate::error::{list, shown};

/// Why a file of a model folder is not read.
///
/// Every case has a next step: [`FileError::hint`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A file holds something else than its name says, or a part of it.
    #[error("`{}` {}", path.display(), damage.describe(form))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        form: &'static str,
        /// What is wrong.
        damage: Damage,
    },

    /// A folder lies in the place of a file.
    #[error("`{}` is a folder, not a file", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },

    /// The folder is what the hub's cache keeps of a model: its files lie further within.
    #[error("`{}` is a folder of the hub's cache, with the versions of model `{model}`", folder.display())]
    CacheFolder {
        /// The folder.
        folder: PathBuf,
        /// The name of the model.
        model: String,
    },

    /// A link lies in the place of a file, and leads nowhere.
    #[error("`{}` is a link to a file that is not there", path.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },

    /// The model folder holds no weights under a name that is read.
    #[error("there are no weights in `{}`: {}", folder.display(), lack.describe())]
    NoWeights {
        /// The model folder.
        folder: PathBuf,
        /// What is there instead.
        lack: Lack,
    },

    /// The index of a sharded checkpoint does not say where the tensors are.
    #[error("`{}` {problem}", index.display())]
    Index {
        /// The index file.
        index: PathBuf,
        /// What is wrong with it.
        problem: IndexProblem,
    },

    /// A pickle asks for something that no state dict needs.
    #[error(
        "`{}` asks for `{}`, which is no part of a state dict: nothing of it was run, and nothing is read",
        path.display(), shown(name)
    )]
    Pickle {
        /// The weight file.
        path: PathBuf,
        /// What the pickle names, such as `posix.system`.
        name: String,
    },

    /// A pickle builds a tensor in a way that is not read.
    #[error("`{}` holds tensor `{}` in a form that is not read: {}", path.display(), shown(tensor), shown(form))]
    Tensor {
        /// The weight file.
        path: PathBuf,
        /// The key of the tensor.
        tensor: String,
        /// How it is built.
        form: String,
    },

    /// The weights are stored in a quantised form.
    #[error("the weights in `{}` are quantised: {scheme}", folder.display())]
    Quantised {
        /// The model folder.
        folder: PathBuf,
        /// How.
        scheme: Quantisation,
    },
}

/// What is wrong with the content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// It is something else.
    Is(Content),
    /// Its end is missing.
    CutShort {
        /// Where it ends.
        detail: String,
    },
    /// There is more than belongs to it.
    TooLong {
        /// Bytes too many.
        bytes: u64,
    },
    /// It breaks the rules of its form.
    Syntax {
        /// Where and how.
        detail: String,
    },
    /// A comment in JSON, which has none.
    Comment {
        /// The line, from 1.
        line: usize,
    },
    /// Text in another encoding.
    NotUtf8 {
        /// The first byte that is none, from 0.
        byte: usize,
    },
    /// A number format that this version does not know.
    NumberFormat {
        /// What the reader says.
        detail: String,
    },
    /// Tensors in a form that is not read, or none at all.
    Tensors {
        /// What the reader says.
        detail: String,
    },
    /// Big-endian numbers.
    BigEndian,
}

impl Damage {
    fn describe(&self, form: &str) -> String {
        match self {
            Self::Is(content) => format!("{content}, not {form}"),
            Self::CutShort { detail } => format!("is cut short: {detail}"),
            Self::TooLong { bytes } => format!("is not {form}: it goes on for {bytes} bytes behind its end"),
            Self::Syntax { detail } | Self::Tensors { detail } => format!("is not {form}: {detail}"),
            Self::Comment { line } => format!("is not {form}: it has a comment on line {line}"),
            Self::NotUtf8 { byte } => format!("is not {form}: its text is not UTF-8 (byte {byte})"),
            Self::NumberFormat { detail } => format!("holds a number format that is not known: {detail}"),
            Self::BigEndian => "was saved on a big-endian machine".to_owned(),
        }
    }

    fn hint(&self, path: &Path, form: &str) -> String {
        let again = || download_again(path);
        match self {
            Self::Is(Content::LfsPointer) => {
                format!("run `git lfs pull` in the model folder, or {}", download_again(path))
            }
            Self::Is(Content::Utf16 | Content::ByteOrderMark) | Self::NotUtf8 { .. } => {
                format!("save it as UTF-8 without a byte-order mark, or {}", download_again(path))
            }
            Self::Is(Content::Gguf) => GGUF.to_owned(),
            Self::Is(Content::Zip | Content::Pickle) if form == SAFETENSORS => {
                "rename it to pytorch_model.bin, or save it as safetensors".to_owned()
            }
            Self::Is(Content::Safetensors) if form == PYTORCH => "rename it to model.safetensors".to_owned(),
            Self::Is(_) | Self::CutShort { .. } | Self::TooLong { .. } => again(),
            Self::Syntax { .. } if form == JSON => format!("mend that place, or {}", again()),
            Self::Syntax { .. } => again(),
            Self::Comment { .. } => "JSON has no comments: remove it".to_owned(),
            Self::NumberFormat { .. } => "save the model in F32, F16 or BF16: other formats are not read".to_owned(),
            Self::Tensors { .. } => PLAIN_TENSORS.to_owned(),
            Self::BigEndian => {
                "load it with torch.load and save its state dict anew as safetensors, which has one byte order"
                    .to_owned()
            }
        }
    }
}

pub(super) const JSON: &str = "JSON";
pub(super) const SAFETENSORS: &str = "a safetensors file";
pub(super) const PYTORCH: &str = "a PyTorch state dict";

const PLAIN_TENSORS: &str =
    "save the state dict of the model with plain tensors in F32, F16 or BF16, best as safetensors";
const GGUF: &str = "GGUF is not read: use the original model with safetensors files";

/// What is wrong with an index of shards.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexProblem {
    /// It names no tensor.
    Empty,
    /// It names something that is no file of its own folder, nor of one within.
    Outside {
        /// What it names.
        shard: String,
    },
    /// It names a file of another kind.
    Kind {
        /// The file.
        shard: String,
    },
    /// It names shards that are not there.
    Missing {
        /// Their names.
        shards: Vec<String>,
    },
    /// It names a folder.
    Folder {
        /// Its name.
        shard: String,
    },
    /// It places a tensor in a shard that does not hold it.
    Lacks {
        /// Name of the shard.
        shard: String,
        /// The first such tensor, in the order of the names.
        tensor: String,
    },
}

impl fmt::Display for IndexProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("names no tensors (its `weight_map` is empty)"),
            Self::Outside { shard } => {
                write!(f, "names `{}`, which is no file of its own folder", shown(shard.escape_debug()))
            }
            Self::Kind { shard } => write!(f, "names `{}` as a shard, which is no weight file", shown(shard)),
            Self::Missing { shards } => write!(f, "names shards that are missing: {}", list(shards)),
            Self::Folder { shard } => write!(f, "names `{}`, which is a folder", shown(shard)),
            Self::Lacks { shard, tensor } => {
                write!(
                    f,
                    "places tensor `{}` in shard `{}`, which does not hold it",
                    shown(tensor),
                    shown(shard)
                )
            }
        }
    }
}

impl FileError {
    /// The next step for the user.
    pub fn hint(&self) -> String {
        match self {
            Self::Damaged { path, form, damage } => damage.hint(path, form),
            Self::Folder { path } | Self::BrokenLink { path } => match model_name(path) {
                Some(_) => download_again(path),
                None => "put the file itself there".to_owned(),
            },
            Self::CacheFolder { folder, model } => format!(
                "name the model, `{model}`, or give the folder of a version: one of those in `{}`",
                folder.join("snapshots").display()
            ),
            Self::NoWeights { folder, lack } => lack.hint(Some(folder)),
            Self::Index { index, problem } => match problem {
                IndexProblem::Empty => download_again(index),
                IndexProblem::Outside { .. } | IndexProblem::Kind { .. } | IndexProblem::Folder { .. } => {
                    "an index names weight files beside it or in folders there: put the shards there and mend \
                     the index, or download both again"
                        .to_owned()
                }
                IndexProblem::Missing { .. } => match model_name(index) {
                    Some(_) => download_again(index),
                    None => "download the missing shards into the same folder".to_owned(),
                },
                IndexProblem::Lacks { .. } => {
                    "index and shards come from different downloads: download both again".to_owned()
                }
            },
            Self::Pickle { .. } => {
                "if you trust the file, load it with torch.load(…, weights_only=False) and save its state dict \
                 alone, best as safetensors"
                    .to_owned()
            }
            Self::Tensor { .. } => PLAIN_TENSORS.to_owned(),
            Self::Quantised { scheme, .. } => scheme.hint(),
        }
    }
}

/// How to fetch a file again: by the model's name where it lies in the cache of the hub.
pub(super) fn download_again(path: &Path) -> String {
    match model_name(path) {
        Some(name) => format!("download it again: `sparq pull {name}`"),
        None => "download it again".to_owned(),
    }
}

/// The name of the model that `folder` is the folder of in the cache of the hub.
pub(super) fn cached_model(folder: &Path) -> Option<String> {
    let folder = std::path::absolute(folder).ok()?;
    let name = folder.file_name()?.to_str()?.strip_prefix("models--")?;
    folder.join("snapshots").is_dir().then(|| name.replacen("--", "/", 1))
}

/// The name of the model whose files lie beside `path`, if that is in the cache of the hub.
pub(crate) fn model_name(path: &Path) -> Option<String> {
    let mut below = None;
    for folder in path.ancestors() {
        let name = folder.file_name()?.to_str()?;
        if let Some(repo) = name.strip_prefix("models--") {
            let repo = repo.replacen("--", "/", 1);
            let commit: &str = below?;
            // The newest commit goes without saying.
            let newest = std::fs::read_to_string(folder.join("refs/main")).unwrap_or_default();
            return Some(match newest.trim() == commit {
                true => repo,
                false => format!("{repo}@{commit}"),
            });
        }
        if folder.parent()?.file_name()? == "snapshots" {
            below = Some(name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_model_in_the_cache_is_told_from_a_model() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--name");
        std::fs::create_dir_all(model.join("snapshots/0123")).unwrap();
        let error = crate::checkpoint::Checkpoint::open(&model).unwrap_err();
        assert!(error.to_string().contains("is a folder of the hub's cache"), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("`org/name`") && hint.contains("models--org--name/snapshots"), "{hint}");
        assert_eq!(cached_model(cache.path()), None);
        assert_eq!(cached_model(&model.join("snapshots/0123")), None);
    }

    #[test]
    fn files_of_the_cache_are_fetched_again_by_name() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--name");
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "0123").unwrap();
        let path = |commit: &str| model.join("snapshots").join(commit).join("config.json");
        assert_eq!(download_again(&path("0123")), "download it again: `sparq pull org/name`");
        assert_eq!(model_name(&path("4567")).as_deref(), Some("org/name@4567"));
        assert_eq!(model_name(path("0123").parent().unwrap()).as_deref(), Some("org/name"));
        assert_eq!(download_again(Path::new("/models/a/config.json")), "download it again");
        assert_eq!(download_again(Path::new("config.json")), "download it again");
    }
}
