//! RULER's variable tracking (vt): one chain of four assignments, and an example before it.

use std::path::Path;

use rand_chacha::ChaCha8Rng;

use super::{Maker, Sample, Turn, filler};
use crate::error::Result;

const HOPS: usize = 4;
/// As in RULER.
const NEW_TOKENS: usize = 30;
/// Units of noise around the example's chain.
const EXAMPLE_UNITS: usize = 2;

struct Chain {
    context: String,
    value: String,
    names: Vec<String>,
}

impl Chain {
    fn new(units: usize, name_len: usize, rng: &mut ChaCha8Rng) -> Self {
        let alphabet: Vec<u8> = (b'A'..=b'Z').collect();
        let mut names: Vec<String> = vec![];
        while names.len() <= HOPS {
            let name = filler::letters(name_len, &alphabet, rng);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let value = filler::number(5, rng);
        let first = format!("VAR {} = {value}", names[0]);
        let next = names.windows(2).map(|pair| format!("VAR {} = VAR {} ", pair[1], pair[0]));
        let assignments = std::iter::once(first).chain(next);
        let told = filler::places(HOPS + 1, units, rng).into_iter().zip(assignments).collect();
        let text = filler::insert(vec![filler::NOISE.to_owned(); units], told, "\n");
        let context = format!(
            "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{text}"
        );
        Self { context, value, names }
    }

    fn question(&self) -> String {
        let Self { value, names, .. } = self;
        format!(
            "\nQuestion: Find all variables that are assigned the value {value} in the text above. Answer: \
             According to the chain(s) of variable assignment in the text above, {} variables are assigned the \
             value {value}, they are: ",
            names.len()
        )
    }
}

pub(super) fn make(maker: &Maker<'_>, _: Option<&Path>) -> Result<Vec<Sample>> {
    maker.fill("variable-tracking", |units, _, rng| {
        let example = Chain::new(EXAMPLE_UNITS, 3, rng);
        let chain = Chain::new(units, 5, rng);
        let shown = format!("{}{}{}", example.context, example.question(), example.names.join(" "));
        let context = format!("{shown}\n\n{}", chain.context);
        // The space that ends RULER's prompt belongs to the answer's first token.
        let question = chain.question().trim_end().to_owned();
        let answer = format!(" {}", chain.names.join(" "));
        (context, vec![Turn { question, answer, references: chain.names, new_tokens: NEW_TOKENS }], None)
    })
}
