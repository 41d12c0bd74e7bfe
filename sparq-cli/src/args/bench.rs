//! What to measure.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sparq_models::attention::MethodSpec;

use super::{DtypeArg, ModelArgs, WeightsArg, notation_help, within};

// Beyond what any model or machine has, and products of them still fit into 128 bits.
const TOKENS: u64 = 1 << 30;
const SEQUENCES: u64 = 1 << 20;
const HEADS: u64 = 1 << 16;
const WIDTH: u64 = 1 << 24;
const LAYERS: u64 = 1 << 16;
const REPETITIONS: u64 = 1_000_000;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) layer: Option<BenchCommand>,

    /// Report which operations ran as kernels, and why others did not
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    #[command(flatten)]
    pub(crate) model: BenchModelArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure one attention layer, on random queries, keys and values
    Attention(BenchAttentionArgs),
    /// Measure one linear layer, on random weights
    Linear(BenchLinearArgs),
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A Markdown table
    Md,
    /// Comma-separated values
    Csv,
    /// One JSON list
    Json,
    /// A JSON object per line
    Jsonl,
}

/// Lists are separated by commas. End-of-text tokens never end a run.
#[derive(Debug, Args)]
pub(crate) struct BenchModelArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// Measure a model of this shape with random weights, without a checkpoint: llama-2-7b,
    /// llama-2-13b, llama-3-8b, llama-3.2-1b, mistral-7b, gemma-7b, qwen2.5-7b or pythia-6.9b
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) shape: Option<String>,

    /// Use random weights for the folder's config.json; no weight file is read
    #[arg(long, requires = "model")]
    pub(crate) random_weights: bool,

    /// Layers of the model [default: those of the shape; needs --shape or --random-weights]
    #[arg(long, value_name = "N", value_parser = within(1..=LAYERS))]
    pub(crate) layers: Option<usize>,

    #[arg(long, value_name = "METHODS", default_value = "dense,sparq", value_delimiter = ',',
          value_parser = MethodSpec::parse,
          help = notation_help("Decode methods to compare, dense first; RATIO is 8 where no size is stated"))]
    pub(crate) attention: Vec<MethodSpec>,

    /// Compare with the methods that a file has for each layer (see docs/methods.md), too
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,

    /// Prompt lengths to measure, in tokens; 0 measures none
    #[arg(short = 'p', long, value_name = "N", default_value = "512", value_delimiter = ',',
          value_parser = within(..=TOKENS))]
    pub(crate) n_prompt: Vec<usize>,

    /// Generation lengths to measure, in tokens; 0 measures none
    #[arg(short = 'n', long, value_name = "N", default_value = "128", value_delimiter = ',',
          value_parser = within(..=TOKENS))]
    pub(crate) n_gen: Vec<usize>,

    /// Depths: tokens in the cache before each test
    #[arg(short = 'd', long, value_name = "N", default_value = "0", value_delimiter = ',',
          value_parser = within(..=TOKENS))]
    pub(crate) n_depth: Vec<usize>,

    /// Fill the cache with random keys and values up to each depth, instead of a prefill
    #[arg(long)]
    pub(crate) random_cache: bool,

    /// Repetitions of each test
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = within(1..=REPETITIONS))]
    pub(crate) repetitions: usize,

    /// Skip the warm-up run
    #[arg(long)]
    pub(crate) no_warmup: bool,

    /// Output format (as in llama-bench, not a file)
    #[arg(short, long, value_enum, default_value_t = Format::Md)]
    pub(crate) output: Format,

    /// Do not show progress bars
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// Lists are separated by commas; every combination is measured, dense attention first.
#[derive(Debug, Args)]
pub(crate) struct BenchAttentionArgs {
    /// Cached tokens S
    #[arg(short, long, value_name = "S", default_value = "1024,4096,16384", value_delimiter = ',',
          value_parser = within(1..=TOKENS))]
    pub(crate) seq_len: Vec<usize>,

    /// Sequences B
    #[arg(short, long, value_name = "B", default_value = "1", value_delimiter = ',',
          value_parser = within(1..=SEQUENCES))]
    pub(crate) batch: Vec<usize>,

    /// Query heads and key/value heads, such as 32 or 32/8
    #[arg(long, value_name = "H[/HKV]", default_value = "32", value_delimiter = ',', value_parser = heads)]
    pub(crate) heads: Vec<(usize, usize)>,

    /// Components per head d
    #[arg(long, value_name = "D", default_value = "128", value_delimiter = ',', value_parser = within(1..=WIDTH))]
    pub(crate) head_dim: Vec<usize>,

    #[arg(long, value_name = "METHODS", default_value = "dense,sparq", value_delimiter = ',',
          value_parser = MethodSpec::parse,
          help = notation_help("Decode methods, dense first; --rank and --top-k say the sizes of those that \
                                state none"))]
    pub(crate) attention: Vec<MethodSpec>,

    /// Rank r of methods that have one
    #[arg(long, value_name = "R", default_value = "32", value_delimiter = ',')]
    pub(crate) rank: Vec<usize>,

    /// Positions k that methods read
    #[arg(long, value_name = "K", default_value = "128", value_delimiter = ',')]
    pub(crate) top_k: Vec<usize>,

    /// Storage dtypes of the cache
    #[arg(long, value_enum, default_value = "f32", value_delimiter = ',')]
    pub(crate) dtype: Vec<DtypeArg>,

    /// Device to compute on; `sparq doctor` lists them
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Steps to time
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = within(1..=REPETITIONS))]
    pub(crate) repetitions: usize,

    /// Output format (as in llama-bench, not a file)
    #[arg(short, long, value_enum, default_value_t = Format::Md)]
    pub(crate) output: Format,
}

/// Lists are separated by commas; every combination is measured.
#[derive(Debug, Args)]
pub(crate) struct BenchLinearArgs {
    /// Inputs and outputs
    #[arg(long, value_name = "INxOUT", default_value = "4096x4096,4096x14336", value_delimiter = ',',
          value_parser = size)]
    pub(crate) size: Vec<(usize, usize)>,

    /// Tokens at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within(1..=TOKENS))]
    pub(crate) tokens: usize,

    /// Storage dtypes of the weights
    #[arg(long, value_enum, default_value = "f32", value_delimiter = ',')]
    pub(crate) dtype: Vec<DtypeArg>,

    /// Weight format; int8 replaces the dtypes
    #[arg(long, value_enum, default_value_t = WeightsArg::Auto)]
    pub(crate) weights: WeightsArg,

    /// Device to compute on; `sparq doctor` lists them
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Calls to time
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = within(1..=REPETITIONS))]
    pub(crate) repetitions: usize,

    /// Output format (as in llama-bench, not a file)
    #[arg(short, long, value_enum, default_value_t = Format::Md)]
    pub(crate) output: Format,
}

/// `4096x14336`.
fn size(text: &str) -> Result<(usize, usize), String> {
    let (inputs, outputs) = text.split_once('x').ok_or("expected two numbers with an x between them")?;
    Ok((up_to(WIDTH, inputs)?, up_to(WIDTH, outputs)?))
}

/// A number from 1 to `most`.
fn up_to(most: u64, text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|&number| (1..=most).contains(&(number as u64)));
    number.ok_or_else(|| format!("`{text}` is no number from 1 to {most}"))
}

/// `32` or `32/8`.
fn heads(text: &str) -> Result<(usize, usize), String> {
    match text.split_once('/') {
        Some((heads, kv_heads)) => Ok((up_to(HEADS, heads)?, up_to(HEADS, kv_heads)?)),
        None => Ok((up_to(HEADS, text)?, up_to(HEADS, text)?)),
    }
}

impl BenchModelArgs {
    /// The folder with the configuration, or the name of the shape.
    pub(crate) fn name(&self) -> String {
        match (&self.shape, &self.model.model) {
            (Some(shape), _) => shape.clone(),
            (None, Some(folder)) => folder.display().to_string(),
            (None, None) => "embedded model".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(flags: &str) -> Result<BenchArgs, clap::Error> {
        let words = ["sparq", "bench"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Command::Bench(args) => Ok(*args),
            _ => unreachable!("bench was typed"),
        }
    }

    #[test]
    fn lists_and_heads_are_read() {
        let args = parse("--shape llama-2-7b --layers 4 -p 0 -n 16,32 -d 0,4096 -r 3 -o jsonl").unwrap();
        let model = args.model;
        assert_eq!((model.n_prompt, model.n_gen, model.n_depth), (vec![0], vec![16, 32], vec![0, 4096]));
        assert_eq!((model.repetitions, model.output, model.layers), (3, Format::Jsonl, Some(4)));
        let args = parse("attention --heads 32,32/8 --dtype f32,bf16 -s 64 --rank 8,16").unwrap();
        let Some(BenchCommand::Attention(layer)) = args.layer else { panic!("a subcommand") };
        assert_eq!(layer.heads, [(32, 32), (32, 8)]);
        assert_eq!((layer.dtype.len(), layer.rank), (2, vec![8, 16]));
        let args = parse("--attention dense,sparq:r=8:k=64:kt=int8").unwrap();
        let methods: Vec<String> = args.model.attention.iter().map(ToString::to_string).collect();
        assert_eq!(methods, ["dense", "sparq:r=8:k=64:kt=int8"]);
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for flags in [
            "--shape llama-2-7b -m folder",
            "--random-weights",
            "-r 0",
            "attention --heads x",
            "attention --heads 8/",
            "attention --heads 8/0",
            "attention -s 0",
            "-d 18446744073709551615",
            "-p 1073741825",
            "-n -1",
            "-r 18446744073709551615",
            "--layers 0",
            "attention --heads 18446744073709551615/1",
            "attention --head-dim 4294967296",
            "attention -b 0",
            "linear --size 4294967296x4294967296",
            "linear --tokens 0",
            "linear --size 4096",
            "--attention sparse",
            "--attention dense:kt=int8",
            "--attention sparq:q=4",
        ] {
            assert_eq!(parse(flags).unwrap_err().exit_code(), 2, "{flags}");
        }
    }
}
