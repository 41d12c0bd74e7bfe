//! A needle in a haystack (Kamradt, 2023), as the paper asks it.

use std::path::Path;

use super::{Cell, Maker, Sample, Turn, documents, filler};
use crate::error::Result;

const NEEDLE: &str = "The best thing to do in San Francisco is to eat a sandwich and sit in Dolores Park on a sunny \
                      day.";
const ANSWER: &str = " eat a sandwich and sit in Dolores Park on a sunny day";
const QUESTION: &str = ".\n\n\nWhat is the best thing to do in San Francisco? \"The best thing to do in San \
                        Francisco is to";
/// Tokens beyond the reference.
const SPARE_TOKENS: usize = 5;

pub(super) fn make(maker: &Maker<'_>, file: Option<&Path>) -> Result<Vec<Sample>> {
    let text = documents::read(documents::path("needle", file)?)?;
    let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
    let answer_tokens = maker.model.tokenizer().encode(ANSWER, false)?.len();
    maker.fill("needle", |units, Cell { depth, .. }, _| {
        let place = filler::place_at(depth, units);
        // A file shorter than the context comes again from its beginning.
        let hay =
            |range: std::ops::Range<usize>| -> String { range.map(|i| words[i % words.len()]).collect() };
        let (before, after) = (hay(0..place), hay(place..units));
        let gap = if place > 0 { ".\n" } else { "" };
        let context = format!("{}{gap}{NEEDLE}\n{}", before.trim_end(), after.trim_end());
        let turn = Turn {
            question: QUESTION.to_owned(),
            answer: ANSWER.to_owned(),
            references: vec![ANSWER.trim_start().to_owned()],
            new_tokens: answer_tokens + SPARE_TOKENS,
        };
        (context, vec![turn], Some(depth))
    })
}
