//! Where a text comes from.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// The prompt; `-` reads it from standard input, without one final line break
    #[arg(value_name = "TEXT", required_unless_present_any = ["text", "file"], conflicts_with_all = ["text", "file"])]
    pub(crate) prompt: Option<String>,

    /// The prompt, as an option
    #[arg(
        id = "text",
        short = 'p',
        long = "prompt",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "file"
    )]
    pub(crate) text: Option<String>,

    /// Read the prompt from a file, without one final line break
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

impl PromptArgs {
    /// The text, from where the arguments say.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let text = match (self.prompt.as_ref().or(self.text.as_ref()), &self.file) {
            (_, Some(file)) => fs::read_to_string(file)
                .with_context(|| format!("cannot read the prompt from `{}`", file.display()))?,
            (Some(prompt), None) if prompt != "-" => return Ok(prompt.clone()),
            _ => {
                let mut prompt = String::new();
                let mut stdin = io::stdin();
                stdin.read_to_string(&mut prompt).context("cannot read the prompt from standard input")?;
                prompt
            }
        };
        // Both are cut at the ends of characters.
        let text = without_break(without_mark(text.as_bytes()));
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// A text without the byte-order mark that some editors put before it.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// A text without the line break that ends it: what editors and `echo` put behind the last line.
pub(crate) fn without_break(text: &[u8]) -> &[u8] {
    match text.strip_suffix(b"\n") {
        Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_and_one_break_go() {
        let read = |text: &'static str| str::from_utf8(without_break(without_mark(text.as_bytes()))).unwrap();
        assert_eq!(read("\u{feff}a\n"), "a");
        assert_eq!(read("a\r\n"), "a");
        assert_eq!(read("\na\n\n"), "\na\n");
        assert_eq!(read("a\r"), "a\r");
        assert_eq!((read(""), read("\u{feff}"), read("\n")), ("", "", ""));
    }
}
