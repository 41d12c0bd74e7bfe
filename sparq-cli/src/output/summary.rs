//! The figures after a generation.

use std::{fmt::Write, time::Duration};

use burn::tensor::DType;
use sparq_models::{
    attention::{AttentionPlan, MethodSpec},
    core::{Method, MethodKind, Traffic},
    crossover::{Crossover, Verdict},
    generate::{Finish, Stats},
};

use crate::args::TokenLimit;

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
    limit: &TokenLimit,
    attention: &AttentionPlan,
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
    let _ = writeln!(text, "attention  {}", attention_line(attention, stats));
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
            let _ = writeln!(text, "           all steps ran dense: {}", why_dense(stats));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Why a method that may leave positions out left none out.
fn why_dense(stats: &Stats) -> String {
    let context = stats.prompt_tokens + stats.decode_steps;
    let keys = MethodSpec::from(&stats.method).keys;
    match (&stats.dense_below, keys.top_k) {
        (_, Some(top_k)) if context <= top_k => {
            format!("the method's top-k of {top_k} covers the whole context of {context} tokens")
        }
        (Verdict::Found(Crossover { tokens, measured_tokens, estimated: true }), _) if context < *tokens => {
            format!(
                "the context of {context} tokens is shorter than the {tokens} from which on sparq is expected \
                 to be faster here (measured up to {measured_tokens})"
            )
        }
        (Verdict::Found(Crossover { tokens, .. }), _) if context < *tokens => format!(
            "the context of {context} tokens is shorter than the {tokens} from which on sparq is faster here"
        ),
        _ if context < dense_below(&stats.method) => format!(
            "the context of {context} tokens is shorter than the {} of dense-below",
            dense_below(&stats.method)
        ),
        _ => format!("it read every position that the layers see of the context of {context} tokens"),
    }
}

/// Attention as it was asked for.
pub(crate) fn attention_in_words(attention: &AttentionPlan) -> String {
    match attention {
        AttentionPlan::Method { spec, dense_layers: 0 } => spec.to_string(),
        AttentionPlan::Method { spec, dense_layers } => format!("{spec}, {}", first_dense(*dense_layers)),
        AttentionPlan::Profile(profile) => match &profile.file {
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
fn attention_line(attention: &AttentionPlan, stats: &Stats) -> String {
    let first = match attention {
        AttentionPlan::Method { dense_layers, .. } => (*dense_layers).min(stats.methods.len()),
        AttentionPlan::Profile(_) => {
            return format!("{}: {}", attention_in_words(attention), grouped(&stats.methods));
        }
    };
    let rest = &stats.methods[first..];
    // The layers that see the most may be among the dense ones.
    let Some(shown) = rest.iter().find(|method| **method == stats.method).or(rest.first()) else {
        return method(&Method::Dense, &stats.dense_below);
    };
    let others: Vec<Method> = rest.iter().filter(|method| *method != shown).cloned().collect();
    let mut line = method(shown, &stats.dense_below);
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

/// The length below which a method attends densely.
fn dense_below(method: &Method) -> usize {
    match method {
        Method::Sparq(config) => config.dense_below,
        Method::SparqMass(config) => config.sparq.dense_below,
        _ => 0,
    }
}

fn method(method: &Method, verdict: &Verdict) -> String {
    let spec = MethodSpec::from(method);
    if spec.kind != MethodKind::Sparq {
        return spec.to_string();
    }
    let how = match verdict {
        Verdict::Found(Crossover { estimated: true, .. }) => " (estimated)".to_owned(),
        Verdict::NotMeasured(why) => format!(" (not measured: {why})"),
        Verdict::Stated | Verdict::Found(_) => String::new(),
    };
    format!("{}, dense below {} tokens{how}", spec.in_words("dense-below"), dense_below(method))
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
