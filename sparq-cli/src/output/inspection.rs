//! The tables of `sparq inspect`.

use std::fmt::Display;

use comfy_table::{CellAlignment, Table, presets};
use sparq_core::KtFormat;
use sparq_models::{
    checkpoint::EndToken,
    inspect::{
        CacheMemory, GenerationSummary, Inspection, Memory, RopeSummary, TemplateSummary, TokenizerSummary,
    },
    tokenizer::Bytes,
};

use super::{
    printable::{cell, printable},
    summary::bytes,
};
use crate::commands::inspect::Report;

/// What the model is, how it is stored, and the memory that it needs.
pub(crate) fn inspection(report: &Report) -> String {
    let mut parts = vec![facts(report), stored(&report.inspection)];
    if let Some(memory) = report.memory.first() {
        parts.push(format!(
            "Memory on the device for one sequence of up to {} tokens\n{}",
            memory.context_tokens,
            memory_table(&report.memory)
        ));
    } else {
        parts.push("Memory is stated for checkpoints that can be loaded".to_owned());
    }
    parts.join("\n\n") + "\n"
}

fn facts(report: &Report) -> String {
    let Inspection { architecture, supported, problem, sizes, rope, parameters, quantisation, .. } =
        &report.inspection;
    let mut table = table(&[]);
    let support = match (supported, quantisation) {
        (true, None) => "can be loaded",
        (true, Some(_)) => "not loaded in this form",
        (false, _) => "cannot be loaded by this version",
    };
    table.add_row(["model".to_owned(), cell(&report.model)]);
    table.add_row(["architecture".to_owned(), format!("{}, {support}", cell(architecture))]);
    if let Some(scheme) = quantisation {
        let words = format!("{scheme}: such weights are not loaded");
        table.add_row(["quantised".to_owned(), cell(&words)]);
    }
    if let Some(problem) = problem {
        table.add_row(["problem".to_owned(), printable(problem)]);
    }
    table.add_row(["parameters".to_owned(), count(*parameters) + &packed(&report.inspection)]);
    let rows = [
        ("layers", sizes.layers),
        ("hidden size", sizes.hidden_size),
        ("query heads", sizes.heads),
        ("key/value heads", sizes.kv_heads),
        ("head size", sizes.head_dim),
        ("vocabulary", sizes.vocab_size),
        ("context", sizes.context_tokens),
    ];
    for (name, value) in rows {
        table.add_row([name.to_owned(), stated(value)]);
    }
    if let Some(window) = sizes.sliding_window_tokens {
        table.add_row(["sliding window".to_owned(), window.to_string()]);
    }
    for rope in rope {
        table.add_row(["rotary embedding".to_owned(), describe(rope, sizes.head_dim)]);
    }
    if let Some(tokenizer) = &report.tokenizer {
        add_tokenizer(&mut table, tokenizer);
    }
    table.add_row(["sampling".to_owned(), sampling(&report.generation)]);
    for end in &report.generation.ends {
        table.add_row(["end of text".to_owned(), ending(end)]);
    }
    for (name, words) in templates(&report.inspection.chat_templates) {
        table.add_row([name, words]);
    }
    text(&table)
}

/// What is not counted: weights that are packed into whole numbers.
fn packed(inspection: &Inspection) -> String {
    let is_whole = |dtype: &str| matches!(dtype, "u8" | "i8" | "u16" | "i16" | "u32" | "i32");
    let whole =
        inspection.stored.iter().filter(|stored| is_whole(&stored.dtype) && !inspection.is_loadable());
    let names: Vec<&str> = whole.map(|stored| stored.dtype.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!(", without what is packed into {}", names.join(", ")),
    }
}

/// What a run without flags goes by: `temperature 0.8, top_p 0.95, by generation_config.json`.
fn sampling(generation: &GenerationSummary) -> String {
    let words = generation.settings.iter().map(|(name, value)| match (*name, value.as_f64()) {
        ("temperature", Some(0.0)) => "greedy".to_owned(),
        _ => format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    });
    let words = words.collect::<Vec<_>>().join(", ");
    generation.source.map_or_else(|| words.clone(), |source| format!("{words}, by {source}"))
}

fn ending(end: &EndToken) -> String {
    let piece = end.piece.as_ref().map_or_else(String::new, |piece| format!(" {piece:?}"));
    format!("{}{piece}, by {}", end.id, end.named_by.join(", "))
}

fn add_tokenizer(table: &mut Table, tokenizer: &TokenizerSummary) {
    let vocabulary = match tokenizer {
        TokenizerSummary::Read(vocabulary) => vocabulary,
        TokenizerSummary::Failed { error } => {
            table.add_row(["tokenizer".to_owned(), format!("cannot be read: {}", printable(error))]);
            return;
        }
    };
    let bytes = match vocabulary.bytes {
        Some(Bytes::Level) => ", byte level",
        Some(Bytes::Fallback) => ", byte fallback",
        None => "",
    };
    let (model, tokens, added) = (vocabulary.model, vocabulary.tokens, vocabulary.added_tokens);
    table
        .add_row(["tokenizer".to_owned(), format!("{model}{bytes}; {tokens} tokens, {added} of them added")]);
    let bos = vocabulary.bos.as_ref().map(|bos| format!("{:?} ({})", bos.token, bos.id));
    table.add_row(["texts begin with".to_owned(), bos.unwrap_or_else(|| "no token of their own".to_owned())]);
}

/// A row for each chat template; one that says that there is none.
fn templates(found: &[TemplateSummary]) -> Vec<(String, String)> {
    let label = |name: &str| match name {
        "default" => "chat template".to_owned(),
        name => format!("chat template {}", cell(name)),
    };
    let row = |template: &TemplateSummary| {
        let file = template.file.as_deref().map(cell);
        let words = match (&template.error, file) {
            (Some(error), _) => format!("cannot be used: {}", printable(error)),
            (None, file) => file.unwrap_or_default(),
        };
        (label(&template.name), words)
    };
    match found {
        [] => vec![("chat template".to_owned(), "none".to_owned())],
        found => found.iter().map(row).collect(),
    }
}

fn describe(rope: &RopeSummary, head_dim: Option<usize>) -> String {
    let mut words = vec![format!("base {}", stated(rope.theta))];
    words.push(match (rope.scaling.as_str(), rope.factor) {
        ("default", _) => "not scaled".to_owned(),
        (scaling, Some(factor)) => format!("{} scaling by {factor}", cell(scaling)),
        (scaling, None) => format!("{} scaling", cell(scaling)),
    });
    words.extend(rope.rotary_dim.filter(|dim| Some(*dim) != head_dim).map(|dim| format!("{dim} components")));
    words.extend(rope.original_context_tokens.map(|tokens| format!("from {tokens} tokens")));
    if rope.layers != "all" {
        words.push(format!("for {}", rope.layers));
    }
    words.join(", ")
}

fn stored(inspection: &Inspection) -> String {
    let mut table = table(&["stored as", "tensors", "numbers", "size"]);
    for format in &inspection.stored {
        table.add_row([
            format.dtype.clone(),
            format.tensors.to_string(),
            format.elements.to_string(),
            bytes(format.bytes as f64),
        ]);
    }
    text(&table)
}

fn memory_table(memory: &[Memory]) -> String {
    let mut table = table(&["dtype", "attention", "per token", "KV cache", "weights", "together"]);
    for memory in memory {
        for (attention, cache) in [("dense", &memory.dense), ("sparq", &memory.sparq)] {
            let part = |part: fn(&CacheMemory) -> u64| match cache {
                Some(cache) => bytes(part(cache) as f64),
                None => "not stated".to_owned(),
            };
            table.add_row([
                named(memory.dtype, memory.weights),
                named(attention, memory.k_t.filter(|_| attention == "sparq").map(form)),
                part(|cache| cache.kv_bytes_per_token),
                part(|cache| cache.cache_bytes),
                bytes(memory.weight_bytes as f64),
                part(|cache| cache.total_bytes),
            ]);
        }
    }
    text(&table)
}

/// A table without lines, columns two spaces apart; figures to the right under a header.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table without the blanks around its lines.
fn text(table: &Table) -> String {
    let lines = table.to_string();
    let lines = lines.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

/// A name, and a format beside it where it is not that of the rest.
fn named(name: &str, format: Option<&str>) -> String {
    format.map_or_else(|| name.to_owned(), |format| format!("{name}, {format}"))
}

fn form(format: KtFormat) -> &'static str {
    match format {
        KtFormat::Cache => "as the keys",
        KtFormat::Int8 => "int8",
        KtFormat::Int4 => "int4",
    }
}

fn stated(value: Option<impl Display>) -> String {
    value.map_or_else(|| "not stated".to_owned(), |value| value.to_string())
}

/// A number of parameters, rounded where it is long.
fn count(number: u64) -> String {
    match number {
        0..1_000_000 => number.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} million", number as f64 / 1e6),
        _ => format!("{:.2} billion", number as f64 / 1e9),
    }
}
