//! Lines from a terminal, with editing and history, or from a pipe.

mod block;

use std::{
    error::Error,
    fmt,
    io::{self, BufRead},
};

use anyhow::Context;
use rustyline::{DefaultEditor, error::ReadlineError};

use block::Block;

use crate::output;

/// What was typed: a command, or a message of one line or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) text: String,
    /// Between `"""` and `"""`: a message to the letter, whatever it begins with.
    pub(super) literal: bool,
    /// The text of a command between these marks: it stays to the letter too.
    pub(super) block: bool,
}

/// A line from a pipe that is no text: it is left out, and the next one may be read.
#[derive(Debug)]
pub(super) struct NoText {
    line: usize,
}

impl fmt::Display for NoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of standard input is not UTF-8, and is left out", self.line)
    }
}

impl Error for NoText {}

/// Where the lines come from.
pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(Lines),
}

/// One line, or why there is none.
enum Line {
    Text(String),
    /// Bytes that are no text, as far as they are, and what is wrong.
    NoText(String, NoText),
    Interrupted,
    End,
}

impl Input {
    /// Standard input, which is a `terminal` or not.
    pub(super) fn open(terminal: bool) -> anyhow::Result<Self> {
        Ok(match terminal {
            true => {
                Self::Terminal(Box::new(DefaultEditor::new().context("cannot edit lines on this terminal")?))
            }
            false => Self::Pipe(Lines { input: io::stdin().lock(), read: 0 }),
        })
    }

    /// What is typed next and is not blank; `None` at the end.
    ///
    /// # Errors
    /// [`NoText`] for a message with a line that is no text; others where the lines cannot be read, or end in
    /// the middle of a `"""` block.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Typed>> {
        let mut block = Block::default();
        let mut no_text = None;
        loop {
            let prompt = if block.is_empty() { "> " } else { "… " };
            let typed = match self.line(prompt)? {
                Line::Text(line) => block.push(&line),
                // The whole message is left out, and no line of it becomes one of its own.
                Line::NoText(line, error) => {
                    no_text.get_or_insert(error);
                    block.push(&line)
                }
                Line::Interrupted => {
                    if block.is_empty() {
                        output::say("(/bye or Ctrl-D ends the conversation)");
                    }
                    block = Block::default();
                    None
                }
                Line::End => match block.finish()? {
                    None => return Ok(None),
                    typed => typed,
                },
            };
            if typed.is_some()
                && let Some(error) = no_text.take()
            {
                return Err(error.into());
            }
            let Some(typed) = typed.filter(|typed| !typed.text.trim().is_empty()) else { continue };
            if let Self::Terminal(editor) = self {
                // What cannot be remembered is still typed.
                let _ = editor.add_history_entry(typed.text.trim_end());
            }
            return Ok(Some(typed));
        }
    }

    /// The answer to a question; `None` where nobody is there to ask.
    pub(super) fn confirm(&mut self, question: &str) -> anyhow::Result<Option<bool>> {
        if let Self::Pipe(_) = self {
            return Ok(None);
        }
        Ok(Some(match self.line(&format!("{question} [y/N] "))? {
            Line::Text(answer) => matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"),
            Line::NoText(..) | Line::Interrupted | Line::End => false,
        }))
    }

    fn line(&mut self, prompt: &str) -> anyhow::Result<Line> {
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error).context("cannot read a line"),
            },
            Self::Pipe(lines) => lines.next().context("cannot read a line from standard input"),
        }
    }
}

/// The lines of a pipe.
pub(super) struct Lines {
    input: io::StdinLock<'static>,
    read: usize,
}

impl Lines {
    /// The next line without its break, and the first one without a byte-order mark.
    fn next(&mut self) -> io::Result<Line> {
        let mut bytes = vec![];
        if self.input.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Line::End);
        }
        self.read += 1;
        let line = match self.read {
            1 => crate::args::without_mark(&bytes),
            _ => &bytes,
        };
        let line = crate::args::without_break(line);
        Ok(match str::from_utf8(line) {
            Ok(line) => Line::Text(line.to_owned()),
            Err(_) => Line::NoText(String::from_utf8_lossy(line).into_owned(), NoText { line: self.read }),
        })
    }
}
