//! What can go wrong between the hub and a model folder.

use std::path::PathBuf;

use crate::checkpoint::Lack;
use crate::error::list;

/// Why the hub does not hand a model out. Every case has a next step: [`HubError::hint`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// What was given is no name of a model.
    #[error("`{name}` is no name of a model on the hub")]
    Name {
        /// What was given.
        name: String,
    },

    /// The hub wants to know who asks.
    #[error("cannot read model `{model}`: it is gated or private, or does not exist, and no token was given")]
    NoToken {
        /// The model.
        model: String,
        /// Its page.
        page: String,
    },

    /// The hub does not know the token.
    #[error("cannot read model `{model}`: the hub does not accept the token from {token}")]
    BadToken {
        /// The model.
        model: String,
        /// Where the token comes from.
        token: String,
    },

    /// The hub knows who asks, who may not read the model.
    #[error(
        "cannot read model `{model}`: its licence is not accepted with this account, or the token lacks the right to read it"
    )]
    Gated {
        /// The model.
        model: String,
        /// Its page.
        page: String,
    },

    /// There is no such model.
    #[error("there is no model `{model}` on the hub at {endpoint}, and no folder of that name")]
    NoModel {
        /// The model.
        model: String,
        /// The hub that was asked.
        endpoint: String,
    },

    /// The model has no such branch, tag or commit.
    #[error("model `{model}` has no revision `{revision}`")]
    NoRevision {
        /// The model.
        model: String,
        /// Branch, tag or commit.
        revision: String,
    },

    /// The model lacks a file that is needed.
    #[error("model `{model}` has no {file}")]
    NoFile {
        /// The model.
        model: String,
        /// The file, or what it would hold.
        file: String,
    },

    /// The model has no weights that are read.
    #[error("model `{model}` has no weights that are read: {}", lack.describe())]
    NoWeights {
        /// The model.
        model: String,
        /// What it has instead.
        lack: Lack,
    },

    /// The model's index of shards cannot be used.
    #[error("model `{model}` cannot be fetched: {message}")]
    Index {
        /// The model.
        model: String,
        /// What is wrong with the index.
        message: String,
        /// What helps.
        hint: String,
    },

    /// The model has no tokenizer that is read.
    #[error("model `{model}` has no tokenizer.json{}", others(found))]
    NoTokenizer {
        /// The model.
        model: String,
        /// Names of its files for other tokenizers.
        found: Vec<String>,
    },

    /// A whole file came, and it is not the one that its mark names.
    #[error("what came as `{file}` of model `{model}` is not what the hub's mark says (SHA-256)")]
    Corrupt {
        /// The model.
        model: String,
        /// The file.
        file: String,
    },

    /// The hub is not to be asked, and the cache does not have everything.
    #[error("model `{model}` is not complete in the cache at `{}` (no {missing}), and the hub is switched off", cache.display())]
    Offline {
        /// The model.
        model: String,
        /// The first thing that is missing.
        missing: String,
        /// The model at the commits that the cache has folders of, as names.
        commits: Vec<String>,
        /// The cache's folder.
        cache: PathBuf,
    },

    /// The hub cannot be reached.
    #[error("cannot reach the hub at {endpoint}: {message}")]
    Connection {
        /// The hub that was asked.
        endpoint: String,
        /// What the network says.
        message: String,
    },

    /// A download broke off. What came is kept.
    #[error("the download of `{file}` of model `{model}` broke off: {message}")]
    Interrupted {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What the network says.
        message: String,
    },

    /// Another program downloads the same file.
    #[error("another program is downloading the same file (`{}` is locked)", lock.display())]
    Locked {
        /// The lock.
        lock: PathBuf,
    },

    /// The hub cannot answer now, or does not want to.
    #[error("the hub at {endpoint} gives no answer about `{model}` for now: {message}{}", asks(*retry_after))]
    Busy {
        /// The hub that was asked.
        endpoint: String,
        /// The model.
        model: String,
        /// The status of HTTP.
        status: u16,
        /// After how many seconds the hub wants to be asked again, where it says so.
        retry_after: Option<u64>,
        /// The status in words.
        message: String,
    },

    /// The hub answers with something else than a model.
    #[error("the hub at {endpoint} gives no usable answer about `{model}`: {message}")]
    Answer {
        /// The hub that was asked.
        endpoint: String,
        /// The model.
        model: String,
        /// The status of HTTP, where it is that.
        status: Option<u16>,
        /// What is wrong with the answer.
        message: String,
    },

    /// The cache cannot be read or written.
    #[error("cannot use the cache at `{}`", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

fn asks(retry_after: Option<u64>) -> String {
    retry_after.map_or(String::new(), |seconds| format!("; it asks to wait for {seconds} s"))
}

fn others(found: &[String]) -> String {
    match found.is_empty() {
        true => String::new(),
        false => format!(" (there is {})", found.join(", ")),
    }
}

impl HubError {
    /// Whether it may be over soon: no connection, a hub out of order. Who asks and for what is not the reason.
    pub(super) fn is_of_the_moment(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Interrupted { .. } | Self::Busy { .. } => true,
            Self::Answer { status, .. } => status.is_none_or(|status| status >= 500),
            _ => false,
        }
    }

    /// The next step for the user.
    pub fn hint(&self) -> String {
        match self {
            Self::Name { .. } => "a name is ORG/NAME or ORG/NAME@REVISION; a folder is given by its path".into(),
            Self::NoToken { page, .. } => format!(
                "check the name; accept the licence at {page} if it asks for that, then set HF_TOKEN or run \
                 `hf auth login`"
            ),
            Self::BadToken { .. } => {
                "make a token at https://huggingface.co/settings/tokens and set HF_TOKEN, or run `hf auth login`"
                    .into()
            }
            Self::Gated { page, .. } => format!(
                "accept the licence at {page} with the account of the token; a fine-grained token also needs \
                 read access to gated repositories"
            ),
            Self::NoModel { .. } => "check the spelling of ORG/NAME, or give the path of a folder".into(),
            Self::NoRevision { .. } => "leave `@REVISION` out for the newest".into(),
            Self::NoFile { .. } => {
                "the model is not in the form that this program reads: see docs/models.md".into()
            }
            Self::NoWeights { lack, .. } => lack.hint(None),
            Self::Index { hint, .. } => hint.clone(),
            Self::NoTokenizer { model, .. } => format!(
                "transformers makes one: AutoTokenizer.from_pretrained(\"{model}\").save_pretrained(FOLDER), beside \
                 the model's other files"
            ),
            Self::Corrupt { .. } => {
                "run the same command again; a mirror (HF_ENDPOINT) or a proxy may change files".into()
            }
            Self::Offline { commits, .. } if !commits.is_empty() => {
                format!("fetch it with `sparq pull` while there is a connection, or name a commit: {}", list(commits))
            }
            Self::Offline { model, .. } => format!(
                "fetch it with `sparq pull {model}` while there is a connection and HF_HUB_OFFLINE is not set"
            ),
            Self::Connection { .. } => {
                "check the connection, HF_ENDPOINT and the proxy; a model that is in the cache runs offline"
                    .into()
            }
            Self::Interrupted { .. } => "run the same command again: it goes on where the download stopped".into(),
            Self::Locked { .. } => "wait for it, and run the same command again".into(),
            Self::Busy { status: 429, retry_after, .. } => format!(
                "wait for {}, and run the same command again; who sends a token (HF_TOKEN, or `hf auth login`) may \
                 ask more often",
                retry_after.map_or("some minutes".to_owned(), |seconds| format!("{seconds} s"))
            ),
            Self::Busy { .. } => "the hub seems to be out of order: try again later, or check HF_ENDPOINT".into(),
            Self::Answer { .. } => "check HF_ENDPOINT; the hub may also be out of order: try again later".into(),
            Self::Cache { .. } => "check the disk and its rights, or set HF_HUB_CACHE to another folder".into(),
        }
    }
}
