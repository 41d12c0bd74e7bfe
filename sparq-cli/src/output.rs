//! What is printed, and where: text to standard output or a file, the rest to standard error.

pub(crate) mod doctor;
mod inspection;
mod kernels;
mod pieces;
mod printable;
mod progress;
mod sink;
mod summary;

pub(crate) use inspection::inspection;
pub(crate) use kernels::kernels;
pub(crate) use pieces::{pieces, prompt};
pub(crate) use printable::{cell, json, printable};
pub(crate) use progress::{EvalProgress, Progress};
pub(crate) use sink::{Sink, write};
pub(crate) use summary::{attention_in_words, bytes, counted, summary};

use std::{
    fmt::Display,
    io::{self, Write},
};

use anyhow::Context;

use crate::hint::hint;
use printable::{limited, with_short_names};

/// Bytes of the longest error: what a chat template says itself is shown whole up to 16 kB.
const ERROR_BYTES: usize = 17_000;
/// Bytes of the longest hint.
const HINT_BYTES: usize = 2_000;

/// Prints a line to standard error, control characters escaped. Where standard error is full or was
/// closed, the line is dropped: nothing that is said on the way stops the work or changes its exit code.
pub(crate) fn say(text: impl Display) {
    let line = printable(&text.to_string()) + "\n";
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes a text to standard output at once.
///
/// # Errors
/// Where standard output is full or closed.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("cannot write to standard output")
}

/// Prints an error with its causes on one line, and what to do about it on the next.
pub(crate) fn report(error: &anyhow::Error) {
    say(format!("error: {}", message(error)));
    if let Some(hint) = hint(error) {
        say(format!("  hint: {}", limited(&printable(&with_short_names(&hint)), HINT_BYTES)));
    }
}

/// Says that a text becomes longer than what its model was made for.
pub(crate) fn beyond_trained_length(tokens: usize) {
    say(format!(
        "note: the text is longer than the {tokens} tokens that the model was made for, and may get worse"
    ));
}

/// An error and its causes, each said once, with short names.
fn message(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = vec![];
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries repeat their cause at the end of what they say.
        if parts.last().is_some_and(|before| before.ends_with(&text)) {
            continue;
        }
        let is_of_template = matches!(cause.downcast_ref(), Some(sparq_models::Error::Template { .. }));
        parts.push(if is_of_template { text } else { with_short_names(&text) });
    }
    limited(&printable(&parts.join(": ")), ERROR_BYTES)
}

/// True where the reader of our output went away: that is how `sparq … | head` ends.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_cause_is_said_once() {
        let error = anyhow!("EOF at line 1").context("bad header: EOF at line 1").context("`x` is cut");
        assert_eq!(message(&error), "`x` is cut: bad header: EOF at line 1");
    }

    #[test]
    fn a_message_is_short_unless_a_template_says_it() {
        let long = "x".repeat(16_000);
        assert!(message(&anyhow!("tensor `{long}` is missing")).len() < 300);
        let template = |message: &str| {
            let path = PathBuf::from("m/chat_template.jinja");
            anyhow!(sparq_models::Error::Template {
                path,
                place: String::new(),
                message: message.into(),
                hint: ""
            })
        };
        assert!(message(&template(&long)).ends_with(&long));
        assert!(message(&template(&"x".repeat(1_000_000))).len() < 18_000);
        assert!(message(&anyhow!("names shards: {}", "a b ".repeat(100_000))).len() < 18_000);
        assert!(!message(&template("\x1b[2J")).contains('\x1b'));
    }
}
