//! RULER's needles in a haystack (Hsieh et al., 2024), on its repeated sentences. The harder ones use
//! essays there, which are no part of this program.

use std::path::Path;

use super::{Cell, Maker, Sample, Turn, filler, shuffle};
use crate::error::Result;

/// Tokens beyond the needles' own that an output may take.
const SPARE_TOKENS: usize = 12;

struct Needles {
    keys: usize,
    values: usize,
}

/// One key with one value.
pub(super) fn single(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    make(maker, "niah-single", &Needles { keys: 1, values: 1 })
}

/// Four keys, of which one is asked.
pub(super) fn multi_key(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    make(maker, "niah-multikey", &Needles { keys: 4, values: 1 })
}

/// Four values of one key.
pub(super) fn multi_value(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    make(maker, "niah-multivalue", &Needles { keys: 1, values: 4 })
}

fn make(maker: &Maker<'_>, task: &str, needles: &Needles) -> Result<Vec<Sample>> {
    maker.fill(task, |units, Cell { depth, .. }, rng| {
        let keys = filler::names(needles.keys, "-", rng);
        let query = keys[0].clone();
        let values: Vec<String> = (0..needles.values).map(|_| filler::number(7, rng)).collect();
        let sentence =
            |key: &str, value: &str| format!("One of the special magic numbers for {key} is: {value}.");
        let mut told: Vec<(usize, String)> = vec![];
        let places = filler::places(needles.values, units, rng);
        // The one needle that is asked for stands at the stated depth.
        let places = if needles.values == 1 { vec![filler::place_at(depth, units)] } else { places };
        told.extend(places.iter().zip(&values).map(|(&place, value)| (place, sentence(&query, value))));
        for key in &keys[1..] {
            let place = filler::places(1, units, rng)[0];
            told.push((place, sentence(key, &filler::number(7, rng))));
        }
        shuffle(&mut told, rng);
        let (noun, verb) = match needles.values {
            1 => ("number", "is"),
            _ => ("numbers", "are"),
        };
        let text = filler::insert(vec![filler::NOISE.to_owned(); units], told, "\n");
        let context = format!(
            "Some special magic numbers are hidden within the following text. Make sure to memorize it. I will \
             quiz you about the numbers afterwards.\n{text}"
        );
        let what = if needles.values == 1 { "What is" } else { "What are all" };
        let question = format!(
            "\n{what} the special magic {noun} for {query} mentioned in the provided text? The special magic \
             {noun} for {query} mentioned in the provided text {verb}"
        );
        // As many tokens as digits is the longest that a number can take.
        let new_tokens = needles.values * 9 + SPARE_TOKENS;
        let answer = format!(" {}", values.join(", "));
        let depth = (needles.values == 1).then_some(depth);
        (context, vec![Turn { question, answer, references: values, new_tokens }], depth)
    })
}
