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

pub(crate) use attention::{AttentionArgs, KeyIndexArg};
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

/// Text generation that reads part of the KV cache (SparQ attention).
#[derive(Debug, Parser)]
#[command(name = "sparq", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text: the text goes to standard output, figures to standard error
    Generate(Box<GenerateArgs>),
    /// Talk with a model, in its own chat format
    Chat(Box<ChatArgs>),
    /// Compare decode methods on tasks: does sparse attention answer as dense attention does?
    Eval(Box<EvalArgs>),
    /// Show the tokens of a text as a model sees them: ids and pieces
    Tokenize(TokenizeArgs),
    /// Show what a model is and how much memory it needs, without loading it
    Inspect(InspectArgs),
    /// Fetch a model from the hub into the cache, mend what differs there, and print its folder
    Pull(PullArgs),
    /// Print a script that completes this program's commands in a shell
    Completions(CompletionsArgs),
    /// Show which devices are there, what they can, and whether they compute right
    Doctor(DoctorArgs),
    /// Find the sizes of SparQ that read least and meet a target on a text, and save them as a profile
    Tune(Box<TuneArgs>),
    /// Measure speed: whole models, or one layer alone
    Bench(Box<BenchArgs>),
    /// Compare a model's logits with reference logits; exit code 1 where they differ
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) prompt: PromptArgs,

    /// Print the prompt as the model sees it, text and tokens, to standard error before the text is continued
    #[arg(long)]
    pub(crate) show_prompt: bool,

    #[command(flatten)]
    pub(crate) attention: AttentionArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    /// Tokens to generate at most [default: what generation_config.json says, else 512]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,

    /// Longest context in tokens, prompt included [default: the model's own limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_seq_len: Option<usize>,

    /// Stop where this text comes up, and leave it out; may be given several times, and may be a special
    /// token [default: what generation_config.json says]
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,

    /// Go on after an end-of-text token
    #[arg(long)]
    pub(crate) ignore_eos: bool,

    /// Write the text to a file instead; it appears there when it is complete
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print no figures
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Tell which operations ran as kernels, and which did not and why
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Show no progress bars (they are shown on a terminal only)
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Folder of a Hugging Face checkpoint, or its name on the hub: ORG/NAME or ORG/NAME@REVISION
    /// [default: the small model inside this program]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// Take models of the hub from the cache only, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,

    /// Longest context in tokens to state memory for [default: the model's own limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_seq_len: Option<u64>,

    /// Storage dtype of weights and KV cache to state memory for; auto shows all
    #[arg(long, value_enum, default_value_t = DtypeArg::Auto)]
    pub(crate) dtype: DtypeArg,

    /// Format of the weights of linear layers to state memory for
    #[arg(long, value_enum, default_value_t = WeightsArg::Auto)]
    pub(crate) weights: WeightsArg,

    /// Form of SparQ's copy of the keys to state memory for
    #[arg(long, value_enum, default_value_t = KeyIndexArg::Auto)]
    pub(crate) k_index: KeyIndexArg,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,

    /// Examine one device in this process and print one line of JSON
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) only: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder of the model, or its name on the hub
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Take models of the hub from the cache only, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,

    /// Reference logits [default: expected.safetensors in the model's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) expected: Option<PathBuf>,

    /// Largest absolute difference of any logit
    #[arg(long, value_name = "X", default_value_t = 1e-3)]
    pub(crate) tolerance: f32,

    /// Device to compute on
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Storage dtype of weights and KV cache
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub(crate) dtype: DtypeArg,

    /// Format of the weights of linear layers
    #[arg(long, value_enum, default_value_t = WeightsArg::Auto)]
    pub(crate) weights: WeightsArg,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Name of the model: ORG/NAME or ORG/NAME@REVISION
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Show no progress bars (they are shown on a terminal only)
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Reads numbers of a range; the error names both ends.
fn within(range: impl RangeBounds<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
