//! `sparq tune`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use sparq_models::{
    attention::{AttentionPlan, LayerMethod, MethodSpec, Profile},
    calibrate,
    core::{Method, MethodKind},
    text_model::TextModel,
    tune::{Best, Grid, Measurement, Probe, Target, Tuned, Windows, frontier, tune},
};

use crate::{
    args::TuneArgs,
    output::{self, Progress, Sink},
    room::{self, Need},
};

const MADE_BY: &str = concat!("sparq tune ", env!("CARGO_PKG_VERSION"));

/// Tokens of a window where neither the text nor the model is shorter.
const WINDOW: usize = 1024;

/// Runs the subcommand: the frontier to standard output, the profile to a file; exit code 1 where no
/// setting meets the target.
pub(crate) fn run(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    let target = target(args)?; // Before the model is loaded.
    let text =
        fs::read_to_string(&args.text).with_context(|| format!("cannot read `{}`", args.text.display()))?;
    let sink = args.output.as_deref().map(|path| Sink::open(Some(path))).transpose()?;
    let mut progress = Progress::new(args.no_progress);
    let (checkpoint, device, dtype) = args.model.resolve(&mut progress)?;
    if let Some(need) = Need::of(&checkpoint, dtype, None) {
        need.check(room::free(&device), args.window.unwrap_or(1))?;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let model = TextModel::load(&checkpoint, &device, dtype, &mut |done, total| progress.load(done, total))?;
    let ids = model.tokenizer().encode(text, true)?;
    let longest = model.model().max_position_embeddings();
    let len = args.window.unwrap_or(WINDOW.min(longest).min(ids.len()));
    if len > longest {
        bail!("--window is {len}, the model's longest context is {longest}");
    }
    // Text that is too short is told from steps that are too many.
    let least = if target.is_some() { args.steps.saturating_add(1).max(len) } else { 2 };
    if ids.len() < least {
        bail!("`{}` holds {} tokens, and at least {least} are needed", args.text.display(), ids.len());
    }
    let Some(target) = target else {
        return label_channels(args, &model, &ids[..], len, sink, &mut progress);
    };
    let windows = Windows { len, steps: args.steps, count: args.windows };
    let mut grid = Grid::for_model(&model.model().attention_layers(), len);
    if !args.rank.is_empty() {
        grid.ranks.clone_from(&args.rank);
    }
    if !args.top_k.is_empty() {
        grid.top_ks.clone_from(&args.top_k);
    }
    grid.sort();

    let probe = Probe::new(model.model(), dtype, &ids, windows, &mut |done, total| {
        progress.count("dense  ", "windows", done, total);
    })?;
    let tuned = tune(&probe, &grid, target, !args.uniform, &mut |step| match step {
        sparq_models::tune::Progress::Uniform(done, total) => {
            progress.count("uniform", "settings", done, total);
        }
        sparq_models::tune::Progress::Layers(done, total) => {
            progress.count("layers ", "settings", done, total);
        }
    })?;
    progress.clear();

    output::print(&report(&tuned, target, &probe, len))?;
    let Some(best) = &tuned.best else {
        bail!("no setting of the grid meets the target: give a larger --rank or --top-k, or a looser target");
    };
    if let (Some(path), Some(sink)) = (&args.output, sink) {
        write(&profile(args, best, len), sink, path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The target; `None` where label channels are asked for instead.
fn target(args: &TuneArgs) -> anyhow::Result<Option<Target>> {
    if let Some(spec) = args.label_channels.as_ref().filter(|spec| spec.kind != MethodKind::DoubleSparsity) {
        bail!("--label-channels is {spec}, only double-sparsity has label channels");
    }
    match (args.target_kl, args.target_mass) {
        (Some(kl), _) if kl > 0.0 && kl.is_finite() => Ok(Some(Target::Kl(kl))),
        (Some(kl), _) => bail!("--target-kl is {kl}, expected a number above 0"),
        (None, Some(mass)) if mass > 0.0 && mass <= 1.0 => Ok(Some(Target::Mass(mass))),
        (None, Some(mass)) => bail!("--target-mass is {mass}, expected a number above 0 and at most 1"),
        (None, None) => Ok(None),
    }
}

/// Writes a profile of Double Sparsity with the channels that the text shows.
fn label_channels(
    args: &TuneArgs,
    model: &TextModel,
    ids: &[u32],
    len: usize,
    sink: Option<Sink>,
    progress: &mut Progress,
) -> anyhow::Result<ExitCode> {
    let (Some(spec), Some(path), Some(sink)) = (&args.label_channels, &args.output, sink) else {
        bail!("--label-channels and --output go together");
    };
    let channels = calibrate::label_channels(model.model(), model.dtype(), ids, len, &mut |done, total| {
        progress.count("text   ", "windows", done, total);
    })?;
    progress.clear();
    let methods = AttentionPlan::from(*spec).methods(&model.model().attention_layers(), len)?;
    let layer = |(method, channels): (Method, &Vec<Vec<usize>>)| {
        LayerMethod::Method(calibrate::with_channels(method, channels))
    };
    let layers = methods.into_iter().zip(&channels).map(layer).collect();
    let about = about(json!({
        "made_by": MADE_BY,
        "model": model_name(args),
        "text": args.text.display().to_string(),
        "window_tokens": len,
        "method": spec.to_string(),
    }));
    write(&Profile { about, layers, file: None }, sink, path)?;
    Ok(ExitCode::SUCCESS)
}

fn write(profile: &Profile, mut sink: Sink, path: &Path) -> anyhow::Result<()> {
    sink.write(&profile.to_json())?;
    sink.finish()?;
    output::say(format!("profile    {}", path.display()));
    Ok(())
}

/// The frontier and what was chosen.
fn report(tuned: &Tuned, target: Target, probe: &Probe<'_>, len: usize) -> String {
    let mut lines = vec![
        format!(
            "{} of {len} tokens; settings that no other beats in traffic and quality:",
            output::counted(probe.windows(), "window")
        ),
        String::new(),
        format!(
            "{:>6} {:>6} {:>9} {:>10} {:>8} {:>8}",
            "rank r", "top-k", "of dense", "KL, nats", "same top", "mass"
        ),
    ];
    for point in frontier(&tuned.points, target) {
        let mark = if target.is_met(&point.found) { "  meets the target" } else { "" };
        lines.push(format!("{:>6} {:>6} {}{mark}", point.rank, point.top_k, figures(&point.found)));
    }
    if let Some(best) = &tuned.best {
        lines.push(String::new());
        if let Some(uniform) = &best.uniform {
            lines.push(format!("all layers alike: r = {}, k = {}", uniform.rank, uniform.top_k));
        }
        lines.push(format!("{:>13} {}", "chosen", figures(&best.found)));
        if let Some(held_out) = &best.held_out {
            let missed = match target.is_met(held_out) {
                true => "",
                false => "  misses the target: more --windows or --steps make the choice surer",
            };
            lines.push(format!("{:>13} {}{missed}", "held out", figures(held_out)));
        }
        for (layer, (method, mass)) in best.methods.iter().zip(&best.found.mass).enumerate() {
            lines.push(format!("layer {layer:>3}: {}, mass {mass:.3}", MethodSpec::from(method)));
        }
    }
    lines.join("\n") + "\n"
}

fn figures(found: &Measurement) -> String {
    format!(
        "{:>7.1} % {:>10.5} {:>6.1} % {:>8.3}",
        100.0 * found.traffic.ratio(),
        found.kl,
        100.0 * found.agreement,
        found.mean_mass()
    )
}

/// The profile, with what it was made for.
fn profile(args: &TuneArgs, best: &Best, len: usize) -> Profile {
    let figures = |found: &Measurement| {
        json!({
            "kl": found.kl,
            "same_top": found.agreement,
            "mass": found.mean_mass(),
            "of_dense": found.traffic.ratio(),
        })
    };
    let about = about(json!({
        "made_by": MADE_BY,
        "model": model_name(args),
        "text": args.text.display().to_string(),
        "window_tokens": len,
        "decoded_tokens": args.steps,
        "target_kl": args.target_kl,
        "target_mass": args.target_mass,
        "found": figures(&best.found),
        "held_out": best.held_out.as_ref().map(figures),
    }));
    let layer = |method: &Method| LayerMethod::Notation(MethodSpec::from(method));
    Profile { about, layers: best.methods.iter().map(layer).collect(), file: None }
}

fn model_name(args: &TuneArgs) -> String {
    args.model.model.as_ref().map_or("embedded model".into(), |path| path.display().to_string())
}

/// The fields of a JSON object.
fn about(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
