//! Names and lists of a size that a message can hold.

use std::borrow::Cow;
use std::fmt::Display;

/// Longest text that a message shows whole, in characters.
const LONGEST: usize = 200;

/// Entries of a list that a message shows.
const LISTED: usize = 10;

/// `text` as it is, or its beginning and end where it is too long for a message: names in a damaged file
/// may have any length.
///
/// ```
/// let name = "x".repeat(1_000_000);
/// let shown = sparq_models::shorten(&name);
/// assert!(shown.len() < 300 && shown.contains("… (1000000 characters) …"));
/// assert_eq!(sparq_models::shorten("model.norm.weight"), "model.norm.weight");
/// ```
pub fn shorten(text: &str) -> Cow<'_, str> {
    // Every character takes a byte at least.
    if text.len() <= LONGEST || text.chars().nth(LONGEST).is_none() {
        return Cow::Borrowed(text);
    }
    let count = text.chars().count();
    let part = LONGEST / 2 - 20;
    let begin: String = text.chars().take(part).collect();
    let end: String = text.chars().skip(count - part).collect();
    Cow::Owned(format!("{begin}… ({count} characters) …{end}"))
}

/// The first entries, each shortened, between commas, and how many there are beyond them.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<Cow<'_, str>> = names.iter().take(LISTED).map(|name| shorten(name.as_ref())).collect();
    let mut text = shown.join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}

/// The beginning of a text of a file, to be quoted: without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    const QUOTED: usize = 60;
    let plain = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(QUOTED).map(plain).collect();
    if characters.next().is_some() { start + "…" } else { start }
}

/// What `value` prints, shortened.
pub(crate) fn shown(value: impl Display) -> String {
    shorten(&value.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_long_is_shortened() {
        let fits = "é".repeat(LONGEST);
        assert_eq!(shorten(&fits), fits);
        let longer = fits + "!";
        let shown = shorten(&longer);
        assert!(shown.chars().count() < LONGEST + 10, "{shown}");
        assert!(shown.starts_with("éé") && shown.ends_with("é!") && shown.contains("(201 characters)"));
    }

    #[test]
    fn excerpts_have_no_control_characters() {
        assert_eq!(excerpt("a\u{1b}[31m\n\u{202e}\"é\\"), "a\\u{1b}[31m\\n\\u{202e}\"é\\");
        let cut = excerpt(&"é".repeat(61));
        assert_eq!((cut.chars().count(), cut.ends_with("é…")), (61, true));
    }

    #[test]
    fn long_lists_are_counted() {
        let names: Vec<String> = (0..12).map(|i| format!("s{i}")).collect();
        assert_eq!(list(&names[..2]), "s0, s1");
        assert_eq!(list(&names[..10]), "s0, s1, s2, s3, s4, s5, s6, s7, s8, s9");
        assert!(list(&names).ends_with("s9 and 2 more"));
        assert!(list(&["x".repeat(5000)]).len() < 300);
    }
}
