//! The figures after a generation.

use std::{fmt::Write, time::Duration};

use burn::tensor::DType;
use sparq_models::{
    attention::{Attention, MethodSpec},
    core::{Choice, GroupScores, Method, SparqConfig, Traffic},
    crossover::Crossover,
    generate::{Finish, Stats},
};

use crate::{args::TokenLimit, crossover::Known};

/// Different methods of a profile that are shown.
const GROUPS: usize = 6;
/// Characters of a stop text that are shown.
const SHOWN: usize = 40;

/// A few lines for standard error, the last without its line break: what ran, how fast, and what it moved.
pub(crate) fn summary(
    stats: &Stats,
    load: Duration,
    device: &str,
    dtype: DType,
    known: &Known,
    limit: &TokenLimit,
    attention: &Attention,
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\nload       {:.2} s to {device} in {}", load.as_secs_f64(), dtype.name());
    let _ = writeln!(
        text,
        "prefill    {} tokens in {:.2} s, {:.0} tokens/s; first token after {:.2} s{}",
        stats.prefill_tokens(),
        stats.prefill.as_secs_f64(),
        stats.prefill_tokens_per_second(),
        stats.first_token.as_secs_f64(),
        match stats.cached_tokens {
            0 => String::new(),
            cached => format!("; {cached} tokens were cached"),
        },
    );
    let finish = finish(&stats.finish, limit);
    let _ = match stats.decode_tokens_per_second() {
        Some(speed) => {
            let (steps, seconds) = (stats.decode_steps, stats.decode.as_secs_f64());
            writeln!(text, "decode     {steps} tokens in {seconds:.2} s, {speed:.1} tokens/s; {finish}")
        }
        None => writeln!(text, "decode     0 tokens; {finish}"),
    };
    let _ = writeln!(text, "sampling   {}", stats.sampler.in_words());
    let _ = writeln!(text, "attention  {}", attention_line(attention, stats, known));
    if let Some((moved, dense)) = stats.kv_bytes_per_token() {
        let _ = writeln!(
            text,
            "KV cache   {} per token moved, {} had it been dense ({:.1} %); {} held",
            bytes(moved),
            bytes(dense),
            100.0 * moved / dense,
            bytes(stats.cache_bytes as f64),
        );
        let Traffic { moved, dense, .. } = stats.traffic;
        if stats.methods.iter().any(|method| *method != Method::Dense)
            && (moved.k, moved.v) == (dense.k, dense.v)
        {
            let _ = writeln!(text, "           all steps ran dense: {}", why_dense(stats, known));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Why a method that may leave positions out left none out.
fn why_dense(stats: &Stats, known: &Known) -> String {
    let context = stats.prompt_tokens + stats.decode_steps;
    let (dense_below, top_k) = match &stats.method {
        Method::Sparq(config) => (config.dense_below, Some(config.top_k)),
        Method::SparqMass(config) => (config.sparq.dense_below, Some(config.sparq.top_k)),
        other => (0, MethodSpec::from(other).top_k),
    };
    match (known, top_k) {
        (_, Some(top_k)) if context <= top_k => {
            format!("the method's top-k of {top_k} covers the whole context of {context} tokens")
        }
        (Known::Found(Crossover { tokens, measured_tokens, estimated: true }), _) if context < *tokens => {
            format!(
                "the context of {context} tokens is shorter than the {tokens} from which on sparq is expected \
                 to be faster here (measured up to {measured_tokens})"
            )
        }
        (Known::Found(Crossover { tokens, .. }), _) if context < *tokens => format!(
            "the context of {context} tokens is shorter than the {tokens} from which on sparq is faster here"
        ),
        _ if context < dense_below => {
            format!("the context of {context} tokens is shorter than the {dense_below} of dense-below")
        }
        _ => format!("it read every position that the layers see of the context of {context} tokens"),
    }
}

/// Attention as it was asked for.
pub(crate) fn attention_in_words(attention: &Attention) -> String {
    match attention {
        Attention::Dense => "dense".to_owned(),
        Attention::Sparq(_) => "sparq".to_owned(),
        Attention::Method(spec) => spec.to_string(),
        Attention::DenseFirst { layers, rest } => {
            format!("{}, {}", attention_in_words(rest), first_dense(*layers))
        }
        Attention::Profile(profile) => match &profile.file {
            Some(file) => format!("profile {}", file.display()),
            None => "profile".to_owned(),
        },
    }
}

fn first_dense(layers: usize) -> String {
    match layers {
        1 => "the first layer dense".to_owned(),
        layers => format!("the first {layers} layers dense"),
    }
}

/// The methods that ran, each with the number of its layers where there are several.
fn attention_line(attention: &Attention, stats: &Stats, known: &Known) -> String {
    if let Attention::Profile(_) = attention {
        return format!("{}: {}", attention_in_words(attention), grouped(&stats.methods));
    }
    let first = match attention {
        Attention::DenseFirst { layers, .. } => (*layers).min(stats.methods.len()),
        _ => 0,
    };
    let rest = &stats.methods[first..];
    // The layers that see the most may be among the dense ones.
    let Some(shown) = rest.iter().find(|method| **method == stats.method).or(rest.first()) else {
        return method(&Method::Dense, known);
    };
    let others: Vec<Method> = rest.iter().filter(|method| *method != shown).cloned().collect();
    let mut line = method(shown, known);
    if !others.is_empty() {
        let count = counted(rest.len() - others.len(), "layer");
        line += &format!(" ({count}); {}", grouped(&others));
    }
    if first > 0 {
        line += &format!(", {}", first_dense(first));
    }
    line
}

/// Different methods, each once: `dense (2 layers), h2o:k=8:l=2 (6 layers)`.
fn grouped(methods: &[Method]) -> String {
    let mut groups: Vec<(String, usize)> = vec![];
    for method in methods {
        let notation = MethodSpec::from(method).to_string();
        match groups.iter_mut().find(|(known, _)| *known == notation) {
            Some((_, count)) => *count += 1,
            None => groups.push((notation, 1)),
        }
    }
    let shown = groups.iter().take(GROUPS);
    let shown = shown.map(|(notation, count)| format!("{notation} ({})", counted(*count, "layer")));
    let more: usize = groups.iter().skip(GROUPS).map(|(_, count)| count).sum();
    let more = (more > 0).then(|| format!("others ({})", counted(more, "layer")));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

/// `1 layer`, `2 layers`.
pub(crate) fn counted(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

fn method(method: &Method, known: &Known) -> String {
    match method {
        Method::Sparq(SparqConfig {
            rank,
            top_k,
            local_window,
            mean_value,
            group_scores,
            dense_below,
            index,
            choice,
            ..
        }) => format!(
            "sparq, rank r = {rank}, top-k = {top_k}, local window = {local_window}, mean value {}{}{}{}{}",
            if *mean_value { "on" } else { "off" },
            match group_scores {
                GroupScores::ScaledLogits => "",
                GroupScores::Softmax => ", group scores softmax",
            },
            index.bits().map_or(String::new(), |bits| format!(", index int{bits}")),
            match choice {
                Choice::Exact => "",
                Choice::Buckets => ", chosen from buckets",
            },
            match known {
                Known::Found(Crossover { estimated: true, .. }) => {
                    format!(", dense below {dense_below} tokens (estimated)")
                }
                Known::NotMeasured(why) => {
                    format!(", dense below {dense_below} tokens (not measured: {why})")
                }
                Known::Stated | Known::Found(_) => format!(", dense below {dense_below} tokens"),
            }
        ),
        other => MethodSpec::from(other).to_string(),
    }
}

fn finish(finish: &Finish, limit: &TokenLimit) -> String {
    match finish {
        Finish::Eos(id) => format!("the model ended the text with token {id}"),
        Finish::Stop(stop) => {
            let shown: String = stop.chars().take(SHOWN).collect();
            let rest = if stop.chars().nth(SHOWN).is_some() { "…" } else { "" };
            format!("ended at the stop text {shown:?}{rest}")
        }
        Finish::MaxNewTokens => format!("ended at {}", limit.named),
        Finish::MaxSeqLen => "ended at the longest context".to_owned(),
        Finish::MaxTime => "ended at max_time of generation_config.json".to_owned(),
        Finish::Cancelled => "ended early".to_owned(),
    }
}

/// A number of bytes with a decimal unit.
pub(crate) fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_readable_units() {
        assert_eq!(bytes(999.0), "999.0 B");
        assert_eq!(bytes(1500.0), "1.5 kB");
        assert_eq!(bytes(2.5e9), "2.5 GB");
    }
}
