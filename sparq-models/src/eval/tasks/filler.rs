//! Words and sentences that stand around what is asked for.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::choose;

/// RULER's noise, one unit.
pub(super) const NOISE: &str =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

const ADJECTIVES: &[&str] = &[
    "red", "blue", "green", "silver", "golden", "old", "broken", "quiet", "distant", "hidden", "iron",
    "wooden", "little", "great", "dark", "bright", "lost", "secret", "white", "black", "narrow", "ancient",
    "heavy", "empty",
];

const NOUNS: &[&str] = &[
    "lantern", "garden", "harbor", "castle", "river", "mountain", "letter", "window", "bridge", "forest",
    "island", "tower", "ship", "mirror", "clock", "road", "well", "village", "door", "table", "horse",
    "book", "field", "church", "wagon", "lamp", "box", "house", "ring", "station", "kitchen", "cave",
    "market", "chair",
];

const LINKS: &[&str] = &[
    "was seen from",
    "lay beyond",
    "was older than",
    "stood near",
    "was hidden behind",
    "belonged to",
    "looked like",
    "was built before",
];

const ENDS: &[&str] = &[
    "and the old man spoke of it",
    "and nobody knew why",
    "as the children had said",
    "though it was seldom visited",
    "and the rain fell on both",
    "but that was long ago",
];

/// `count` different names of an adjective and a noun with `join` between them.
pub(super) fn names(count: usize, join: &str, rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    while names.len() < count.min(ADJECTIVES.len() * NOUNS.len()) {
        let name = format!("{}{join}{}", choose(ADJECTIVES, rng), choose(NOUNS, rng));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A sentence of a tale without an end.
pub(super) fn sentence(rng: &mut ChaCha8Rng) -> String {
    let mut thing = || format!("{} {}", choose(ADJECTIVES, rng), choose(NOUNS, rng));
    let (a, b) = (thing(), thing());
    format!("The {a} {} the {b}, {}.", choose(LINKS, rng), choose(ENDS, rng))
}

/// One of the adjectives.
pub(super) fn adjective(rng: &mut ChaCha8Rng) -> &'static str {
    choose::<&str>(ADJECTIVES, rng)
}

/// A number of `digits` digits that does not begin with 0.
pub(super) fn number(digits: u32, rng: &mut ChaCha8Rng) -> String {
    rng.random_range(10u64.pow(digits - 1)..10u64.pow(digits)).to_string()
}

/// `count` random letters.
pub(super) fn letters(count: usize, alphabet: &[u8], rng: &mut ChaCha8Rng) -> String {
    (0..count).map(|_| char::from(*choose(alphabet, rng))).collect()
}

/// `items` at random places among `units` others, in order; returns which places the items got.
pub(super) fn places(items: usize, units: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut places: Vec<usize> = (0..items).map(|_| rng.random_range(0..=units)).collect();
    places.sort_unstable();
    places
}

/// `filler` with each of the `(place, text)` before the unit of that number, joined by `join`.
pub(super) fn insert(filler: Vec<String>, mut items: Vec<(usize, String)>, join: &str) -> String {
    items.sort_by_key(|(place, _)| *place);
    let mut items = items.into_iter().peekable();
    let mut texts = vec![];
    for (number, unit) in filler.into_iter().enumerate() {
        while let Some((_, text)) = items.next_if(|(place, _)| *place <= number) {
            texts.push(text);
        }
        texts.push(unit);
    }
    texts.extend(items.map(|(_, text)| text));
    texts.join(join)
}

/// The place among `units` at this depth.
pub(super) fn place_at(depth: f64, units: usize) -> usize {
    (depth * units as f64).round() as usize
}
