//! What a test of a whole model says: llama-bench's keys and ours, and its row in a table.

use burn::tensor::DType;
use serde::Serialize;
use sparq_core::device;
use sparq_models::{checkpoint::Checkpoint, core::Method, weight::WeightFormat};

use super::{BATCH, Run, depth_by};
use crate::{
    args::BenchModelArgs,
    bench::{
        bandwidth::{Bandwidth, Reached},
        machine::Machine,
        median_ratio,
        method::MethodSettings,
        record::Record,
    },
};

/// One test with one method. Keys are llama-bench's, and ours behind them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ModelRecord {
    #[serde(flatten)]
    pub(super) machine: Machine,
    pub(super) model_filename: String,
    pub(super) model_type: String,
    pub(super) model_size: u64,
    pub(super) model_n_params: u64,
    pub(super) n_batch: usize,
    pub(super) n_ubatch: usize,
    pub(super) type_k: String,
    pub(super) type_v: String,
    pub(super) n_prompt: usize,
    pub(super) n_gen: usize,
    pub(super) n_depth: usize,
    pub(super) test_time: String,
    pub(super) avg_ns: f64,
    pub(super) stddev_ns: f64,
    pub(super) avg_ts: f64,
    pub(super) stddev_ts: f64,
    pub(super) samples_ns: Vec<f64>,
    pub(super) samples_ts: Vec<f64>,
    pub(super) attention: String,
    #[serde(flatten)]
    pub(super) settings: MethodSettings,
    pub(super) dtype: String,
    /// Format of the weights of linear layers.
    pub(super) weights: String,
    /// Bytes of the cache that a generated token reads and writes, over all layers.
    pub(super) kv_bytes_per_token: Option<f64>,
    pub(super) dense_kv_bytes_per_token: Option<f64>,
    /// Bytes of the weights that a generated token reads.
    pub(super) weight_bytes_per_token: u64,
    /// Both, over the time of a token.
    pub(super) gb_per_s: Option<f64>,
    #[serde(flatten)]
    pub(super) bandwidth: Bandwidth,
    /// Of the bandwidth of reading.
    pub(super) bandwidth_fraction: Option<f64>,
    /// Tokens per second over those of dense attention.
    pub(super) speedup_over_dense: Option<f64>,
    /// What the bytes alone would give.
    pub(super) speedup_by_bytes: Option<f64>,
    /// How the depth was reached: `prefill` or `random`.
    pub(super) depth_by: &'static str,
    pub(super) random_weights: bool,
    pub(super) ignore_eos: bool,
}

/// The fields that all records share; `loaded` are the bytes of the weights as they are stored.
pub(super) fn common(
    args: &BenchModelArgs,
    checkpoint: &Checkpoint,
    bandwidth: Bandwidth,
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
    // Embeddings keep the dtype; everything else but norms, which are small, may be in eight bits.
    let embeddings = size("vocab_size") * size("hidden_size");
    let of_linears = match checkpoint.weight_format() {
        WeightFormat::Dtype => dtype.size() as u64,
        WeightFormat::Int8 => 1,
    };
    let linears = parameters.saturating_sub(embeddings) * of_linears;
    let table = embeddings * dtype.size() as u64;
    let architecture = checkpoint.architecture()?.trim_end_matches("ForCausalLM");
    Ok(ModelRecord {
        machine: Machine::new(&args.model.device, &device::parse(&args.model.device)?),
        model_filename: args.name(),
        model_type: format!(
            "{architecture} {:.1}B, {}",
            parameters as f64 / 1e9,
            crate::output::counted(size("num_hidden_layers") as usize, "layer")
        ),
        model_size: linears + table,
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
        settings: MethodSettings::default(),
        dtype: dtype.name().to_owned(),
        weights: match checkpoint.weight_format() {
            WeightFormat::Dtype => dtype.name().to_owned(),
            WeightFormat::Int8 => "int8".to_owned(),
        },
        kv_bytes_per_token: None,
        dense_kv_bytes_per_token: None,
        weight_bytes_per_token: linears + if tied { table } else { 0 },
        gb_per_s: None,
        bandwidth,
        bandwidth_fraction: None,
        speedup_over_dense: None,
        speedup_by_bytes: None,
        depth_by: depth_by(args),
        random_weights: args.is_random(),
        ignore_eos: true,
    })
}

/// Adds what follows from the bytes of decode steps, and from the run of dense attention beside it.
pub(super) fn decoded(record: ModelRecord, method: &Method, run: &Run, dense: Option<&Run>) -> ModelRecord {
    let weights = record.weight_bytes_per_token as f64;
    let token_ns: Vec<f64> = record.samples_ts.iter().map(|ts| 1e9 / ts).collect();
    let reached = run.kv_bytes.map(|(moved, _)| Reached::new(weights + moved, &token_ns, &run.reads));
    ModelRecord {
        attention: method.name().to_owned(),
        settings: MethodSettings::of(method),
        kv_bytes_per_token: run.kv_bytes.map(|(moved, _)| moved),
        dense_kv_bytes_per_token: run.kv_bytes.map(|(_, dense)| dense),
        gb_per_s: reached.map(|reached| reached.gb_per_s),
        bandwidth_fraction: reached.map(|reached| reached.fraction),
        speedup_over_dense: dense.map(|dense| median_ratio(&dense.samples_ns, &run.samples_ns)),
        speedup_by_bytes: run.kv_bytes.map(|(moved, dense)| (weights + dense) / (weights + moved)),
        ..record
    }
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
        let attention = self.settings.described(&self.attention);
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        vec![
            self.model_type.clone(),
            crate::output::bytes(self.model_size as f64),
            format!("{:.2} B", self.model_n_params as f64 / 1e9),
            self.machine.backends.clone(),
            self.machine.n_threads.to_string(),
            match self.weights == self.dtype {
                true => self.dtype.clone(),
                false => format!("{}, {} weights", self.dtype, self.weights),
            },
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
