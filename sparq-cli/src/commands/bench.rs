//! `sparq bench`.

use std::process::ExitCode;

use anyhow::anyhow;
use sparq_models::core::ops::ran::ran;

use crate::{
    args::{BenchArgs, BenchCommand},
    bench, output,
};

/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// Runs the subcommand.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    match &args.layer {
        Some(BenchCommand::Attention(layer)) => bench::bench_layer(layer)?,
        Some(BenchCommand::Linear(linear)) => bench::bench_linear(linear)?,
        None if args.model.n_prompt.iter().chain(&args.model.n_gen).all(|&tokens| tokens == 0) => {
            output::report(&anyhow!("there is nothing to measure: -p and -n are 0"));
            return Ok(ExitCode::from(USAGE));
        }
        None => bench::bench_model(&args.model)?,
    }
    if args.verbose {
        output::say(output::kernels(&ran()));
    }
    Ok(ExitCode::SUCCESS)
}
