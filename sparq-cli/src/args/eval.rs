//! `sparq eval`: which tasks, which methods, how many samples.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sparq_models::attention::{self, MethodSpec};

use super::{ModelArgs, notation_help};

/// Compare decode methods with dense attention on tasks.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,

    #[command(flatten)]
    pub(crate) run: EvalRunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// List the tasks
    List,
    /// Make a Markdown page and SVG charts from results
    Report(EvalReportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EvalRunArgs {
    /// Tasks to run, as NAME, or NAME=FILE for those that read a file [default: all that read none]
    #[arg(value_name = "TASK", value_parser = task)]
    pub(crate) tasks: Vec<String>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[arg(long, alias = "methods", value_name = "METHODS", value_delimiter = ',', value_parser = MethodSpec::parse,
        default_value = "sparq,sparq-mass,oracle-topk,double-sparsity,quest,h2o,local",
        help = notation_help("Decode methods to compare, separated by commas; dense attention always runs"))]
    pub(crate) attention: Vec<MethodSpec>,

    /// Compare the profile in a file too, as `sparq tune` writes it; several with the option repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Vec<PathBuf>,

    /// Read one part in X of what dense attention reads; several, separated by commas
    #[arg(long, alias = "compression", value_name = "X", value_delimiter = ',', default_value = "2,4,8",
        value_parser = ratio)]
    pub(crate) compression_ratio: Vec<f64>,

    /// Samples per task
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub(crate) limit: usize,

    /// Lengths of contexts with questions and answers in tokens, separated by commas
    /// [default: a quarter, a half and all of the model's context, at most 4096]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(crate) lengths: Vec<usize>,

    /// Depths at which answers are hidden
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) depths: usize,

    /// Seed: the same seed and options give the same results, byte for byte
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Sequences decoded together [default: as many as half a gigabyte of cache holds, at most 8]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,

    /// Batches that run in parallel, each with its own cache; does not affect results
    /// [default: one for each core up to 4 on the CPU, 1 on other devices]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,

    /// Write the results as JSON; FILE.partial holds what is finished until then, and the same command
    /// resumes from it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Overwrite results of a run with other settings
    #[arg(long, requires = "output")]
    pub(crate) force: bool,

    /// Do not print tables
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Do not show progress bars
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvalReportArgs {
    /// Results of `sparq eval`
    pub(crate) results: PathBuf,

    /// Folder for the page and the charts [default: that of the results]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// A compression ratio.
fn ratio(text: &str) -> Result<f64, String> {
    attention::ratio(text).ok_or_else(|| "it must be a number of at least 1".to_owned())
}

/// A task as it is typed; a file without a name would only be found missing once the model is loaded.
fn task(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, "")) => Err(format!("no file stands behind `{name}=`")),
        _ => Ok(text.to_owned()),
    }
}

impl EvalRunArgs {
    /// Names and files of the tasks that were typed.
    pub(crate) fn tasks(&self) -> Vec<(String, Option<PathBuf>)> {
        let split = |task: &String| match task.split_once('=') {
            Some((name, file)) => (name.to_owned(), Some(PathBuf::from(file))),
            None => (task.clone(), None),
        };
        self.tasks.iter().map(split).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(words: &str) -> Result<EvalArgs, clap::Error> {
        match Cli::try_parse_from(format!("sparq eval {words}").split_whitespace())?.command {
            Command::Eval(args) => Ok(*args),
            _ => unreachable!("eval was typed"),
        }
    }

    #[test]
    fn tasks_carry_their_files() {
        let args =
            parse("passkey squad=a=b.json --compression-ratio 2,4 --attention sparq,dense").unwrap().run;
        let expected = [("passkey".to_owned(), None), ("squad".to_owned(), Some("a=b.json".into()))];
        assert_eq!(args.tasks(), expected);
        assert_eq!((args.compression_ratio, args.attention.len()), (vec![2.0, 4.0], 2));
        // The names of before.
        let args = parse("--compression 3 --methods h2o").unwrap().run;
        assert_eq!((args.compression_ratio, args.attention.len()), (vec![3.0], 1));
        assert!(parse("").unwrap().run.tasks.is_empty());
    }

    #[test]
    fn subcommands_stand_alone() {
        assert!(matches!(parse("list").unwrap().command, Some(EvalCommand::List)));
        assert!(matches!(parse("report x.json -o d").unwrap().command, Some(EvalCommand::Report(_))));
        for words in ["--compression-ratio 0.5", "--attention magic", "squad="] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
        assert_eq!(parse("report").unwrap_err().exit_code(), 2);
    }
}
