//! The figures after a generation.

use std::{fmt::Write, time::Duration};

use burn::tensor::DType;
use sparq_models::{
    attention::MethodSpec,
    core::{Choice, Method, SparqConfig, Traffic},
    generate::{Finish, Stats},
};

/// A few lines for standard error: what ran, how fast, and what it moved.
pub(crate) fn summary(stats: &Stats, load: Duration, device: &str, dtype: DType) -> String {
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
    if let Some(speed) = stats.decode_tokens_per_second() {
        let seconds = stats.decode.as_secs_f64();
        let finish = finish(stats.finish);
        let steps = stats.decode_steps;
        let _ = writeln!(text, "decode     {steps} tokens in {seconds:.2} s, {speed:.1} tokens/s; {finish}");
    }
    let _ = writeln!(text, "attention  {}", method(&stats.method));
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
        if stats.method != Method::Dense && (moved.k, moved.v) == (dense.k, dense.v) {
            let _ = writeln!(
                text,
                "           all steps ran dense: the context was too short for it to be faster"
            );
        }
    }
    text
}

fn method(method: &Method) -> String {
    match method {
        Method::Sparq(SparqConfig {
            rank,
            top_k,
            local_window,
            mean_value,
            dense_below,
            index,
            choice,
            ..
        }) => format!(
            "sparq, rank r = {rank}, top-k = {top_k}, local window = {local_window}, mean value {}{}{}{}",
            if *mean_value { "on" } else { "off" },
            index.bits().map_or(String::new(), |bits| format!(", index int{bits}")),
            match choice {
                Choice::Exact => "",
                Choice::Buckets => ", chosen from buckets",
            },
            match *dense_below {
                0 => String::new(),
                usize::MAX => ", dense at any length".to_owned(),
                tokens => format!(", dense below {tokens} tokens"),
            }
        ),
        other => MethodSpec::from(other).to_string(),
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos => "the model ended the text",
        Finish::Stop => "ended at a stop text",
        Finish::MaxNewTokens => "ended at --max-new-tokens",
        Finish::MaxSeqLen => "ended at the longest context",
        Finish::Cancelled => "ended early",
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
