//! Names of filters, tests, functions and methods in a template.

use std::ops::Range;

use super::lexer::{Kind, Part, parts};

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Name {
    Filter,
    Test,
    Function,
    Method,
}

/// A name and its place.
#[derive(Debug)]
pub(in super::super) struct Mention {
    pub(in super::super) name: Name,
    pub(in super::super) range: Range<usize>,
    /// Whether a condition may spare it: Jinja2 then looks for it only when it gets there.
    pub(in super::super) conditional: bool,
}

/// Names of macros some of whose arguments have defaults, `caller` for blocks that are given to macros.
pub(super) fn macros_with_defaults(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in parts(source) {
        let Ok(Part::Statement { tokens, .. }) = part else { continue };
        let words: Vec<&str> = tokens.iter().map(|token| &source[token.start..token.end]).collect();
        let has_default =
            tokens.iter().any(|token| token.kind == Kind::Operator && &source[token.start..token.end] == "=");
        match words.as_slice() {
            ["macro", name, ..] if has_default => names.push((*name).to_owned()),
            ["call", "(", ..] if has_default => names.push("caller".to_owned()),
            _ => {}
        }
    }
    names
}
