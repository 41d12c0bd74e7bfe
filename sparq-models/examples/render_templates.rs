//! Renders chat templates for comparison with another engine.
//!
//! Standard input holds a JSON object a line: `template`, `messages`, `variables` by name, `prompt` (whether the
//! text ends where the answer begins). Standard output gets a line for each: `{"text": …}` or `{"error": …}`.
//! See `tests/templates/published.py`.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, BufRead, Write},
    path::Path,
};

use serde_json::{Value, json};
use sparq_models::tokenizer::{ChatTemplate, TemplateOptions, TemplateValue};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let rendered = render(&line)?;
        writeln!(out, "{rendered}")?;
    }
    Ok(())
}

/// Renders one case; a template's own failure is part of the answer.
fn render(line: &str) -> Result<Value, Box<dyn Error>> {
    // Read with the order of keys kept.
    let case: BTreeMap<String, TemplateValue> =
        TemplateValue::json(line)?.entries().ok_or("expected an object")?.into_iter().collect();
    let source = case["template"].as_str().ok_or("`template` is no text")?;
    let variables = case["variables"].entries().ok_or("`variables` is no object")?.into_iter().collect();
    let rendered =
        ChatTemplate::new(Path::new("template"), source, BTreeMap::new()).and_then(|mut template| {
            template.set(&TemplateOptions { variables, ..Default::default() });
            template.render(&case["messages"].items(), case["prompt"] == TemplateValue::from(true))
        });
    Ok(match rendered {
        Ok(text) => json!({ "text": text }),
        Err(error) => json!({ "error": error.to_string() }),
    })
}
