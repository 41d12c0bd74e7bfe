//! Repetition (the paper, after tiny Shakespeare): a passage of the context begins again, and the
//! model goes on with it.

use std::path::Path;

use rand::RngExt;

use super::{Maker, Sample, Turn, documents};
use crate::error::Result;

/// Characters of a chunk, of the passage that begins again, and of what must follow.
const CHUNK: usize = 6000;
const PROMPT: usize = 128;
const REFERENCE: usize = 256;
/// The shortest chunk for models with a short context.
const SHORTEST: usize = 1000;
/// The most tokens that are generated.
const MOST_TOKENS: usize = 128;

pub(super) fn make(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let text = documents::read(documents::path("repetition", file)?)?;
    let mut chunks = vec![];
    let mut rest = text.as_str();
    while let Some(end) = documents::space_after(rest, CHUNK) {
        chunks.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    let room = maker.room(maker.plan.longest());
    let mut samples = vec![];
    let order = maker.plan.order("repetition", chunks.len());
    // More samples than chunks ask at several places of each.
    for number in 0..if order.is_empty() { 0 } else { maker.plan.limit } {
        let chunk = chunks[order[number % order.len()]];
        let build = |characters| {
            let end = documents::end_after(chunk, characters).unwrap_or(chunk.len());
            sample(&chunk[..end], number, maker)
        };
        samples.extend(room.largest(SHORTEST, CHUNK, build)?);
    }
    Ok(samples)
}

/// One of the places in the chunk that have room for prompt and reference.
fn sample(chunk: &str, number: usize, maker: &Maker<'_>) -> Sample {
    let mut places = vec![];
    let mut at = 0;
    while let Some(prompt) = documents::space_after(&chunk[at..], PROMPT) {
        // The white space before the reference counts as its first character.
        let Some(reference) = documents::end_after(&chunk[at + prompt..], REFERENCE) else {
            break;
        };
        places.push((at, at + prompt, at + prompt + reference));
        at += prompt + reference;
    }
    // Drawn as a part of the whole, so that a chunk cut shorter asks near the same depth.
    let draw: f64 = maker.plan.rng("repetition", number).random();
    let place = places.get((draw * places.len() as f64) as usize).copied();
    let (start, middle, end) = place.unwrap_or((0, 0, 0));
    let answer = chunk[middle..end].to_owned();
    let tokens = maker.model.tokenizer().encode(&answer, false).map_or(0, |ids| ids.len());
    let turn = Turn {
        question: format!("\n{}", &chunk[start..middle]),
        references: vec![answer.clone()],
        answer,
        new_tokens: tokens.min(MOST_TOKENS),
    };
    let depth = Some(start as f64 / chunk.len().max(1) as f64);
    Sample { context: chunk.to_owned(), turns: vec![turn], length: maker.plan.longest(), depth }
}
