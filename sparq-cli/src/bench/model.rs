//! Whole models: prompts and generations at depths, as llama-bench measures them.
//!
//! The methods and the bandwidth of memory take turns, so that whatever else the machine does weighs on
//! all of them, and ratios are medians over the turns.

mod row;

use std::{io, time::Instant};

use anyhow::{Context, bail};
use burn::tensor::{DType, Device};
use sparq_core::device;
use sparq_models::{
    attention::{AttentionPlan, Profile, widest},
    checkpoint::Checkpoint,
    core::{Method, MethodKind, Traffic},
    forward::{self, Row, Want},
    models::CausalModel,
    presets::{preset, presets},
    state::{ModelState, StateConfig, StateMark},
    text_model::load_model,
};

use super::{
    bandwidth::{Bandwidth, Meter},
    layer::fill,
    mean_and_deviation, median,
    method::MethodSettings,
    record::Writer,
    sync,
};
use crate::{
    args::BenchModelArgs,
    output::{self, Progress},
    room::{self, Need},
};

use self::row::{ModelRecord, common, decoded};

/// Prompt tokens that go through the model at once, as in `sparq generate`.
const BATCH: usize = 512;

/// What is the same for all tests.
struct Bench<'a> {
    args: &'a BenchModelArgs,
    model: Box<dyn CausalModel>,
    device: Device,
    /// The fields that all records share.
    common: ModelRecord,
    dtype: DType,
    meter: Meter,
}

/// Times of the repetitions of a test, and what one decoded token moved.
struct Run {
    samples_ns: Vec<f64>,
    /// Bandwidth of reading before each repetition.
    reads: Vec<f64>,
    kv_bytes: Option<(f64, f64)>,
}

/// `sparq bench`.
pub(crate) fn bench_model(args: &BenchModelArgs) -> anyhow::Result<()> {
    let mut progress = Progress::new(args.no_progress);
    let (checkpoint, device, dtype) = open(args, &mut progress)?;
    check_room(args, &checkpoint, &device, dtype)?;
    let mut loaded = 0;
    let model = load_model(&checkpoint, &device, dtype, &mut |done, total| {
        loaded = done;
        if !args.is_random() {
            progress.load(done, total);
        }
    })?;
    progress.clear();
    output::say(format!(
        "end-of-text tokens do not end a run; depths by {}; weights {}",
        depth_by(args),
        if args.is_random() { "random" } else { "of the checkpoint" },
    ));
    let meter = Meter::new(&device)?;
    let common = common(args, &checkpoint, meter.bandwidth()?, (dtype, loaded))?;
    let bench = Bench { args, model, device, common, dtype, meter };
    note_context(args, bench.model.max_position_embeddings());
    let mut writer = Writer::new(io::stdout().lock(), args.output);
    let (prompts, gens) = (measured(&args.n_prompt), measured(&args.n_gen));
    let total = args.n_depth.len() * (prompts.len() + gens.len());
    let mut done = 0..total;
    for &depth in &args.n_depth {
        for &tokens in &prompts {
            progress.tests(done.next().unwrap_or(total), total);
            // A prompt is attended densely under every method.
            let record = bench.prompt(depth, tokens)?;
            progress.clear();
            writer.write(&record)?;
        }
        for &tokens in &gens {
            progress.tests(done.next().unwrap_or(total), total);
            let records = bench.generations(depth, tokens)?;
            progress.clear();
            records.iter().try_for_each(|record| writer.write(record))?;
        }
    }
    writer.finish()
}

/// The lengths that are measured.
fn measured(lengths: &[usize]) -> Vec<usize> {
    lengths.iter().copied().filter(|&tokens| tokens > 0).collect()
}

/// Says which depths and lengths are beyond what the model was made for.
fn note_context(args: &BenchModelArgs, context: usize) {
    for &depth in args.n_depth.iter().filter(|&&depth| depth > context) {
        output::say(format!("note: depth {depth} is beyond the model's {context}"));
    }
    let depth = args.n_depth.iter().copied().filter(|&depth| depth <= context).max().unwrap_or(0);
    for (name, lengths) in [("prompt", &args.n_prompt), ("generation", &args.n_gen)] {
        let is_beyond = |&&tokens: &&usize| tokens > 0 && depth.saturating_add(tokens) > context;
        for &tokens in lengths.iter().filter(is_beyond) {
            let place = if depth > 0 { format!(" at depth {depth}") } else { String::new() };
            output::say(format!("note: a {name} of {tokens} tokens{place} is beyond the model's {context}"));
        }
    }
}

/// An error where the model, and the caches of all methods at the longest depth, do not fit into memory.
fn check_room(
    args: &BenchModelArgs,
    checkpoint: &Checkpoint,
    device: &Device,
    dtype: DType,
) -> anyhow::Result<()> {
    let longest = |lengths: &[usize]| lengths.iter().copied().max().unwrap_or(0);
    let depth = longest(&args.n_depth);
    let kt_format = methods(args)?.iter().find_map(room::kt_format_of);
    let Some(need) = Need::of(checkpoint, dtype, kt_format) else { return Ok(()) };
    let generated = methods(args)?.len() * (depth + longest(&args.n_gen));
    need.check(room::free(device), generated.max(depth + longest(&args.n_prompt)))
}

/// The methods, dense attention first, and the profile.
fn methods(args: &BenchModelArgs) -> anyhow::Result<Vec<AttentionPlan>> {
    let mut methods = args.attention.clone();
    methods.sort_by_key(|method| method.kind != MethodKind::Dense);
    let mut methods: Vec<AttentionPlan> = methods.into_iter().map(AttentionPlan::from).collect();
    if let Some(path) = &args.profile {
        methods.push(AttentionPlan::Profile(Profile::read(path)?));
    }
    Ok(methods)
}

fn depth_by(args: &BenchModelArgs) -> &'static str {
    match args.random_cache {
        true => "random",
        false => "prefill",
    }
}

impl BenchModelArgs {
    fn is_random(&self) -> bool {
        self.shape.is_some() || self.random_weights
    }
}

/// The checkpoint, or one that is made up, and where it goes.
fn open(args: &BenchModelArgs, progress: &mut Progress) -> anyhow::Result<(Checkpoint, Device, DType)> {
    if !args.is_random() {
        if args.layers.is_some() {
            bail!("--layers needs --shape or --random-weights");
        }
        return args.model.resolve(progress);
    }
    let mut config = match (&args.shape, &args.model.model) {
        (Some(name), _) => {
            let names: Vec<&str> = presets().into_iter().map(|(name, _)| name).collect();
            preset(name)
                .with_context(|| format!("there is no shape `{name}` (there are: {})", names.join(", ")))?
        }
        (None, folder) => {
            let path = folder.clone().unwrap_or_default().join("config.json");
            let cannot = || format!("cannot read `{}`", path.display());
            serde_json::from_slice(&std::fs::read(&path).with_context(cannot)?).with_context(cannot)?
        }
    };
    if let Some(layers) = args.layers {
        config["num_hidden_layers"] = layers.into();
    }
    let device = device::parse(&args.model.device)?;
    let checkpoint = Checkpoint::with_random_weights(&args.name(), config);
    let checkpoint = checkpoint.with_weight_format(args.model.weights.format());
    let dtype = args.model.dtype.resolve(&checkpoint, &device)?;
    Ok((checkpoint, device, dtype))
}

impl Bench<'_> {
    fn prompt(&self, depth: usize, tokens: usize) -> anyhow::Result<ModelRecord> {
        let mut states = [self.state(depth, depth + tokens, &MethodKind::Dense.into())?];
        let ids = self.ids(tokens);
        let [run]: [Run; 1] = self
            .repeat(&mut states, |state, _| {
                let mut logits = vec![];
                let chunks = ids.len().div_ceil(BATCH);
                for (i, chunk) in ids.chunks(BATCH).enumerate() {
                    // Only the last token of all needs the output layer.
                    let want = if i + 1 == chunks { Want::Last } else { Want::Nothing };
                    let step = forward::step(self.model.as_ref(), &[Row::prompt(chunk)], state, want)?;
                    logits = forward::read(step)?;
                }
                std::hint::black_box(logits);
                Ok(())
            })?
            .try_into()
            .map_err(|_| anyhow::anyhow!("one state makes one run"))?;
        let record = ModelRecord { n_prompt: tokens, n_depth: depth, ..self.record(tokens, &run) };
        Ok(ModelRecord { attention: "dense".to_owned(), ..record })
    }

    /// One record for each method, dense attention first.
    fn generations(&self, depth: usize, tokens: usize) -> anyhow::Result<Vec<ModelRecord>> {
        let methods = methods(self.args)?;
        let state = |method: &AttentionPlan| self.state(depth, depth + tokens, method);
        let mut states = methods.iter().map(state).collect::<anyhow::Result<Vec<_>>>()?;
        let ids = self.ids(tokens);
        let runs = self.repeat(&mut states, |state, is_warmup| {
            for &id in ids.iter().take(if is_warmup { 1 } else { tokens }) {
                forward::read(forward::step(self.model.as_ref(), &[Row::decode(&[id])], state, Want::Last)?)?;
            }
            Ok(())
        })?;
        let dense = methods.iter().zip(&runs).find(|(method, _)| method.is_dense()).map(|(_, run)| run);
        let record = |(attention, run): (&AttentionPlan, &Run)| {
            let method = self.widest_layer(attention, depth + tokens)?;
            let record = ModelRecord { n_gen: tokens, n_depth: depth, ..self.record(tokens, run) };
            let record = decoded(record, &method, run, dense);
            Ok(match attention {
                AttentionPlan::Profile(_) => ModelRecord {
                    attention: "profile".to_owned(),
                    settings: MethodSettings::default(),
                    ..record
                },
                _ => record,
            })
        };
        methods.iter().zip(&runs).map(record).collect()
    }

    /// A state with `depth` tokens and room for `max_len`.
    fn state(&self, depth: usize, max_len: usize, attention: &AttentionPlan) -> anyhow::Result<ModelState> {
        let config = StateConfig { batch: 1, max_len, dtype: self.dtype };
        let methods = attention.methods(&self.model.attention_layers(), max_len)?;
        let mut state = ModelState::new(self.model.as_ref(), &config, &methods)?;
        state.reserve(max_len)?;
        state.expect(max_len);
        match self.args.random_cache {
            true => state.layers_mut().iter_mut().try_for_each(|layer| fill(layer, depth, &self.device))?,
            false => {
                for chunk in self.ids(depth).chunks(BATCH) {
                    forward::step(self.model.as_ref(), &[Row::prompt(chunk)], &mut state, Want::Nothing)?;
                }
            }
        }
        sync(&self.device)?;
        Ok(state)
    }

    /// Runs a test as often as was asked for with each state in turn, each time from the same point.
    fn repeat(
        &self,
        states: &mut [ModelState],
        mut test: impl FnMut(&mut ModelState, bool) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Run>> {
        let marks: Option<Vec<StateMark>> = states.iter().map(ModelState::mark).collect();
        let marks = marks.context("a method cannot go back")?;
        if !self.args.no_warmup {
            for (state, mark) in states.iter_mut().zip(&marks) {
                test(state, true)?;
                state.go_back(mark)?;
            }
        }
        let before: Vec<Traffic> = states.iter().map(ModelState::traffic).collect();
        let mut samples_ns = vec![vec![]; states.len()];
        let mut reads = vec![];
        for _ in 0..self.args.repetitions {
            reads.push(self.meter.read()?);
            for ((state, mark), samples_ns) in states.iter_mut().zip(&marks).zip(&mut samples_ns) {
                sync(&self.device)?;
                let start = Instant::now();
                test(state, false)?;
                sync(&self.device)?;
                samples_ns.push(start.elapsed().as_nanos() as f64);
                state.go_back(mark)?;
            }
        }
        let run = |((state, before), samples_ns): ((&ModelState, &Traffic), Vec<f64>)| Run {
            samples_ns,
            reads: reads.clone(),
            kv_bytes: bytes_per_token(state, before),
        };
        Ok(states.iter().zip(&before).zip(samples_ns).map(run).collect())
    }

    fn record(&self, tokens: usize, run: &Run) -> ModelRecord {
        let samples_ts: Vec<f64> = run.samples_ns.iter().map(|ns| tokens as f64 * 1e9 / ns).collect();
        let (avg_ns, stddev_ns) = mean_and_deviation(&run.samples_ns);
        let (avg_ts, stddev_ts) = mean_and_deviation(&samples_ts);
        ModelRecord {
            test_time: jiff::Timestamp::now().to_string(),
            avg_ns,
            stddev_ns,
            avg_ts,
            stddev_ts,
            samples_ns: run.samples_ns.clone(),
            samples_ts,
            bandwidth: Bandwidth { read_gb_per_s: median(&run.reads), ..self.common.bandwidth },
            ..self.common.clone()
        }
    }

    /// Tokens all over the vocabulary; which ones plays no part.
    fn ids(&self, count: usize) -> Vec<u32> {
        let vocab = self.model.vocab_size() as u64;
        (0..count as u64).map(|i| (i.wrapping_mul(2_654_435_761) % vocab) as u32).collect()
    }

    /// The method of the layer that sees the most, for the sizes in the report.
    fn widest_layer(&self, attention: &AttentionPlan, max_len: usize) -> anyhow::Result<Method> {
        let layers = self.model.attention_layers();
        let methods = attention.methods(&layers, max_len)?;
        let widest = widest(&layers).and_then(|widest| methods.get(widest));
        widest.cloned().context("the model has no layers")
    }
}

/// Bytes of the cache that a token decoded since `before` moved, and that dense attention would have.
fn bytes_per_token(state: &ModelState, before: &Traffic) -> Option<(f64, f64)> {
    let after = state.traffic();
    let steps = (after.steps - before.steps) / state.layers().len().max(1) as u64;
    let per_token = |after: u64, before: u64| (after - before) as f64 / steps as f64;
    (steps > 0).then(|| {
        (
            per_token(after.moved.total().bytes, before.moved.total().bytes),
            per_token(after.dense.total().bytes, before.dense.total().bytes),
        )
    })
}
