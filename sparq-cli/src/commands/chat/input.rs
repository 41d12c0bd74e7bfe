//! Lines from a terminal, with editing and history, or from a pipe.

use std::io;

use anyhow::Context;
use rustyline::{DefaultEditor, error::ReadlineError};

use crate::output;

/// Where the lines come from.
pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(io::Lines<io::StdinLock<'static>>),
}

impl Input {
    /// Standard input, which is a `terminal` or not.
    pub(super) fn open(terminal: bool) -> anyhow::Result<Self> {
        Ok(match terminal {
            true => {
                Self::Terminal(Box::new(DefaultEditor::new().context("cannot edit lines on this terminal")?))
            }
            false => Self::Pipe(io::stdin().lines()),
        })
    }

    /// The next line that is not blank; `None` at the end.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let line = match self {
                Self::Terminal(editor) => match editor.readline("> ") {
                    Ok(line) => {
                        // A line that cannot be remembered is still a line.
                        let _ = editor.add_history_entry(&line);
                        line
                    }
                    Err(ReadlineError::Interrupted) => {
                        output::say("(/bye or Ctrl-D ends the conversation)");
                        continue;
                    }
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error).context("cannot read a line"),
                },
                Self::Pipe(lines) => match lines.next() {
                    Some(line) => line.context("cannot read a line from standard input")?,
                    None => return Ok(None),
                },
            };
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}
