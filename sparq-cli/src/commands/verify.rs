//! `sparq verify`.

use std::{fmt::Write, process::ExitCode};

use anyhow::bail;
use sparq_core::device;
use sparq_models::{
    checkpoint::Checkpoint,
    text_model::load_model,
    verify::{Outcome, verify},
};

use crate::{
    args::VerifyArgs,
    hint::Advice,
    hub,
    output::{self, Progress},
    room::{self, Need},
};

/// Runs the subcommand: a line per tensor of the reference file, exit code 1 where one is off.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    if !args.tolerance.is_finite() || args.tolerance < 0.0 {
        bail!("--tolerance is {}, expected a finite number of at least 0", args.tolerance);
    }
    let device = device::parse(&args.device)?;
    let folder = hub::folder(&args.model, args.offline, &mut Progress::new(false))?;
    let checkpoint = Checkpoint::open(&folder)?.with_weight_format(args.weights.format());
    let dtype = args.dtype.resolve(&checkpoint, &device)?;
    if let Some(need) = Need::of(&checkpoint, dtype, None) {
        need.check(room::free(&device), 1)?;
    }
    let model = load_model(&checkpoint, &device, dtype, &mut |_, _| {})?;
    let file = args.expected.clone().unwrap_or_else(|| folder.join("expected.safetensors"));
    if !file.is_file() {
        let message = format!("there is no file of reference logits `{}`", file.display());
        return Err(
            Advice::new(message, "--expected FILE names one; docs/models.md says what it holds").into()
        );
    }
    let comparisons = verify(model.as_ref(), dtype, &file)?;

    let names: Vec<String> = comparisons.iter().map(|comparison| output::cell(&comparison.name)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, comparison) in names.iter().zip(&comparisons) {
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
        writeln!(out, "{name:width$}  {verdict}")?;
    }
    output::print(&out)?;
    Ok(match comparisons.iter().all(|comparison| comparison.passes(args.tolerance)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
