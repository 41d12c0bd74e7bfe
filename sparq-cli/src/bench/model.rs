//! Whole models: prompts and generations at depths, as llama-bench measures them.

use std::{io, time::Instant};

use anyhow::{Context, bail};
use burn::tensor::{DType, Device};
use serde::Serialize;
use sparq_core::device;
use sparq_models::{
    attention::Attention,
    checkpoint::Checkpoint,
    core::{AttentionLayer, IndexDtype, Method},
    forward,
    generate::load_model,
    models::CausalModel,
    shapes::{shape, shapes},
    state::{ModelState, StateConfig},
};

use super::{
    bandwidth::Bandwidth,
    layer::fill,
    machine::Machine,
    mean_and_deviation,
    record::{Record, Writer},
    sync,
};
use crate::{
    args::{BenchMethod, BenchModelArgs},
    output::Progress,
};

/// Prompt tokens that go through the model at once, as in `sparq generate`.
const BATCH: usize = 512;

/// One test with one method. Keys are llama-bench's, and ours behind them.
#[derive(Debug, Clone, Serialize)]
struct ModelRecord {
    #[serde(flatten)]
    machine: Machine,
    model_filename: String,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    type_k: String,
    type_v: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    test_time: String,
    avg_ns: f64,
    stddev_ns: f64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<f64>,
    samples_ts: Vec<f64>,
    attention: String,
    sparq_r: Option<usize>,
    sparq_k: Option<usize>,
    /// How SparQ's transposed keys are stored.
    sparq_index: Option<IndexDtype>,
    dtype: String,
    /// Bytes of the cache that a generated token reads and writes, over all layers.
    kv_bytes_per_token: Option<f64>,
    dense_kv_bytes_per_token: Option<f64>,
    /// Bytes of the weights that a generated token reads.
    weight_bytes_per_token: u64,
    /// Both, over the time of a token.
    gb_per_s: Option<f64>,
    #[serde(flatten)]
    bandwidth: Bandwidth,
    /// Of the bandwidth of reading.
    bandwidth_fraction: Option<f64>,
    /// Tokens per second over those of dense attention.
    speedup_over_dense: Option<f64>,
    /// What the bytes alone would give.
    speedup_by_bytes: Option<f64>,
    /// How the depth was reached: `prefill` or `random`.
    depth_by: &'static str,
    random_weights: bool,
    ignore_eos: bool,
}

/// What is the same for all tests.
struct Bench<'a> {
    args: &'a BenchModelArgs,
    model: Box<dyn CausalModel>,
    device: Device,
    /// The fields that all records share.
    common: ModelRecord,
    dtype: DType,
}

/// Times of the repetitions of a test, and what one decoded token moved.
struct Run {
    samples_ns: Vec<f64>,
    kv_bytes: Option<(f64, f64)>,
}

/// `sparq bench`.
pub(crate) fn bench_model(args: &BenchModelArgs) -> anyhow::Result<()> {
    let mut progress = Progress::new(args.is_random());
    let (checkpoint, device, dtype) = open(args, &mut progress)?;
    let mut loaded = 0;
    let model = load_model(&checkpoint, &device, dtype, &mut |done, total| {
        loaded = done;
        progress.load(done, total);
    })?;
    progress.clear();
    eprintln!(
        "end-of-text tokens do not end a run; depths by {}; weights {}",
        depth_by(args),
        if args.is_random() { "random" } else { "of the checkpoint" },
    );
    let common = common(args, &checkpoint, &device, (dtype, loaded))?;
    let bench = Bench { args, model, device, common, dtype };
    let mut writer = Writer::new(io::stdout().lock(), args.output);
    for &depth in &args.n_depth {
        for &tokens in args.n_prompt.iter().filter(|&&tokens| tokens > 0) {
            // A prompt is attended densely under every method.
            writer.write(&bench.prompt(depth, tokens)?)?;
        }
        for &tokens in args.n_gen.iter().filter(|&&tokens| tokens > 0) {
            let mut dense = None;
            for method in methods(args) {
                let record = bench.generation(depth, tokens, &method.attention, &mut dense)?;
                writer.write(&record)?;
            }
        }
    }
    writer.finish()
}

/// The methods, dense attention first.
fn methods(args: &BenchModelArgs) -> Vec<BenchMethod> {
    let mut methods = args.attention.clone();
    methods.sort_by_key(|method| !method.is_dense());
    methods
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
            let names: Vec<&str> = shapes().into_iter().map(|(name, _)| name).collect();
            shape(name)
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
    let dtype = args.model.dtype.resolve(&checkpoint, &device)?;
    Ok((checkpoint, device, dtype))
}

/// The fields that all records share; `loaded` are the bytes of the weights as they are stored.
fn common(
    args: &BenchModelArgs,
    checkpoint: &Checkpoint,
    device: &Device,
    (dtype, loaded): (DType, u64),
) -> anyhow::Result<ModelRecord> {
    let stored = match args.is_random() {
        true => dtype,
        false => checkpoint.stored_dtype(),
    };
    let parameters = loaded / stored.size() as u64;
    let config = checkpoint.config_json();
    let size = |name: &str| config[name].as_u64().unwrap_or(0);
    // A decoded token reads one row of the embeddings, and all of them where they are the output layer.
    let tied = match args.is_random() {
        true => config["tie_word_embeddings"].as_bool().unwrap_or(false),
        false => {
            !["lm_head.weight", "embed_out.weight"].iter().any(|name| checkpoint.tensor_info(name).is_some())
        }
    };
    let unread = if tied { 0 } else { size("vocab_size") * size("hidden_size") };
    let architecture = checkpoint.architecture()?.trim_end_matches("ForCausalLM");
    Ok(ModelRecord {
        machine: Machine::new(&args.model.device, device),
        model_filename: args.name(),
        model_type: format!(
            "{architecture} {:.1}B, {} layers",
            parameters as f64 / 1e9,
            size("num_hidden_layers")
        ),
        model_size: parameters * dtype.size() as u64,
        model_n_params: parameters,
        n_batch: BATCH,
        n_ubatch: BATCH,
        type_k: dtype.name().to_owned(),
        type_v: dtype.name().to_owned(),
        n_prompt: 0,
        n_gen: 0,
        n_depth: 0,
        test_time: String::new(),
        avg_ns: 0.0,
        stddev_ns: 0.0,
        avg_ts: 0.0,
        stddev_ts: 0.0,
        samples_ns: vec![],
        samples_ts: vec![],
        attention: String::new(),
        sparq_r: None,
        sparq_k: None,
        sparq_index: None,
        dtype: dtype.name().to_owned(),
        kv_bytes_per_token: None,
        dense_kv_bytes_per_token: None,
        weight_bytes_per_token: parameters.saturating_sub(unread) * dtype.size() as u64,
        gb_per_s: None,
        bandwidth: Bandwidth::measure(device)?,
        bandwidth_fraction: None,
        speedup_over_dense: None,
        speedup_by_bytes: None,
        depth_by: depth_by(args),
        random_weights: args.is_random(),
        ignore_eos: true,
    })
}

impl Bench<'_> {
    fn prompt(&self, depth: usize, tokens: usize) -> anyhow::Result<ModelRecord> {
        let mut state = self.state(depth, depth + tokens, &Attention::Dense)?;
        let ids = self.ids(tokens);
        let run = self.repeat(&mut state, depth, |state, _| {
            let mut logits = vec![];
            let chunks = ids.len().div_ceil(BATCH);
            for (i, chunk) in ids.chunks(BATCH).enumerate() {
                // Only the last token of all needs the output layer.
                match i + 1 == chunks {
                    true => {
                        logits = forward::read(forward::prefill_last(self.model.as_ref(), chunk, state)?)?;
                    }
                    false => forward::prefill(self.model.as_ref(), chunk, state)?,
                }
            }
            std::hint::black_box(logits);
            Ok(())
        })?;
        let record = ModelRecord { n_prompt: tokens, n_depth: depth, ..self.record(tokens, &run) };
        Ok(ModelRecord { attention: "dense".to_owned(), kv_bytes_per_token: None, ..record })
    }

    fn generation(
        &self,
        depth: usize,
        tokens: usize,
        attention: &Attention,
        dense: &mut Option<f64>,
    ) -> anyhow::Result<ModelRecord> {
        let method = attention.resolve(&self.widest_layer()?, depth + tokens)?;
        let mut state = self.state(depth, depth + tokens, attention)?;
        let ids = self.ids(tokens);
        let run = self.repeat(&mut state, depth, |state, is_warmup| {
            for &id in ids.iter().take(if is_warmup { 1 } else { tokens }) {
                forward::read(forward::decode(self.model.as_ref(), &[id], state)?)?;
            }
            Ok(())
        })?;
        let mut record = self.record(tokens, &run);
        if *attention == Attention::Dense {
            *dense = Some(record.avg_ts);
        }
        (record.sparq_r, record.sparq_k) = sparq_sizes(&method);
        record.sparq_index = sparq_index(&method);
        record.attention = method.name().to_owned();
        record.speedup_over_dense = dense.map(|dense| record.avg_ts / dense);
        if let Some((moved, dense)) = run.kv_bytes {
            let weights = record.weight_bytes_per_token as f64;
            let gb_per_s = (weights + moved) * record.avg_ts / 1e9;
            record.kv_bytes_per_token = Some(moved);
            record.dense_kv_bytes_per_token = Some(dense);
            record.gb_per_s = Some(gb_per_s);
            record.bandwidth_fraction = Some(gb_per_s / record.bandwidth.read_gb_per_s);
            record.speedup_by_bytes = Some((weights + dense) / (weights + moved));
        }
        Ok(ModelRecord { n_gen: tokens, n_depth: depth, ..record })
    }

    /// A state with `depth` tokens and room for `max_len`.
    fn state(&self, depth: usize, max_len: usize, attention: &Attention) -> anyhow::Result<ModelState> {
        let config = StateConfig { batch: 1, max_len, dtype: self.dtype };
        let resolve = |layer: &AttentionLayer| attention.resolve(layer, max_len);
        let mut state = ModelState::per_layer(self.model.as_ref(), &config, resolve)?;
        state.reserve(max_len)?;
        match self.args.random_cache {
            true => state.layers_mut().iter_mut().try_for_each(|layer| fill(layer, depth, &self.device))?,
            false => {
                for chunk in self.ids(depth).chunks(BATCH) {
                    forward::prefill(self.model.as_ref(), chunk, &mut state)?;
                }
            }
        }
        sync(&self.device)?;
        Ok(state)
    }

    /// Runs a test as often as was asked for, each time from the same depth.
    fn repeat(
        &self,
        state: &mut ModelState,
        depth: usize,
        mut test: impl FnMut(&mut ModelState, bool) -> anyhow::Result<()>,
    ) -> anyhow::Result<Run> {
        if !self.args.no_warmup {
            test(state, true)?;
            state.truncate(depth)?;
        }
        let before = state.traffic();
        let mut samples_ns = vec![];
        for _ in 0..self.args.repetitions {
            sync(&self.device)?;
            let start = Instant::now();
            test(state, false)?;
            sync(&self.device)?;
            samples_ns.push(start.elapsed().as_nanos() as f64);
            state.truncate(depth)?;
        }
        let after = state.traffic();
        let layers = state.layers().len().max(1) as u64;
        let steps = (after.steps - before.steps) / layers;
        let per_token = |after: u64, before: u64| (after - before) as f64 / steps as f64;
        let kv_bytes = (steps > 0).then(|| {
            (
                per_token(after.moved.total().bytes, before.moved.total().bytes),
                per_token(after.dense.total().bytes, before.dense.total().bytes),
            )
        });
        Ok(Run { samples_ns, kv_bytes })
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
            ..self.common.clone()
        }
    }

    /// Tokens all over the vocabulary; which ones plays no part.
    fn ids(&self, count: usize) -> Vec<u32> {
        let vocab = self.model.vocab_size() as u64;
        (0..count as u64).map(|i| (i.wrapping_mul(2_654_435_761) % vocab) as u32).collect()
    }

    /// The layer that sees the most, for the sizes in the report.
    fn widest_layer(&self) -> anyhow::Result<AttentionLayer> {
        let layers = self.model.attention_layers();
        let widest = layers.into_iter().max_by_key(|layer| layer.window.unwrap_or(usize::MAX));
        widest.context("the model has no layers")
    }
}

/// `r` and `k` of a method that is SparQ.
pub(super) fn sparq_sizes(method: &Method) -> (Option<usize>, Option<usize>) {
    match method {
        Method::Sparq(config) => (Some(config.rank), Some(config.top_k)),
        _ => (None, None),
    }
}

/// How the transposed keys of a method that is SparQ are stored.
pub(super) fn sparq_index(method: &Method) -> Option<IndexDtype> {
    match method {
        Method::Sparq(config) => Some(config.index),
        _ => None,
    }
}

/// A method in a table, with its sizes.
pub(super) fn described(
    name: &str,
    (rank, top_k, index): (Option<usize>, Option<usize>, Option<IndexDtype>),
) -> String {
    let sizes = rank.zip(top_k).map_or(String::new(), |(rank, top_k)| format!(" r={rank} k={top_k}"));
    let index = match index.and_then(IndexDtype::bits) {
        Some(bits) => format!(" int{bits}"),
        None => String::new(),
    };
    format!("{name}{sizes}{index}")
}

impl Record for ModelRecord {
    fn titles() -> &'static [&'static str] {
        &[
            "model",
            "size:",
            "params:",
            "backend",
            "threads:",
            "dtype",
            "attention",
            "test:",
            "t/s:",
            "KV/token:",
            "GB/s:",
            "of read:",
            "× dense:",
            "by bytes:",
        ]
    }

    fn cells(&self) -> Vec<String> {
        let test = match (self.n_prompt, self.n_gen) {
            (0, tokens) => format!("tg{tokens}"),
            (tokens, _) => format!("pp{tokens}"),
        };
        let depth = if self.n_depth == 0 { String::new() } else { format!(" @ d{}", self.n_depth) };
        let attention = described(&self.attention, (self.sparq_r, self.sparq_k, self.sparq_index));
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        vec![
            self.model_type.clone(),
            crate::output::bytes(self.model_size as f64),
            format!("{:.2} B", self.model_n_params as f64 / 1e9),
            self.machine.backends.clone(),
            self.machine.n_threads.to_string(),
            self.dtype.clone(),
            attention,
            test + &depth,
            format!("{:.2} ± {:.2}", self.avg_ts, self.stddev_ts),
            or_none(self.kv_bytes_per_token.map(crate::output::bytes)),
            or_none(self.gb_per_s.map(|x| format!("{x:.1}"))),
            or_none(self.bandwidth_fraction.map(|x| format!("{:.0} %", 100.0 * x))),
            or_none(self.speedup_over_dense.map(|x| format!("{x:.2}"))),
            or_none(self.speedup_by_bytes.map(|x| format!("{x:.2}"))),
        ]
    }
}
