//! `sparq generate`.

use std::{ops::ControlFlow, process::ExitCode, time::Instant};

use sparq_models::{
    core::ops::ran::ran,
    generate::{Event, GenerateOptions},
    text_model::TextModel,
};

use crate::{
    args::GenerateArgs,
    output::{self, Progress, Sink, summary},
    room::{self, Need},
};

/// Tokens to generate where neither a flag nor the checkpoint says how many.
const MAX_NEW_TOKENS: usize = 512;

/// Runs the subcommand.
pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let prompt = args.prompt.read()?;
    // Opened before the work, so that a path that cannot be written costs nothing.
    let mut sink = Sink::open(args.output.as_deref())?;
    let mut progress = Progress::new(args.no_progress || args.quiet);
    let (checkpoint, device, dtype) = args.model.resolve(&mut progress)?;
    if let Some(note) = args.model.dtype.note(&checkpoint, &device, dtype).filter(|_| !args.quiet) {
        output::say(note);
    }
    let defaults = checkpoint.generation_config();
    args.sampling.notes(defaults).iter().for_each(|note| output::say(format!("note: {note}")));
    let attention = args.attention.resolve(args.model.is_demo())?;

    let new_tokens = |prompt| args.sampling.limit(args.max_new_tokens, defaults, prompt, MAX_NEW_TOKENS);
    if let Some(need) = Need::of(&checkpoint, dtype, room::kt_format_of(&attention)) {
        let (free, longest) = (room::free(&device), args.max_seq_len.or(need.context));
        let check = |prompt| need.check(free, room::reserved(prompt, new_tokens(prompt)?.tokens, longest));
        check(0)?;
        // A text has hardly more tokens than bytes: mostly they need not be counted.
        if check(prompt.len()).is_err() {
            check(checkpoint.tokenizer()?.encode(&prompt, true)?.len())?;
        }
    }
    let start = Instant::now();
    let model = TextModel::load(&checkpoint, &device, dtype, &mut |done, total| progress.load(done, total))?;
    let load = start.elapsed();
    let layers = model.model().attention_layers().len();
    let notes = args.attention.notes(layers).into_iter().chain(args.sampling.without_effect(defaults));
    notes.for_each(|note| output::say(format!("note: {note}")));
    if args.show_prompt {
        progress.clear();
        let shown = output::prompt(model.tokenizer(), &model.tokenizer().encode(&prompt, true)?)?;
        output::say(shown.trim_end());
    }
    let ids = model.tokenizer().encode(&prompt, true)?;
    let limit = new_tokens(ids.len())?;
    let options = GenerateOptions {
        attention,
        measuring_memory: room::for_measuring(&device),
        max_new_tokens: limit.tokens,
        max_seq_len: args.max_seq_len,
        sampler: args.sampling.resolve(defaults),
        stop: args.sampling.stops(&args.stop, defaults),
        max_time: args.sampling.defaults(defaults).max_time,
        ignore_eos: args.ignore_eos,
    };

    let mut failure = None;
    let generation = model.generate_from(&ids, &options, &mut |event| {
        match event {
            Event::Prefill { done, total } => progress.prefill(done, total),
            Event::Text(text) => {
                progress.clear();
                if let Err(error) = sink.write(text) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            Event::BeyondTrainedLength { tokens } => {
                progress.clear();
                output::beyond_trained_length(tokens);
            }
        }
        ControlFlow::Continue(())
    })?;
    progress.clear();
    if let Some(error) = failure {
        return Err(error);
    }
    sink.finish()?;
    if !args.quiet {
        let stats = &generation.stats;
        output::say(summary(stats, load, &args.model.device, dtype, &limit, &options.attention));
    }
    if args.verbose {
        output::say(output::kernels(&ran()));
    }
    Ok(ExitCode::SUCCESS)
}
