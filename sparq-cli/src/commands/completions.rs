//! `sparq completions`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};

/// Runs the subcommand: the script goes to standard output.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator does not pass errors of writing on.
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "sparq", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
