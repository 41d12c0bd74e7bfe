//! Names of filters, tests, functions and methods in a template.

use std::ops::Range;

use super::lexer::{Kind, Part, Token, parts};

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

/// Whether arguments of macros, or of blocks that are given to macros, have defaults.
pub(super) fn macros_have_defaults(source: &str) -> bool {
    parts(source).any(|part| {
        let Ok(Part::Statement { tokens, .. }) = part else { return false };
        let word = |token: &Token| &source[token.start..token.end];
        tokens.first().is_some_and(|token| matches!(word(token), "macro" | "call"))
            && tokens.iter().any(|token| token.kind == Kind::Operator && word(token) == "=")
    })
}

/// Whether loops may end before their last item.
pub(super) fn has_break(source: &str) -> bool {
    parts(source).any(|part| match part {
        Ok(Part::Statement { tokens, .. }) => {
            tokens.first().is_some_and(|token| &source[token.start..token.end] == "break")
        }
        _ => false,
    })
}
