//! Lists of keys and values, one of which is asked: nothing in the keys helps but their letters.

use std::path::Path;

use rand_chacha::ChaCha8Rng;

use super::{Cell, Maker, Sample, Turn, filler};
use crate::error::Result;

fn uuid(rng: &mut ChaCha8Rng) -> String {
    let groups = [8, 4, 4, 4, 12].map(|count| filler::letters(count, b"0123456789abcdef", rng));
    groups.join("-")
}

/// Key-value retrieval (InfiniteBench, Zhang et al., 2024).
pub(super) fn json(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("kv-retrieval", |units, Cell { depth, .. }, rng| {
        let pairs: Vec<(String, String)> = (0..units + 1).map(|_| (uuid(rng), uuid(rng))).collect();
        let (key, value) = pairs[filler::place_at(depth, units)].clone();
        let lines: Vec<String> = pairs.iter().map(|(key, value)| format!("\"{key}\": \"{value}\"")).collect();
        let context = format!(
            "Extract the value corresponding to the specified key in the JSON object below.\n\n{{{}}}",
            lines.join(",\n")
        );
        let question = format!("\n\nKey: \"{key}\"\nThe value associated with the specified key is: \"");
        (context, vec![Turn::exact(question, value)], Some(depth))
    })
}

/// Lines of names and numbers, after LongEval's (Li et al., 2023) without its instruction: a line that
/// begins again is the question.
pub(super) fn lines(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("keyed-lines", |units, Cell { depth, .. }, rng| {
        let key = |rng: &mut ChaCha8Rng| format!("{}-{}", filler::adjective(rng), filler::number(5, rng));
        let pairs: Vec<(String, String)> =
            (0..units + 1).map(|_| (key(rng), filler::number(5, rng))).collect();
        let (key, value) = pairs[filler::place_at(depth, units)].clone();
        let lines: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let turn = Turn::exact(format!("\n\n{key}:"), format!(" {value}"));
        (lines.join("\n"), vec![turn], Some(depth))
    })
}
