//! What a template's errors say: the line, the piece of the template and what is wrong with it.

use std::{error::Error as _, ops::Range, path::Path};

use minijinja::ErrorKind;

use super::rewrite::{Mention, Name, Rewritten};
use crate::{error::Error, guard::guard};

/// Longest piece of a template that an error shows, in characters.
const SNIPPET: usize = 80;

/// Most of a template's own message that is shown, in bytes.
const MESSAGE: usize = 16 << 10;

/// What a template's `raise_exception` says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Where the template itself is the cause.
const ANOTHER: &str = "do without a chat template, or take another";

/// Where the conversation is.
const CONVERSATION: &str = "it may take a conversation without a system message, or one in which roles alternate; or do \
                            without a chat template";

/// Where the engine lacks something that Jinja2 has.
const LACKING: &str =
    "put a template that does without it in a file and take that, or do without a chat template";

/// An error without a place.
pub(super) fn whole(path: &Path, message: &str) -> Error {
    Error::Template {
        path: path.to_owned(),
        place: String::new(),
        message: message.to_owned(),
        hint: ANOTHER,
    }
}

/// Runs the engine; a panic there is an error.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, Error> {
    guard(work)
        .map_err(|panic| whole(path, &format!("the template engine broke down on it: {}", plain(&panic))))
}

/// A file that is not UTF-8, from `line` on.
pub(super) fn no_text(path: &Path, line: usize) -> Error {
    Error::Template {
        path: path.to_owned(),
        place: format!(", line {line}"),
        message: "the file is not UTF-8".to_owned(),
        hint: "save it as UTF-8, download it again, or take another",
    }
}

/// What is no Jinja2.
pub(super) fn syntax(path: &Path, source: &str, range: Range<usize>, message: &str) -> Error {
    Error::Template {
        path: path.to_owned(),
        place: place(source, range),
        message: format!("syntax error: {}", plain(message)),
        hint: ANOTHER,
    }
}

/// A name that stands for nothing here.
pub(super) fn unknown(path: &Path, source: &str, mention: &Mention) -> Error {
    let kind = match mention.name {
        Name::Filter => "filter",
        Name::Test => "test",
        Name::Function => "function",
        Name::Method => "method",
    };
    Error::Template {
        path: path.to_owned(),
        place: place(source, mention.range.clone()),
        message: format!("unknown {kind}: there is none of this name"),
        hint: LACKING,
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
    let hint = match (raised, error.kind()) {
        (Some(_), _) => CONVERSATION,
        (
            None,
            ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownMethod
            | ErrorKind::UnknownFunction
            | ErrorKind::SyntaxError,
        ) => LACKING,
        _ => ANOTHER,
    };
    Error::Template { path: path.to_owned(), place, message, hint }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_engine_names_the_template() {
        assert_eq!(guarded(Path::new("m"), || 3).unwrap(), 3);
        let error = guarded(Path::new("m.jinja"), || -> u32 { panic!("out of order") }).unwrap_err();
        let expected = "chat template in `m.jinja`: the template engine broke down on it: out of order";
        assert_eq!(error.to_string(), expected);
    }
}
