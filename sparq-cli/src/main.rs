//! `sparq`: text generation that reads part of the KV cache.
//!
//! Exit codes: 0 success (a closed pipe is success), 1 something failed, 2 wrong usage.

// Their macros panic where a stream is full or closed: `output::say` and `writeln!` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
mod commands;
mod demo;
mod hint;
mod hub;
mod memory;
mod output;
mod room;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{
    CommandFactory, FromArgMatches,
    error::{ContextKind, ErrorKind},
};

use args::{Cli, Command};

#[global_allocator]
static ALLOCATOR: memory::LargePages = memory::LargePages;

/// The command with arguments that take negative numbers for numbers: what reads them says what is allowed.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// The next step for a word too many: where a model is meant, the option that names it.
fn usage_hint(usage: &clap::Error) -> Option<String> {
    let takes_model = ["inspect", "chat", "bench", "verify", "tune"];
    let command = std::env::args_os().nth(1);
    let command = command.filter(|command| takes_model.iter().any(|name| command == *name));
    let word = usage.get(ContextKind::InvalidArg).filter(|_| usage.kind() == ErrorKind::UnknownArgument)?;
    let word = word.to_string();
    (command.is_some() && !word.starts_with('-')).then(|| format!("-m names a model: -m {word}"))
}

/// Prints what there is to say instead of running: help, the version, or what is wrong with the words typed.
fn said(usage: &clap::Error) -> ExitCode {
    let printed = usage.print().and_then(|()| io::stdout().flush());
    if usage.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        output::say("\nerror: a command is missing");
    }
    if let Some(hint) = usage_hint(usage) {
        output::say(format!("\n  hint: {hint}"));
    }
    match printed.context("cannot write to standard output") {
        Err(error) if !usage.use_stderr() && !output::is_broken_pipe(&error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
        _ => u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

fn main() -> ExitCode {
    let mut command = with_negative_numbers(Cli::command());
    let typed = command.try_get_matches_from_mut(std::env::args_os());
    let cli = match typed.and_then(|typed| Cli::from_arg_matches(&typed).map_err(|e| e.format(&mut command)))
    {
        Ok(cli) => cli,
        Err(usage) => return said(&usage),
    };
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
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Tune(args) => commands::tune::run(args),
        Command::Verify(args) => commands::verify::run(args),
    };
    // What is left in the buffer may be what does not fit.
    let result = result.and_then(|code| {
        io::stdout().flush().context("cannot write to standard output")?;
        Ok(code)
    });
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
    }
}
