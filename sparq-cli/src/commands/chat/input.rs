//! Lines from a terminal, with editing and history, or from a pipe.

mod block;

use std::io;

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
}

/// Where the lines come from.
pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(io::Lines<io::StdinLock<'static>>),
}

/// One line, or why there is none.
enum Line {
    Text(String),
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
            false => Self::Pipe(io::stdin().lines()),
        })
    }

    /// What is typed next and is not blank; `None` at the end.
    ///
    /// # Errors
    /// Where the lines cannot be read, or end in the middle of a `"""` block.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Typed>> {
        let mut block = Block::default();
        loop {
            let prompt = if block.is_empty() { "> " } else { "… " };
            let typed = match self.line(prompt)? {
                Line::Text(line) => block.push(&line),
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
            Line::Interrupted | Line::End => false,
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
            Self::Pipe(lines) => match lines.next() {
                Some(line) => Ok(Line::Text(line.context("cannot read a line from standard input")?)),
                None => Ok(Line::End),
            },
        }
    }
}
