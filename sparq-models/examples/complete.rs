//! Continues a text: `cargo run --release -p sparq-models --example complete -- FOLDER "Once upon a time"`.
//!
//! Without a folder it takes the small model inside the program. The README shows `complete`; a test compares them.

use std::env;

use sparq_models::{Result, generate::Generation};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sparq-cli/demo");

fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let folder = words.next().unwrap_or_else(|| DEMO.to_owned());
    let prompt = words.next().unwrap_or_else(|| "Once upon a time".to_owned());
    complete(&folder, &prompt).map(drop)
}

fn complete(folder: &str, prompt: &str) -> Result<Generation> {
    use sparq_models::TextModel;

    let model = TextModel::open(folder)?;
    let generation = model.complete(prompt)?;
    println!("{}", generation.text);
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_model_writes() {
        let generation = complete(DEMO, "Once upon a time").unwrap();
        assert!(generation.text.split_whitespace().count() > 20, "{}", generation.text);
    }
}
