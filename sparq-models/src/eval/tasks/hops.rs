//! Hash hops: pairs of random names in random order, and a walk along them.

use std::path::Path;

use super::{Maker, Sample, Turn, filler, shuffle};
use crate::error::Result;

const HOPS: usize = 2;
const LETTERS: usize = 6;

pub(super) fn make(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    let alphabet: Vec<u8> = (b'a'..=b'z').collect();
    maker.fill("hash-hops", |units, _, rng| {
        let mut hash = || filler::letters(LETTERS, &alphabet, rng);
        let chains: Vec<Vec<String>> =
            (0..units + 1).map(|_| (0..HOPS + 1).map(|_| hash()).collect()).collect();
        let pairs = |chain: &Vec<String>| -> Vec<String> {
            chain.windows(2).map(|pair| format!("{} = {}", pair[0], pair[1])).collect()
        };
        let mut lines: Vec<String> = chains.iter().flat_map(pairs).collect();
        shuffle(&mut lines, rng);
        let context = format!("Each line says which hash follows another.\n\n{}", lines.join("\n"));
        let (first, last) = (&chains[0][0], &chains[0][HOPS]);
        let question = format!("\n\nStarting from {first}, the hash after {HOPS} steps is");
        (context, vec![Turn::exact(question, format!(" {last}"))], None)
    })
}
