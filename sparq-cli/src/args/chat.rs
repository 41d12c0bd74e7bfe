//! What `sparq chat` takes.

use clap::{Args, ValueEnum};

use super::{ModelArgs, Settings, TemplateArgs};

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// Instructions for the whole conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// Do not use the model's chat template: lines begin with `User:` and `Assistant:`
    #[arg(long)]
    pub(crate) no_chat_template: bool,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    #[command(flatten)]
    pub(crate) settings: Settings,

    /// Longest context in tokens [default: the model's own limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_seq_len: Option<usize>,

    /// What to do when the context is full: drop the oldest turns, or stop
    #[arg(long, value_enum, default_value_t = ContextFull::Drop)]
    pub(crate) context_full: ContextFull,

    /// Do not show progress bars
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// What happens to a message that the context has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextFull {
    Drop,
    Stop,
}
