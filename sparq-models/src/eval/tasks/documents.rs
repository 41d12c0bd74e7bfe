//! Reading and cutting text files.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Result},
    eval::EvalError,
};

/// The file of a task that reads one.
pub(super) fn path<'a>(task: &str, file: Option<&'a Path>) -> Result<&'a Path> {
    let form = super::task(task)?.file.unwrap_or_default().to_owned();
    Ok(file.ok_or(EvalError::NeedsFile { task: task.to_owned(), form })?)
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| bad(path, "it is not UTF-8 text"))?;
    match text.trim().is_empty() {
        true => Err(bad(path, "it is empty")),
        false => Ok(text),
    }
}

/// The content of a JSON file.
pub(super) fn json<T: DeserializeOwned>(path: &Path, form: &str) -> Result<T> {
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|error| bad(path, &format!("it is no {form}: {error}")))
}

/// The error for a file of another form.
pub(super) fn bad(path: &Path, message: &str) -> Error {
    EvalError::TaskFile { path: path.to_owned(), message: message.to_owned() }.into()
}

/// Byte at which the first white space lies that has at least `characters` characters before it.
/// `None` where the text ends first.
pub(super) fn space_after(text: &str, characters: usize) -> Option<usize> {
    text.char_indices().skip(characters).find(|(_, c)| c.is_whitespace()).map(|(at, _)| at)
}

/// As [`space_after`], or the end of a text that is long enough.
pub(super) fn end_after(text: &str, characters: usize) -> Option<usize> {
    space_after(text, characters).or_else(|| (text.chars().count() >= characters).then_some(text.len()))
}

/// The articles of a WikiText file: from each line ` = Title = ` to the next. A text without such
/// lines is one article.
pub(super) fn articles(text: &str) -> Vec<&str> {
    let is_title = |line: &str| {
        let line = line.trim();
        let inner = line.strip_prefix("= ").and_then(|rest| rest.strip_suffix(" ="));
        inner.is_some_and(|title| !title.starts_with('=') && !title.ends_with('='))
    };
    let mut starts = vec![];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_title(line) {
            starts.push(at);
        }
        at += line.len();
    }
    if starts.is_empty() {
        return vec![text];
    }
    let ends = starts[1..].iter().copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &text[start..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_fall_before_white_space() {
        assert_eq!(space_after("ab cd ef", 0), Some(2));
        assert_eq!(space_after("ab cd ef", 3), Some(5));
        assert_eq!(space_after("ab cd ef", 6), None);
        assert_eq!(end_after("ab cd ef", 6), Some(8));
        assert_eq!(end_after("ab cd ef", 9), None);
        assert_eq!(space_after("éé x", 2), Some(4), "bytes of characters");
    }

    #[test]
    fn articles_begin_at_titles_and_not_at_sections() {
        let text = " \n = One = \n\n a\n = = Section = = \n b\n = Two = \n c\n";
        let found = articles(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("Section") && found[0].contains(" b") && found[1].contains(" c"));
        assert_eq!(articles("no titles"), ["no titles"]);
    }
}
