//! RULER's aggregation tasks: the answer stands in no one place, so methods that read a part of the
//! cache are expected to lose here.

use std::path::Path;

use super::{Cell, Maker, Sample, Turn, choose, filler, shuffle};
use crate::error::Result;

/// Common words that are asked for.
const COMMON: usize = 10;
/// RULER gives 120 tokens for ten words.
const COMMON_TOKENS: usize = 60;
/// As in RULER.
const FREQUENT_TOKENS: usize = 50;

const SYLLABLES: &[&str] = &[
    "ba", "be", "bi", "bo", "da", "de", "di", "do", "fa", "fe", "ka", "ke", "ki", "ko", "la", "le", "li",
    "lo", "ma", "me", "mi", "mo", "na", "ne", "ni", "no", "pa", "pe", "ra", "re", "ri", "ro", "sa", "se",
    "ta", "te",
];

/// Common words extraction (cwe). RULER writes the common words 30 times and others 3 times; a short
/// context holds them in proportion.
pub(super) fn common(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("common-words", |units, Cell { length, .. }, rng| {
        let often = (3 * length / 512).clamp(2, 30);
        let seldom = (often / 10).max(1);
        // Three syllables make 46 656 words.
        let syllables = if units < 10_000 { 3 } else { 4 };
        let mut words: Vec<String> = vec![];
        while words.len() < COMMON + units {
            let word: String = (0..syllables).map(|_| *choose(SYLLABLES, rng)).collect();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        let mut list: Vec<&str> = vec![];
        for (number, word) in words.iter().enumerate() {
            list.extend(vec![word.as_str(); if number < COMMON { often } else { seldom }]);
        }
        shuffle(&mut list, rng);
        let numbered: Vec<String> =
            list.iter().enumerate().map(|(i, word)| format!("{}. {word}", i + 1)).collect();
        let context = format!(
            "Below is a numbered list of words. In these words, some appear more often than others. Memorize \
             the ones that appear most often.\n{}",
            numbered.join(" ")
        );
        let question =
            "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words \
                        that appear most often in the list are:"
                .to_owned();
        words.truncate(COMMON);
        let answer = format!(" {}", words.join(", "));
        (context, vec![Turn { question, answer, references: words, new_tokens: COMMON_TOKENS }], None)
    })
}

/// Frequent words extraction (fwe): counts fall with the square of the rank.
pub(super) fn frequent(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    let vocabulary = (maker.plan.longest() / 50).max(8);
    let zeta = std::f64::consts::PI.powi(2) / 6.0;
    let alphabet: Vec<u8> = (b'a'..=b'z').collect();
    maker.fill("frequent-words", |units, _, rng| {
        let mut words: Vec<String> = vec![];
        while words.len() < vocabulary {
            let word = filler::letters(6, &alphabet, rng);
            if !words.contains(&word) {
                words.push(word);
            }
        }
        // The most frequent one is noise.
        words[0] = "...".to_owned();
        // Enough units for the three that are asked for to differ in number.
        let total = (units + 40) as f64;
        let mut list: Vec<&str> = vec![];
        for (rank, word) in words.iter().enumerate() {
            let count = total / ((rank + 1) as f64).powi(2) / zeta;
            list.extend(vec![word.as_str(); count.round() as usize]);
        }
        shuffle(&mut list, rng);
        let context = format!(
            "Read the following coded text and track the frequency of each coded word. Find the three most \
             frequently appeared coded words. {}",
            list.join(" ")
        );
        let question = "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the \
                        three most frequently appeared words in the above coded text? Answer: According to the \
                        coded text above, the three most frequently appeared words are:"
            .to_owned();
        let references = words[1..4].to_vec();
        let answer = format!(" {}", references.join(", "));
        (context, vec![Turn { question, answer, references, new_tokens: FREQUENT_TOKENS }], None)
    })
}
