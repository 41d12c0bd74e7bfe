use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use sparq_models::{
    attention::{Attention, MethodName, MethodSpec, Profile},
    core::{Choice, GroupScores, IndexDtype, SparqConfig},
};

use super::within;

/// Names of the flags that a profile takes the place of.
pub(crate) const FLAGS: [&str; 12] = [
    "attention",
    "compression-ratio",
    "min-top-k",
    "sparq-rank",
    "sparq-top-k",
    "local-window",
    "no-mean-value",
    "group-scores",
    "dense-below",
    "k-index",
    "choice",
    "dense-layers",
];

/// The key of the notation that a flag states; `@` for the ratio.
fn key(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "compression-ratio" => "@",
        "sparq-rank" => "r",
        "sparq-top-k" => "k",
        "min-top-k" => "min-k",
        "local-window" => "l",
        "no-mean-value" => "mean",
        "group-scores" => "group",
        "dense-below" => "dense-below",
        "k-index" => "index",
        "choice" => "choice",
        _ => return None,
    })
}

/// Whether a flag can say something beside this notation. Dense attention ignores all of them.
pub(crate) fn adds(spec: &MethodSpec, flag: &str) -> bool {
    let Some(key) = key(flag).filter(|_| spec.name != MethodName::Dense) else { return true };
    let takes = |key| spec.name.keys().contains(&key);
    let is_open = spec.rank.is_none() && spec.top_k.is_none();
    match key {
        "@" => spec.compression.is_none() && !spec.is_sized(),
        "r" | "k" => takes("r") && is_open && spec.compression.is_none() && spec.min_top_k.is_none(),
        "min-k" => takes(key) && spec.min_top_k.is_none() && spec.top_k.is_none(),
        _ => takes(key) && !spec.states(key),
    }
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

impl KeyIndexArg {
    pub(crate) fn form(self) -> IndexDtype {
        match self {
            Self::Auto => IndexDtype::Cache,
            Self::Int8 => IndexDtype::Int8,
            Self::Int4 => IndexDtype::Int4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChoiceArg {
    Exact,
    Buckets,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Attention")]
pub(crate) struct AttentionArgs {
    /// How decode steps attend to the cache: dense, sparq, sparq-mass, exact-topk, oracle-topk, local,
    /// h2o, quest or double-sparsity, with sizes behind it where they are not the default:
    /// sparq:r=16:k=64, h2o:k=64 (see docs/methods.md); prompts are always attended densely
    #[arg(long, value_name = "METHOD", default_value = "sparq", value_parser = MethodSpec::parse)]
    pub(crate) attention: MethodSpec,

    /// Read about one part in X of what dense attention reads [default: 8]
    #[arg(long, value_name = "X", conflicts_with_all = ["sparq_rank", "sparq_top_k"])]
    pub(crate) compression_ratio: Option<f64>,

    /// SparQ: smallest top-k that a compression ratio may choose
    /// [default: 128; 64 for the small model inside this program]
    #[arg(long, value_name = "K", conflicts_with_all = ["sparq_rank", "sparq_top_k"], value_parser = within(1..))]
    pub(crate) min_top_k: Option<usize>,

    /// SparQ: rank r, components of each key that are read to choose positions
    #[arg(long, value_name = "R", requires = "sparq_top_k")]
    pub(crate) sparq_rank: Option<usize>,

    /// SparQ: positions k that are read in full
    #[arg(long, value_name = "K", requires = "sparq_rank")]
    pub(crate) sparq_top_k: Option<usize>,

    /// SparQ, H2O, Double Sparsity: most recent positions that are always read
    /// [default: a quarter of k; 1 for Double Sparsity]
    #[arg(long, value_name = "L")]
    pub(crate) local_window: Option<usize>,

    /// SparQ: do not let the mean value stand in for what is not read
    /// [default: off only for models with grouped queries]
    #[arg(long)]
    pub(crate) no_mean_value: bool,

    /// SparQ: how the query heads of a group choose together [default: logits]
    #[arg(long, value_enum)]
    pub(crate) group_scores: Option<GroupScoresArg>,

    /// SparQ: attend densely to contexts shorter than N tokens; auto measures from which length on
    /// SparQ is faster here, once for each shape [default: auto; 0 for the small model inside this
    /// program]
    #[arg(long, value_name = "auto|N", value_parser = dense_below)]
    pub(crate) dense_below: Option<DenseBelow>,

    /// SparQ: how the copy of the keys that positions are chosen by is stored; auto keeps the dtype of
    /// the KV cache, int8 and int4 take less memory and less time [default: auto]
    #[arg(long, value_enum)]
    pub(crate) k_index: Option<KeyIndexArg>,

    /// SparQ: choose the best positions, or the best two of each interleaved bucket, which takes less time
    /// and misses some (see docs/kernels.md) [default: exact]
    #[arg(long, value_enum)]
    pub(crate) choice: Option<ChoiceArg>,

    /// Attend densely in the first N layers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) dense_layers: usize,

    /// Take the method of each layer from a file (see docs/methods.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "attention", "compression_ratio", "min_top_k", "sparq_rank", "sparq_top_k", "local_window",
        "no_mean_value", "group_scores", "dense_below", "k_index", "choice", "dense_layers",
    ])]
    pub(crate) profile: Option<PathBuf>,
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
    pub(crate) fn resolve(&self, demo: bool) -> anyhow::Result<Attention> {
        if let Some(path) = &self.profile {
            return Ok(Attention::Profile(Profile::read(path)?));
        }
        let spec = self.method(demo)?;
        let rest = match spec.name {
            MethodName::Dense => Attention::Dense,
            _ => Attention::Method(spec),
        };
        Ok(match self.dense_layers {
            0 => rest,
            layers => Attention::DenseFirst { layers, rest: Box::new(rest) },
        })
    }

    /// What was said and has no effect on a model of so many layers.
    pub(crate) fn notes(&self, layers: usize) -> Vec<String> {
        let mut notes = vec![];
        let is_dense = self.attention.name == MethodName::Dense;
        if is_dense && self.profile.is_none() {
            notes.extend(no_effect(&self.stated(), "with --attention dense"));
        }
        if !is_dense && layers > 0 && self.dense_layers >= layers {
            let covered = format!("--dense-layers {} covers all {layers} layers", self.dense_layers);
            notes.push(format!("{covered} of the model: all are attended densely"));
        }
        notes
    }

    /// The flags that were stated, but for `--attention` and `--profile`.
    fn stated(&self) -> Vec<&'static str> {
        let all = [
            ("--compression-ratio", self.compression_ratio.is_some()),
            ("--min-top-k", self.min_top_k.is_some()),
            ("--sparq-rank", self.sparq_rank.is_some()),
            ("--sparq-top-k", self.sparq_top_k.is_some()),
            ("--local-window", self.local_window.is_some()),
            ("--no-mean-value", self.no_mean_value),
            ("--group-scores", self.group_scores.is_some()),
            ("--dense-below", self.dense_below.is_some()),
            ("--k-index", self.k_index.is_some()),
            ("--choice", self.choice.is_some()),
            ("--dense-layers", self.dense_layers > 0),
        ];
        all.into_iter().filter_map(|(flag, is_stated)| is_stated.then_some(flag)).collect()
    }

    /// The method of `--attention` with what the other flags say.
    fn method(&self, demo: bool) -> anyhow::Result<MethodSpec> {
        let mut spec = self.attention.clone();
        let group_scores = self.group_scores.map(|group| match group {
            GroupScoresArg::Logits => GroupScores::ScaledLogits,
            GroupScoresArg::Softmax => GroupScores::Softmax,
        });
        let index = self.k_index.map(KeyIndexArg::form);
        let choice = self.choice.map(|choice| match choice {
            ChoiceArg::Exact => Choice::Exact,
            ChoiceArg::Buckets => Choice::Buckets,
        });
        let dense_below = match self.dense_below {
            Some(DenseBelow::Tokens(tokens)) => Some(tokens),
            Some(DenseBelow::Auto) | None => None,
        };
        let flags = Flags { name: spec.name };
        flags.set("--compression-ratio", "@", &mut spec.compression, self.compression_ratio)?;
        flags.set("--sparq-rank", "r", &mut spec.rank, self.sparq_rank)?;
        flags.set("--sparq-top-k", "k", &mut spec.top_k, self.sparq_top_k)?;
        flags.set("--min-top-k", "min-k", &mut spec.min_top_k, self.min_top_k)?;
        flags.set("--local-window", "l", &mut spec.local_window, self.local_window)?;
        flags.set("--no-mean-value", "mean", &mut spec.mean_value, self.no_mean_value.then_some(false))?;
        flags.set("--group-scores", "group", &mut spec.group_scores, group_scores)?;
        flags.set("--dense-below", "dense-below", &mut spec.dense_below, dense_below)?;
        flags.set("--k-index", "index", &mut spec.index, index)?;
        flags.set("--choice", "choice", &mut spec.choice, choice)?;
        let said = spec.name != MethodName::Dense && (spec.is_sized() || spec.top_k.is_some());
        if said && self.compression_ratio.is_some() && spec.is_sized() {
            bail!(
                "--compression-ratio has no effect with --attention {}, which states all sizes",
                self.attention
            );
        }
        if said && self.min_top_k.is_some() {
            bail!("--min-top-k has no effect with --attention {}, which states k", self.attention);
        }
        if self.sparq_rank.is_some() && self.attention.compression.is_some() {
            bail!(
                "--sparq-rank and --sparq-top-k leave no effect to the ratio of --attention {}",
                self.attention
            );
        }
        if spec.name.keys().contains(&"min-k") && spec.rank.is_none() && spec.top_k.is_none() {
            spec.min_top_k = spec.min_top_k.or(Some(match demo {
                true => crate::demo::MIN_TOP_K,
                false => SparqConfig::MIN_TOP_K,
            }));
        }
        Ok(spec)
    }
}

/// `--a and --b have no effect WHERE`; `None` for no flags.
pub(super) fn no_effect(flags: &[&str], where_: &str) -> Option<String> {
    let (last, others) = flags.split_last()?;
    Some(match others {
        [] => format!("{last} has no effect {where_}"),
        others => format!("{} and {last} have no effect {where_}", others.join(", ")),
    })
}

/// Flags that add to the notation of a method.
struct Flags {
    name: MethodName,
}

impl Flags {
    /// Takes a flag's value. Dense attention takes none and ignores all, so that a command can be
    /// repeated with `--attention dense` in it.
    fn set<T>(&self, flag: &str, key: &str, place: &mut Option<T>, value: Option<T>) -> anyhow::Result<()> {
        if value.is_none() || self.name == MethodName::Dense {
            return Ok(());
        }
        if key != "@" && !self.name.keys().contains(&key) {
            bail!("{flag} has no effect with --attention {}", self.name);
        }
        if place.is_some() {
            bail!("{flag} and --attention both state `{key}`");
        }
        *place = value;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(flags: &str) -> Result<anyhow::Result<Attention>, clap::Error> {
        let words = ["sparq", "generate", "text"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Command::Generate(args) => Ok(args.attention.resolve(true)),
            _ => unreachable!("generate was typed"),
        }
    }

    fn notation(flags: &str) -> String {
        match parse(flags).unwrap().unwrap() {
            Attention::Method(spec) => spec.to_string(),
            other => panic!("{flags} gave {other:?}"),
        }
    }

    #[test]
    fn each_flag_does_what_it_says() {
        assert_eq!(parse("--attention dense").unwrap().unwrap(), Attention::Dense);
        assert_eq!(parse("--attention dense --dense-below 9").unwrap().unwrap(), Attention::Dense);
        let smallest = format!("min-k={}", crate::demo::MIN_TOP_K);
        assert_eq!(notation(""), format!("sparq:{smallest}"));
        assert_eq!(notation("--compression-ratio 4 --min-top-k 32"), "sparq@4:min-k=32");
        assert_eq!(notation("--sparq-rank 16 --sparq-top-k 96"), "sparq:r=16:k=96");
        assert_eq!(notation("--local-window 7"), format!("sparq:l=7:{smallest}"));
        assert_eq!(notation("--no-mean-value"), format!("sparq:mean=off:{smallest}"));
        assert_eq!(notation("--group-scores softmax"), format!("sparq:group=softmax:{smallest}"));
        assert_eq!(notation("--dense-below 512"), format!("sparq:{smallest}:dense-below=512"));
        assert_eq!(notation("--k-index int8"), format!("sparq:{smallest}:index=int8"));
        assert_eq!(notation("--choice buckets"), format!("sparq:{smallest}:choice=buckets"));
        assert_eq!(notation("--k-index auto"), format!("sparq:{smallest}:index=cache"));
        for name in MethodName::ALL.into_iter().filter(|name| !name.keys().contains(&"min-k")).skip(1) {
            assert_eq!(notation(&format!("--attention {name}")), name.as_str());
        }
        assert_eq!(notation("--attention sparq:r=16:k=64"), "sparq:r=16:k=64");
        assert_eq!(notation("--attention h2o --compression-ratio 4 --local-window 3"), "h2o@4:l=3");
        assert_eq!(notation("--dense-below auto"), format!("sparq:{smallest}"));
        let Attention::DenseFirst { layers, rest } =
            parse("--attention quest@4 --dense-layers 2").unwrap().unwrap()
        else {
            panic!("dense layers first");
        };
        assert_eq!((layers, *rest), (2, Attention::Method(MethodSpec::parse("quest@4").unwrap())));
    }

    #[test]
    fn what_has_no_effect_is_noted() {
        let notes = |flags: &str| {
            let words = ["sparq", "generate", "text"].into_iter().chain(flags.split_whitespace());
            match Cli::try_parse_from(words).unwrap().command {
                Command::Generate(args) => args.attention.notes(8),
                _ => unreachable!("generate was typed"),
            }
        };
        assert_eq!(
            notes("--attention dense --sparq-rank 4 --sparq-top-k 8 --dense-layers 1"),
            ["--sparq-rank, --sparq-top-k and --dense-layers have no effect with --attention dense"]
        );
        let one = notes("--attention dense --compression-ratio 8");
        assert_eq!(one, ["--compression-ratio has no effect with --attention dense"]);
        let all = notes("--dense-layers 99");
        assert_eq!(all, ["--dense-layers 99 covers all 8 layers of the model: all are attended densely"]);
        assert_eq!(notes("--dense-layers 7 --compression-ratio 8"), [""; 0]);
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for flags in [
            "--compression-ratio 8 --sparq-rank 16 --sparq-top-k 64",
            "--sparq-rank 16",
            "--dense-below never",
            "--sparq-top-k 16",
            "--attention sparse",
            "--attention h2o:r=4",
            "--min-top-k 3 --sparq-rank 16 --sparq-top-k 64",
            "--profile a.json --attention h2o",
            "--profile a.json --dense-layers 2",
        ] {
            assert_eq!(parse(flags).unwrap_err().exit_code(), 2, "{flags}");
        }
        for flags in [
            "--attention sparq@8 --compression-ratio 4",
            "--attention sparq:r=4:k=8 --sparq-rank 4 --sparq-top-k 8",
            "--attention h2o --no-mean-value",
            "--attention sparq:r=4:k=8 --compression-ratio 4",
            "--attention h2o:k=8 --compression-ratio 4",
            "--attention sparq:k=8 --min-top-k 4",
            "--attention sparq@8 --sparq-rank 4 --sparq-top-k 8",
            "--attention quest --local-window 3",
            "--profile no-such-file.json",
        ] {
            assert!(parse(flags).unwrap().is_err(), "{flags}");
        }
    }
}
