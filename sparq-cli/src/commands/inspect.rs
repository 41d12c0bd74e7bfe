//! `sparq inspect`.

use std::process::ExitCode;

use anyhow::bail;
use burn::tensor::DType;
use serde::Serialize;
use sparq_models::inspect::{Formats, GenerationSummary, Inspection, Memory, TokenizerSummary};

use crate::{
    args::{DtypeArg, InspectArgs, open},
    output::{self, Progress},
};

/// What is printed: with `--json`, under these names.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The folder, or `embedded model`.
    pub(crate) model: String,
    #[serde(flatten)]
    pub(crate) inspection: Inspection,
    pub(crate) generation: GenerationSummary,
    /// What its tokenizer is, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokenizer: Option<TokenizerSummary>,
    /// One entry per number format; none for a checkpoint that cannot be loaded.
    pub(crate) memory: Vec<Memory>,
}

/// Runs the subcommand: reads headers only, so that it is quick for any size.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let checkpoint = open(args.model.as_deref(), args.offline, &mut Progress::new(false))?;
    let inspection = Inspection::new(&checkpoint)?;
    let tokenizer = checkpoint.tokenizer();
    let generation = GenerationSummary::new(&checkpoint, tokenizer.as_ref().ok());
    let own_context = inspection.sizes.context_tokens.map(|tokens| tokens as u64);
    let context = args.max_seq_len.or(own_context).unwrap_or_default();
    let formats = |&dtype: &DType| Formats { dtype, weights: args.weights.format(), k_t: args.kt.form() };
    let dtypes = dtypes(args.dtype).iter().filter(|_| inspection.is_loadable());
    let memory: Vec<Memory> = dtypes.map(|dtype| inspection.memory(formats(dtype), context)).collect();
    let caches = || memory.iter().flat_map(|memory| [&memory.dense, &memory.sparq]).flatten();
    if let Some(tokens) = args.max_seq_len.filter(|_| caches().any(|cache| cache.total_bytes == u64::MAX)) {
        bail!("--max-seq-len is {tokens}: the bytes of such a cache are beyond what can be counted");
    }
    let model = match &args.model {
        Some(folder) => folder.display().to_string(),
        None => "embedded model".to_owned(),
    };
    let tokenizer = TokenizerSummary::new(tokenizer);
    let report = Report { model, inspection, generation, tokenizer, memory };

    report.generation.notes.iter().for_each(|note| output::say(format!("note: {note}")));
    output::print(&match args.json {
        true => output::json(&serde_json::to_string_pretty(&report)?) + "\n",
        false => output::inspection(&report),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The dtypes to state memory for.
fn dtypes(dtype: DtypeArg) -> &'static [DType] {
    match dtype {
        DtypeArg::Auto => &[DType::F32, DType::F16, DType::BF16],
        DtypeArg::F32 => &[DType::F32],
        DtypeArg::F16 => &[DType::F16],
        DtypeArg::Bf16 => &[DType::BF16],
    }
}
