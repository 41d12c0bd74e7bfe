//! How decode steps attend.

use clap::{Args, ValueEnum};
use sparq_models::{
    attention::{Attention, SparqOptions, SparqSize},
    core::{GroupScores, IndexDtype, SparqConfig},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodArg {
    Dense,
    Sparq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupScoresArg {
    Logits,
    Softmax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyIndexArg {
    Auto,
    Int8,
    Int4,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Attention")]
pub(crate) struct AttentionArgs {
    /// How decode steps attend to the cache; prompts are always attended densely
    #[arg(long, value_enum, default_value_t = MethodArg::Sparq)]
    pub(crate) attention: MethodArg,

    /// SparQ: read about one part in X of what dense attention reads [default: 8]
    #[arg(long, value_name = "X", conflicts_with_all = ["sparq_rank", "sparq_top_k"])]
    pub(crate) compression_ratio: Option<f64>,

    /// SparQ: smallest top-k that a compression ratio may choose
    /// [default: 128; 64 for the small model inside this program]
    #[arg(long, value_name = "K", conflicts_with_all = ["sparq_rank", "sparq_top_k"])]
    pub(crate) min_top_k: Option<usize>,

    /// SparQ: rank r, components of each key that are read to choose positions
    #[arg(long, value_name = "R", requires = "sparq_top_k")]
    pub(crate) sparq_rank: Option<usize>,

    /// SparQ: positions k that are read in full
    #[arg(long, value_name = "K", requires = "sparq_rank")]
    pub(crate) sparq_top_k: Option<usize>,

    /// SparQ: most recent positions that are always read [default: a quarter of k]
    #[arg(long, value_name = "L")]
    pub(crate) local_window: Option<usize>,

    /// SparQ: do not let the mean value stand in for what is not read
    /// [default: off only for models with grouped queries]
    #[arg(long)]
    pub(crate) no_mean_value: bool,

    /// SparQ: how the query heads of a group choose together
    #[arg(long, value_enum, default_value_t = GroupScoresArg::Logits)]
    pub(crate) group_scores: GroupScoresArg,

    /// SparQ: how the copy of the keys that positions are chosen by is stored; auto keeps the dtype of
    /// the KV cache, int8 and int4 take less memory and less time
    #[arg(long, value_enum, default_value_t = KeyIndexArg::Auto)]
    pub(crate) k_index: KeyIndexArg,

    /// SparQ: attend densely to contexts shorter than N tokens; auto measures from which length on
    /// SparQ is faster here, once for each shape [default: auto; 0 for the small model inside this
    /// program]
    #[arg(long, value_name = "auto|N", value_parser = dense_below)]
    pub(crate) dense_below: Option<DenseBelow>,
}

/// Below which context length SparQ attends densely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DenseBelow {
    Auto,
    Tokens(usize),
}

fn dense_below(text: &str) -> Result<DenseBelow, String> {
    match text {
        "auto" => Ok(DenseBelow::Auto),
        _ => {
            text.parse().map(DenseBelow::Tokens).map_err(|_| "expected auto or a number of tokens".to_owned())
        }
    }
}

impl AttentionArgs {
    /// Whether the length below which to attend densely is to be measured.
    pub(crate) fn measures_crossover(&self, demo: bool) -> bool {
        match self.dense_below {
            Some(dense_below) => dense_below == DenseBelow::Auto,
            // The small model is there to show SparQ at work, at whatever length.
            None => !demo,
        }
    }

    /// The attention of the run; `demo` for the small model inside the program, which is scaled
    /// down and so is its smallest top-k.
    pub(crate) fn resolve(&self, demo: bool) -> Attention {
        if self.attention == MethodArg::Dense {
            return Attention::Dense;
        }
        let size = match (self.sparq_rank, self.sparq_top_k) {
            (Some(rank), Some(top_k)) => SparqSize::Explicit { rank, top_k },
            _ => SparqSize::Ratio {
                ratio: self.compression_ratio.unwrap_or(8.0),
                min_top_k: self.min_top_k.unwrap_or(match demo {
                    true => crate::demo::MIN_TOP_K,
                    false => SparqConfig::MIN_TOP_K,
                }),
            },
        };
        Attention::Sparq(SparqOptions {
            size,
            local_window: self.local_window,
            mean_value: self.no_mean_value.then_some(false),
            group_scores: match self.group_scores {
                GroupScoresArg::Logits => GroupScores::ScaledLogits,
                GroupScoresArg::Softmax => GroupScores::Softmax,
            },
            index: match self.k_index {
                KeyIndexArg::Auto => IndexDtype::Cache,
                KeyIndexArg::Int8 => IndexDtype::Int8,
                KeyIndexArg::Int4 => IndexDtype::Int4,
            },
            dense_below: match self.dense_below {
                Some(DenseBelow::Tokens(tokens)) => tokens,
                Some(DenseBelow::Auto) | None => 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(flags: &str) -> Result<Attention, clap::Error> {
        let words = ["sparq", "generate", "text"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Command::Generate(args) => Ok(args.attention.resolve(true)),
            _ => unreachable!("generate was typed"),
        }
    }

    fn sparq(flags: &str) -> SparqOptions {
        match parse(flags).unwrap() {
            Attention::Sparq(options) => options,
            Attention::Dense => panic!("{flags} gave dense attention"),
        }
    }

    #[test]
    fn each_flag_does_what_it_says() {
        assert_eq!(parse("--attention dense").unwrap(), Attention::Dense);
        assert_eq!(sparq("").size, SparqSize::Ratio { ratio: 8.0, min_top_k: crate::demo::MIN_TOP_K });
        assert_eq!(
            sparq("--compression-ratio 4 --min-top-k 32").size,
            SparqSize::Ratio { ratio: 4.0, min_top_k: 32 }
        );
        assert_eq!(
            sparq("--sparq-rank 16 --sparq-top-k 96").size,
            SparqSize::Explicit { rank: 16, top_k: 96 }
        );
        assert_eq!(sparq("--local-window 7").local_window, Some(7));
        assert_eq!(sparq("").mean_value, None);
        assert_eq!(sparq("--no-mean-value").mean_value, Some(false));
        assert_eq!(sparq("--group-scores softmax").group_scores, GroupScores::Softmax);
        assert_eq!(sparq("--dense-below 512").dense_below, 512);
        assert_eq!(sparq("").index, IndexDtype::Cache);
        assert_eq!(sparq("--k-index int8").index, IndexDtype::Int8);
        assert_eq!(sparq("--k-index int4").index, IndexDtype::Int4);
        assert_eq!(sparq("--dense-below auto").dense_below, 0);
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for flags in [
            "--compression-ratio 8 --sparq-rank 16 --sparq-top-k 64",
            "--sparq-rank 16",
            "--dense-below never",
            "--sparq-top-k 16",
            "--attention sparse",
            "--min-top-k 3 --sparq-rank 16 --sparq-top-k 64",
        ] {
            assert_eq!(parse(flags).unwrap_err().exit_code(), 2, "{flags}");
        }
    }
}
