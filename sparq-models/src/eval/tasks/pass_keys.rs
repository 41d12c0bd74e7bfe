//! Pass keys: one that is asked once, and several that are asked in turn.

use std::path::Path;

use rand::RngExt;

use super::{Cell, Maker, Sample, Turn, filler, shuffle};
use crate::error::Result;

/// Landmark attention's pass key (Mohtashami and Jaggi, 2023).
pub(super) fn single(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("passkey", |units, Cell { depth, .. }, rng| {
        let key = rng.random_range(1..=50_000);
        let told = format!("The pass key is {key}. Remember it. {key} is the pass key.");
        let noise = vec![filler::NOISE.to_owned(); units];
        let text = filler::insert(noise, vec![(filler::place_at(depth, units), told)], " ");
        let context = format!(
            "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I \
             will quiz you about the important information there.\n{text}"
        );
        let question = "\nWhat is the pass key? The pass key is".to_owned();
        (context, vec![Turn::exact(question, format!(" {key}"))], Some(depth))
    })
}

/// Keys told in each context.
const KEYS: usize = 4;

/// A named key as it is told.
fn told(name: &str, key: &str) -> String {
    format!("The pass key for the {name} is {key}.")
}

/// The question for a named key.
fn asked((name, key): (String, String)) -> Turn {
    let question = format!("\n\nWhat is the pass key for the {name}? The pass key for the {name} is");
    Turn::exact(question, format!(" {key}"))
}

/// One of several named pass keys in a tale: the others stand anywhere.
pub(super) fn named(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("named-key", |units, Cell { depth, .. }, rng| {
        let keys: Vec<(String, String)> =
            filler::names(KEYS, " ", rng).into_iter().map(|name| (name, filler::number(5, rng))).collect();
        let place = |(number, (name, key)): (usize, &(String, String))| {
            let place = match number {
                0 => filler::place_at(depth, units),
                _ => rng.random_range(0..=units),
            };
            (place, told(name, key))
        };
        let told = keys.iter().enumerate().map(place).collect();
        let tale = (0..units).map(|_| filler::sentence(rng)).collect();
        (filler::insert(tale, told, " "), vec![asked(keys[0].clone())], Some(depth))
    })
}

/// Named pass keys in a tale. What one question does not need is what the next one asks for, so a
/// method that evicts loses it.
pub(super) fn turns(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("multi-turn", |units, _, rng| {
        let mut keys = vec![];
        let mut places = vec![];
        for (number, name) in filler::names(KEYS, " ", rng).into_iter().enumerate() {
            let key = filler::number(5, rng);
            let place = filler::place_at((number as f64 + 0.5) / KEYS as f64, units);
            places.push((place, told(&name, &key)));
            keys.push((name, key));
        }
        shuffle(&mut keys, rng);
        let tale = (0..units).map(|_| filler::sentence(rng)).collect();
        (filler::insert(tale, places, " "), keys.into_iter().map(asked).collect(), None)
    })
}
