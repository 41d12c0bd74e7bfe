//! What `sparq tokenize` takes.

use std::path::PathBuf;

use clap::Args;

use super::PromptArgs;

#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// Folder of a Hugging Face checkpoint, or its name on the hub: ORG/NAME or ORG/NAME@REVISION
    /// [default: the small model inside this program]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// Use the hub's cache only, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,

    #[command(flatten)]
    pub(crate) prompt: PromptArgs,

    /// Do not add the tokens around a text, such as the one that begins it
    #[arg(long)]
    pub(crate) no_special_tokens: bool,

    /// Print only the ids, on one line
    #[arg(long, conflicts_with = "json")]
    pub(crate) ids: bool,

    /// Print JSON instead of a list
    #[arg(long)]
    pub(crate) json: bool,
}
