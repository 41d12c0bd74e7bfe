//! `sparq verify`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::bail;
use sparq_core::device;
use sparq_models::{
    checkpoint::Checkpoint,
    generate::load_model,
    verify::{Outcome, verify},
};

use crate::{args::VerifyArgs, hub, output::Progress};

/// Runs the subcommand: a line per tensor of the reference file, exit code 1 where one is off.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    if args.tolerance.is_nan() || args.tolerance < 0.0 {
        bail!("--tolerance is {}, expected a number of at least 0", args.tolerance);
    }
    let device = device::parse(&args.device)?;
    let folder = hub::folder(&args.model, args.offline, &mut Progress::new(false))?;
    let checkpoint = Checkpoint::open(&folder)?.with_weight_format(args.weights.format());
    let dtype = args.dtype.resolve(&checkpoint, &device)?;
    let model = load_model(&checkpoint, &device, dtype, &mut |_, _| {})?;
    let file = args.expected.clone().unwrap_or_else(|| folder.join("expected.safetensors"));
    let comparisons = verify(model.as_ref(), dtype, &file)?;

    let width = comparisons.iter().map(|comparison| comparison.name.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    for comparison in &comparisons {
        let verdict = match comparison.outcome {
            Outcome::NotBuilt => "not built".to_owned(),
            Outcome::Compared { max_difference, agreeing, positions, ties } => format!(
                "largest difference {max_difference:.1e}  greedy {agreeing}/{positions}  {}{}",
                if comparison.passes(args.tolerance) { "ok" } else { "FAILED" },
                match ties {
                    0 => String::new(),
                    _ => format!(
                        " (equal scores at the cut of {ties} selections: kept those that PyTorch keeps)"
                    ),
                }
            ),
        };
        writeln!(out, "{:width$}  {verdict}", comparison.name)?;
    }
    Ok(match comparisons.iter().all(|comparison| comparison.passes(args.tolerance)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
