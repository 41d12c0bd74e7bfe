use std::path::PathBuf;

use clap::{ArgGroup, Args};
use sparq_models::attention::MethodSpec;

use super::{ModelArgs, within};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true))]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// Text to measure on, of the kind that the model will read and write
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,

    /// Target: largest mean divergence from dense attention's next-token distribution, in nats
    #[arg(long, value_name = "X", group = "target")]
    pub(crate) target_kl: Option<f64>,

    /// Target: least mean share of the exact attention that the positions read must hold
    #[arg(long, value_name = "P", group = "target")]
    pub(crate) target_mass: Option<f64>,

    /// Instead of a target: find the label channels of a Double Sparsity method, such as
    /// double-sparsity@8
    #[arg(long, value_name = "METHOD", group = "target", requires = "output", value_parser = MethodSpec::parse)]
    pub(crate) label_channels: Option<MethodSpec>,

    /// Tokens of a window of the text, prompt and decoded tokens
    /// [default: the model's longest context, at most 1024, at most the text]
    #[arg(long, value_name = "N", value_parser = within(2..))]
    pub(crate) window: Option<usize>,

    /// Tokens at the end of each window that are decoded one at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within(1..))]
    pub(crate) steps: usize,

    /// Maximum number of windows; the last of several is held out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = within(1..))]
    pub(crate) windows: usize,

    /// Ranks r to try [default: 4, 8, 16, … up to the head size]
    #[arg(long, alias = "ranks", value_name = "R", value_delimiter = ',', value_parser = within(1..))]
    pub(crate) rank: Vec<usize>,

    /// Values of k to try [default: 16, 32, 64, … up to half of a window]
    #[arg(long, alias = "top-ks", value_name = "K", value_delimiter = ',', value_parser = within(1..))]
    pub(crate) top_k: Vec<usize>,

    /// Use the same sizes in all layers
    #[arg(long)]
    pub(crate) uniform: bool,

    /// Write the profile to a file; `--profile` of the other commands takes it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Do not show progress bars
    #[arg(long)]
    pub(crate) no_progress: bool,
}
