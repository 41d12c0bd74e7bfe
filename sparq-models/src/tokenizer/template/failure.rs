//! What a template's errors say: the line, the piece of the template and what is wrong with it.

use std::{error::Error as _, ops::Range, path::Path};

use minijinja::ErrorKind;

use super::rewrite::Rewritten;
use crate::error::Error;

/// Longest piece of a template that an error shows, in characters.
const SNIPPET: usize = 80;

/// Most of a template's own message that is shown, in bytes.
const MESSAGE: usize = 16 << 10;

/// What a template's `raise_exception` says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// An error without a place.
pub(super) fn whole(path: &Path, message: &str) -> Error {
    Error::Template { path: path.to_owned(), place: String::new(), message: message.to_owned() }
}

/// What is no Jinja2.
pub(super) fn syntax(path: &Path, source: &str, range: Range<usize>, message: &str) -> Error {
    Error::Template {
        path: path.to_owned(),
        place: place(source, range),
        message: format!("syntax error: {}", plain(message)),
    }
}

/// An error of minijinja.
pub(super) fn engine(path: &Path, template: &Rewritten, error: &minijinja::Error) -> Error {
    let raised = error.source().and_then(|source| source.downcast_ref::<Raised>());
    let message = match (raised, error.kind(), error.detail()) {
        (Some(Raised(message)), ..) => format!("the template refuses the conversation: {}", plain(message)),
        (None, ErrorKind::OutOfFuel, _) => "rendering takes too many steps, or too long a text".to_owned(),
        (None, kind, Some(detail)) => format!("{kind}: {}", plain(detail)),
        (None, kind, None) => kind.to_string(),
    };
    let place = match (error.range(), error.line()) {
        (Some(range), _) => place(&template.source, template.range(range)),
        (None, Some(line)) => format!(", line {line}"),
        (None, None) => String::new(),
    };
    Error::Template { path: path.to_owned(), place, message }
}

/// `, line 3, ` and the piece of the source.
fn place(source: &str, range: Range<usize>) -> String {
    let line = source.get(..range.start).map_or(1, |before| before.matches('\n').count() + 1);
    let piece = source.get(range).unwrap_or_default().trim();
    if piece.is_empty() {
        return format!(", line {line}");
    }
    let cut = piece.char_indices().nth(SNIPPET).map_or(piece.len(), |(index, _)| index);
    format!(", line {line}, `{}{}`", plain(&piece[..cut]), if cut < piece.len() { "…" } else { "" })
}

/// A text of the template's without codes for a terminal, and cut where it is very long.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MESSAGE));
    for c in text.chars() {
        if shown.len() >= MESSAGE {
            shown.push('…');
            break;
        }
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}
