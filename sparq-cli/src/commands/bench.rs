//! `sparq bench`.

use std::process::ExitCode;

use crate::{
    args::{BenchArgs, BenchCommand},
    bench,
};

/// Runs the subcommand.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    match &args.layer {
        Some(BenchCommand::Attention(layer)) => bench::bench_layer(layer)?,
        Some(BenchCommand::Linear(linear)) => bench::bench_linear(linear)?,
        None => bench::bench_model(&args.model)?,
    }
    Ok(ExitCode::SUCCESS)
}
