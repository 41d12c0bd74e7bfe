//! Texts that go on: how likely the model finds them, token by token through the decode path.

use std::{ops::ControlFlow, path::Path};

use sparq_core::MethodKind;

use super::{Maker, Plan, Sample, Turn, documents};
use crate::{error::Result, generate::GenerateOptions, sampling::SamplerConfig};

/// Characters of prefill and of reference in the paper's WikiText task.
const PREFILL: usize = 6000;
const REFERENCE: usize = 400;
/// The shortest prefill for models with a short context.
const SHORTEST: usize = 500;
/// Tokens of reference in the tasks that measure perplexity.
const TOKENS: usize = 128;

/// The paper's WikiText task: one sample per article.
pub(super) fn wikitext(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let text = documents::read(documents::path("wikitext", file)?)?;
    let articles = match documents::articles(&text)[..] {
        [all] => chunks(all, PREFILL + 2 * REFERENCE),
        ref articles => articles.to_vec(),
    };
    let room = maker.room(maker.plan.longest());
    let mut samples = vec![];
    for index in maker.plan.order("wikitext", articles.len()) {
        if samples.len() == maker.plan.limit {
            break;
        }
        let article = articles[index];
        if split(article, PREFILL).is_none() {
            continue;
        }
        let build = |characters| {
            let (context, answer) = split(article, characters).unwrap_or_default();
            continuation(context, answer, maker.plan)
        };
        samples.extend(room.largest(SHORTEST, PREFILL, build)?);
    }
    Ok(samples)
}

/// Prefill and reference of the paper's sizes, cut before white space.
fn split(text: &str, prefill: usize) -> Option<(&str, &str)> {
    let middle = documents::space_after(text, prefill)?;
    let end = documents::end_after(&text[middle..], REFERENCE)?;
    Some((&text[..middle], &text[middle..middle + end]))
}

fn continuation(context: &str, answer: &str, plan: &Plan) -> Sample {
    let turn = Turn::exact(String::new(), answer.to_owned());
    Sample { context: context.to_owned(), turns: vec![turn], length: plan.longest(), depth: None }
}

/// Pieces of about `characters` characters, cut before white space.
fn chunks(text: &str, characters: usize) -> Vec<&str> {
    let mut chunks = vec![];
    let mut rest = text;
    while let Some(end) = documents::space_after(rest, characters) {
        chunks.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    chunks
}

/// Any text: pieces that fill the length, of which the last tokens are measured.
pub(super) fn any(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let text = documents::read(documents::path("text", file)?)?;
    let mut samples = vec![];
    let mut rest = text.as_str();
    let mut number = 0;
    while samples.len() < maker.plan.limit {
        let length = maker.plan.cell(number).length;
        let room = maker.room(length);
        // More characters than tokens is the rule; where it is not, the search ends sooner.
        let build = |characters| {
            let piece = &rest[..documents::end_after(rest, characters).unwrap_or(rest.len())];
            let (context, answer) = last_tokens(piece, maker);
            Sample { length, ..continuation(context, answer, maker.plan) }
        };
        let enough = rest.chars().count() > length;
        match room.largest(SHORTEST, 16 * length, build)? {
            Some(sample) if enough => {
                let used = sample.context.len() + sample.turns[0].answer.len();
                rest = rest[used..].trim_start();
                samples.push(sample);
            }
            _ => break,
        }
        number += 1;
    }
    Ok(samples)
}

/// The text, cut before its last [`TOKENS`] tokens or half of it, before white space.
fn last_tokens<'a>(text: &'a str, maker: &Maker<'_>) -> (&'a str, &'a str) {
    let tokens = maker.model.tokenizer().encode(text, false).map_or(1, |ids| ids.len());
    let characters = text.chars().count();
    let measured = characters * TOKENS.min(tokens / 2) / tokens.max(1);
    let middle = documents::end_after(text, characters - measured).unwrap_or(text.len());
    text.split_at(middle)
}

/// Text that the model itself writes, sampled at temperature 1 with dense attention: what it expects.
pub(super) fn own(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    let mut samples = vec![];
    let lengths = &maker.plan.lengths;
    // Texts cost as many steps as they have tokens: one for each length is enough for an average over
    // their tokens.
    for (number, &length) in lengths.iter().enumerate().take(maker.plan.limit) {
        let options = GenerateOptions {
            attention: MethodKind::Dense.into(),
            max_new_tokens: length.saturating_sub(START_TOKENS).max(1),
            sampler: SamplerConfig {
                temperature: 1.0,
                seed: maker.plan.seed.wrapping_add(number as u64),
                ..SamplerConfig::default()
            },
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let written = maker.model.generate(START, &options, &mut |_| ControlFlow::Continue(()))?;
        let text = format!("{START}{}", written.text);
        let build = |characters| {
            let piece = &text[..documents::end_after(&text, characters).unwrap_or(text.len())];
            let (context, answer) = last_tokens(piece, maker);
            Sample { length, ..continuation(context, answer, maker.plan) }
        };
        samples.extend(maker.room(length).largest(1, text.chars().count(), build)?);
    }
    Ok(samples)
}

/// What the model goes on from, and more tokens than that has.
const START: &str = "It was in the year";
const START_TOKENS: usize = 16;
