//! `sparq`: text generation that reads part of the KV cache.
//!
//! Exit codes: 0 success (a closed pipe is success), 1 something failed, 2 wrong usage.

mod args;
mod bench;
mod commands;
mod crossover;
mod demo;
mod hint;
mod hub;
mod memory;
mod output;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

#[global_allocator]
static ALLOCATOR: memory::LargePages = memory::LargePages;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // This thread takes part in parallel work: it need not wait until another one is awake. It is the first
    // to ask for the pool, so there is none to be in the way.
    if let Err(error) = rayon::ThreadPoolBuilder::new().use_current_thread().build_global() {
        output::report(&error.into());
        return ExitCode::FAILURE;
    }
    let result = match &cli.command {
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Pull(args) => commands::pull::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Tune(args) => commands::tune::run(args),
        Command::Verify(args) => commands::verify::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
    }
}
