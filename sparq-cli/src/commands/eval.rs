//! `sparq eval`.

mod charts;
mod list;
mod page;
mod report;

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
};

use anyhow::Context;
use burn::tensor::{DType, Device};
use sparq_core::device::{self, Kind};
use sparq_models::{
    attention::AttentionPlan,
    eval::{Chosen, Evaluation, Journal, Names, Progress, Results, Variant, journal_path, tasks},
    models::CausalModel,
    text_model::TextModel,
};

use crate::{
    args::{EvalArgs, EvalCommand, EvalRunArgs},
    output::{self, Sink},
    room::{self, Need},
};

/// The longest default context.
const LONGEST_DEFAULT_TOKENS: usize = 4096;

/// Bytes of cache that the default batch may take.
const CACHE_BYTES: usize = 1 << 29;

/// Batches at a time by default: each holds a cache.
const MOST_DEFAULT_JOBS: usize = 4;

/// The largest default batch.
const LARGEST_DEFAULT_BATCH: usize = 8;

/// Runs the subcommand.
pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(EvalCommand::List) => list::run(),
        Some(EvalCommand::Report(args)) => report::run(args),
        None => evaluate(&args.run),
    }
}

fn evaluate(args: &EvalRunArgs) -> anyhow::Result<ExitCode> {
    // What was typed is checked before the model is loaded.
    let tasks = chosen(args)?;
    let mut variants = Variant::all(&args.attention, &args.compression_ratio);
    for path in once(args.profile.clone()) {
        variants.push(Variant::profile(&path)?);
    }
    // The same notation may be typed in two ways.
    let mut labels = vec![];
    variants.retain(|variant| {
        let label = (variant.name.clone(), variant.compression);
        let is_new = !labels.contains(&label) || matches!(variant.plan, AttentionPlan::Profile(_));
        labels.push(label);
        is_new
    });
    let sink = args.output.as_deref().map(|path| Sink::open(Some(path))).transpose()?;

    let mut bars = output::EvalProgress::new(args.no_progress || args.quiet);
    let (checkpoint, device, dtype) = args.model.resolve(bars.loading())?;
    if let Some(need) = Need::of(&checkpoint, dtype, None) {
        need.check(room::free(&device), args.lengths.iter().copied().max().unwrap_or(1))?;
    }
    let model =
        TextModel::load(&checkpoint, &device, dtype, &mut |done, total| bars.loading().load(done, total))?;
    let lengths = lengths(args, model.model().max_position_embeddings());
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let batch = args.batch.unwrap_or_else(|| default_batch(model.model(), dtype, longest));
    let names = Names {
        model: match &args.model.model {
            Some(folder) => folder.display().to_string(),
            None => "embedded model".to_owned(),
        },
        architecture: checkpoint.architecture()?.to_owned(),
        device: args.model.device.clone(),
    };
    let plan = tasks::Plan { limit: args.limit, lengths, depths: args.depths, seed: args.seed };
    let evaluation = Evaluation::new(&model, names, tasks, variants, plan, batch)?;

    for variant in evaluation.left_out().iter().filter(|_| !args.quiet) {
        let ratio = variant.compression.unwrap_or(1.0);
        output::say(format!("left out: {} cannot move as little as 1/{ratio}", variant.name));
    }
    if let (Some(path), Some(true), false) = (&args.output, sink.as_ref().map(Sink::is_file), args.force) {
        evaluation.settings().check_results(path)?;
    }
    let mut journal = match (&args.output, &sink) {
        (Some(path), Some(sink)) if sink.is_file() => {
            Journal::open(&journal_path(path), evaluation.settings())?
        }
        _ => Journal::in_memory(),
    };
    if journal.finished() > 0 && !args.quiet {
        output::say(format!("going on after {} finished batches", journal.finished()));
    }
    if journal.is_taken() && !args.quiet {
        output::say("note: another run is writing the same results; this one keeps no journal");
    }
    let jobs = args.jobs.map_or_else(|| default_jobs(&device), usize::from);
    let results = evaluation.run(jobs, &mut journal, &mut |progress: Progress| bars.update(progress));
    bars.clear();
    finish(args.quiet, &results?, sink, journal)
}

/// Writes the results, then lets go of the journal.
fn finish(quiet: bool, results: &Results, sink: Option<Sink>, journal: Journal) -> anyhow::Result<ExitCode> {
    if let Some(mut sink) = sink {
        sink.write(&results.to_json()?)?;
        sink.finish()?;
        journal.remove()?;
    }
    if !quiet {
        let page = page::tables(results);
        io::stdout().lock().write_all(page.as_bytes()).context("cannot write to standard output")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The tasks that were typed, or all that need no file.
fn chosen(args: &EvalRunArgs) -> sparq_models::Result<Vec<Chosen>> {
    if args.tasks.is_empty() {
        let own = tasks::tasks().iter().filter(|task| task.file.is_none());
        return own.map(|task| Chosen::new(task.name, None)).collect();
    }
    once(args.tasks()).into_iter().map(|(name, file)| Chosen::new(&name, file)).collect()
}

/// Each of them once, in the order in which they come.
fn once<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut kept: Vec<T> = vec![];
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

fn lengths(args: &EvalRunArgs, context: usize) -> Vec<usize> {
    let mut lengths = args.lengths.clone();
    if lengths.is_empty() {
        let longest = context.min(LONGEST_DEFAULT_TOKENS);
        lengths = vec![longest / 4, longest / 2, longest];
    }
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// A batch whose cache of keys, transposed keys and values fits.
fn default_batch(model: &dyn CausalModel, dtype: DType, tokens: usize) -> usize {
    let of_layer = |shape: sparq_models::core::AttentionShape| shape.kv_heads * shape.head_dim;
    let elements: usize = model.attention_layers().iter().map(|layer| of_layer(layer.shape)).sum();
    let bytes = 3 * elements * dtype.size() * tokens;
    (CACHE_BYTES / bytes.max(1)).clamp(1, LARGEST_DEFAULT_BATCH)
}

/// One for each core, up to [`MOST_DEFAULT_JOBS`], where the cores compute: the steps of a few sequences
/// keep one core busy, and hardly two.
fn default_jobs(device: &Device) -> usize {
    match device::kind(device) {
        Kind::Cpu => thread::available_parallelism().map_or(1, usize::from).min(MOST_DEFAULT_JOBS),
        Kind::Gpu | Kind::SoftwareGpu => 1,
    }
}
