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
    /// The text; `-` reads it from standard input
    #[arg(value_name = "TEXT", required_unless_present_any = ["text", "file"], conflicts_with_all = ["text", "file"])]
    pub(crate) prompt: Option<String>,

    /// The text, as an option
    #[arg(
        id = "text",
        short = 'p',
        long = "prompt",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "file"
    )]
    pub(crate) text: Option<String>,

    /// Read the text from a file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

impl PromptArgs {
    /// The text, from where the arguments say.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        match (self.prompt.as_ref().or(self.text.as_ref()), &self.file) {
            (_, Some(file)) => fs::read_to_string(file)
                .with_context(|| format!("cannot read the prompt from `{}`", file.display())),
            (Some(prompt), None) if prompt != "-" => Ok(prompt.clone()),
            _ => {
                let mut prompt = String::new();
                let mut stdin = io::stdin();
                stdin.read_to_string(&mut prompt).context("cannot read the prompt from standard input")?;
                Ok(prompt)
            }
        }
    }
}
