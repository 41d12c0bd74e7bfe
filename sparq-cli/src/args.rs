//! What can be typed. Each group says what it means through a `resolve` method of its own.

mod attention;
mod bench;
mod chat;
mod eval;
mod model;
mod prompt;
mod sampling;
mod settings;
mod template;
mod tokenize;
mod tune;

use std::{ops::RangeBounds, path::PathBuf};

use clap::{
    Args, Parser, Subcommand,
    builder::{NonEmptyStringValueParser, RangedU64ValueParser},
};

pub(crate) use attention::{AttentionArgs, KtArg, notation_help};
pub(crate) use bench::{
    BenchArgs, BenchAttentionArgs, BenchCommand, BenchLinearArgs, BenchModelArgs, Format,
};
pub(crate) use chat::{ChatArgs, ContextFull};
pub(crate) use eval::{EvalArgs, EvalCommand, EvalReportArgs, EvalRunArgs};
pub(crate) use model::{DtypeArg, ModelArgs, WeightsArg, open, open_without_weights};
pub(crate) use prompt::{PromptArgs, without_break, without_mark};
pub(crate) use sampling::{SamplingArgs, TokenLimit};
pub(crate) use settings::{ChatSettings, Settings};
pub(crate) use template::TemplateArgs;
pub(crate) use tokenize::TokenizeArgs;
pub(crate) use tune::TuneArgs;

/// Faster long-context text generation: SparQ attention reads only part of the KV cache.
#[derive(Debug, Parser)]
#[command(name = "sparq", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text: the text goes to standard output, statistics to standard error
    Generate(Box<GenerateArgs>),
    /// Talk with a model, in its own chat format
    Chat(Box<ChatArgs>),
    /// Compare decode methods with dense attention on tasks
    Eval(Box<EvalArgs>),
    /// Show the tokens of a text: ids and pieces
    Tokenize(TokenizeArgs),
    /// Describe a model and the memory it needs, without loading it
    Inspect(InspectArgs),
    /// Fetch a model from the hub into the cache, repair damaged files there, and print its folder
    Pull(PullArgs),
    /// Print a shell completion script
    Completions(CompletionsArgs),
    /// List devices and their limits, and run a self-test on each
    Doctor(DoctorArgs),
    /// Search for the smallest SparQ settings that meet a quality target on a text, and save them as a profile
    Tune(Box<TuneArgs>),
    /// Measure speed: a whole model, or one layer
    Bench(Box<BenchArgs>),
    /// Compare a model's logits with reference logits; exit code 1 if they differ
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) prompt: PromptArgs,

    /// Print the prompt as the model sees it, text and tokens, to standard error
    #[arg(long)]
    pub(crate) show_prompt: bool,

    #[command(flatten)]
    pub(crate) attention: AttentionArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    /// Maximum number of tokens to generate [default: from generation_config.json, else 512]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,

    /// Longest context in tokens, prompt included [default: the model's own limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_seq_len: Option<usize>,

    /// Stop at this text, which is not printed; repeatable; may be a special token
    /// [default: from generation_config.json]
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,

    /// Ignore end-of-text tokens
    #[arg(long)]
    pub(crate) ignore_eos: bool,

    /// Write the text to a file; the file appears when the text is complete
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Do not print statistics
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Report which operations ran as kernels, and why others did not
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Do not show progress bars
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Folder of a Hugging Face checkpoint, or its name on the hub: ORG/NAME or ORG/NAME@REVISION
    /// [default: the small model inside this program]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// Use the hub's cache only, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,

    /// Longest context in tokens to compute memory for [default: the model's own limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_seq_len: Option<u64>,

    /// Storage dtype of weights and KV cache to compute memory for; auto shows all
    #[arg(long, value_enum, default_value_t = DtypeArg::Auto)]
    pub(crate) dtype: DtypeArg,

    /// Format of linear-layer weights to compute memory for
    #[arg(long, value_enum, default_value_t = WeightsArg::Auto)]
    pub(crate) weights: WeightsArg,

    /// Format of the transposed key copy to compute memory for
    #[arg(long, alias = "k-index", value_enum, default_value_t = KtArg::Auto)]
    pub(crate) kt: KtArg,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,

    /// Test one device in this process and print one line of JSON
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) only: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder of the model, or its name on the hub
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Use the hub's cache only, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,

    /// Reference logits [default: expected.safetensors in the model's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) expected: Option<PathBuf>,

    /// Largest absolute difference allowed in any logit
    #[arg(long, value_name = "X", default_value_t = 1e-3)]
    pub(crate) tolerance: f32,

    /// Device to compute on
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Storage dtype of weights and KV cache
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub(crate) dtype: DtypeArg,

    /// Format of linear-layer weights
    #[arg(long, value_enum, default_value_t = WeightsArg::Auto)]
    pub(crate) weights: WeightsArg,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Name of the model: ORG/NAME or ORG/NAME@REVISION
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Do not show progress bars
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Reads numbers of a range; the error names both ends.
fn within(range: impl RangeBounds<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

#[cfg(test)]
mod tests;
