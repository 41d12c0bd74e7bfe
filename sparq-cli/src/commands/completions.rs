//! `sparq completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionsArgs},
    output,
};

/// Runs the subcommand: the script goes to standard output.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator does not pass errors of writing on.
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "sparq", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
