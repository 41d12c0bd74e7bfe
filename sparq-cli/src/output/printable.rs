//! Text of the input on its way to a terminal: nothing in it is a command to the terminal, and nothing
//! floods it.

/// Characters of the longest name in a message.
const NAME: usize = 200;
/// Characters that a shortened name keeps of its beginning and of its end.
const ENDS: (usize, usize) = (150, 40);
/// Characters of the longest text in a table.
const CELL: usize = 100;

/// The text with its control characters escaped, all but line feeds and tabs. Marks that turn the direction
/// of writing count as such: with them a message could be made to read as another one.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// The text as a part of one line: all control characters escaped, and no longer than a table bears.
pub(crate) fn cell(text: &str) -> String {
    escaped(&shortened(text, CELL), |_| false)
}

/// JSON whose strings hold no control characters: the form escapes those below a blank only.
pub(crate) fn json(text: &str) -> String {
    let one = |c: char| match c {
        '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
        other => other.to_string(),
    };
    text.chars().map(one).collect()
}

/// A message whose names (what stands between backticks, and words) are cut to a sensible length.
pub(crate) fn with_short_names(message: &str) -> String {
    let mut short = String::new();
    for (number, part) in message.split('`').enumerate() {
        if number > 0 {
            short.push('`');
        }
        match number % 2 {
            1 => short += &shortened(part, NAME),
            _ => part.split_inclusive(char::is_whitespace).for_each(|word| short += &shortened(word, NAME)),
        }
    }
    short
}

/// The beginning of a text, and how much more there is where it is longer than `bytes`.
pub(crate) fn limited(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes);
    format!("{} … ({} bytes more)", &text[..end], text.len() - end)
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match (c.is_control() || turns) && !kept(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe
}

fn shortened(name: &str, longest: usize) -> String {
    // A name has at least as many bytes as characters, so most are not counted.
    if name.len() <= longest || name.chars().count() <= longest {
        return name.to_owned();
    }
    let (head, tail) = (ENDS.0 * longest / NAME, ENDS.1 * longest / NAME);
    let cut = |n: usize| name.char_indices().nth(n).map_or(name.len(), |(at, _)| at);
    let tail = name.char_indices().rev().nth(tail.saturating_sub(1)).map_or(0, |(at, _)| at);
    format!("{}…{}", &name[..cut(head)], &name[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(printable("a\x1b[31mred\x07\n\tb\r\u{9b}2J"), "a\\u{1b}[31mred\\u{7}\n\tb\\r\\u{9b}2J");
        assert_eq!(printable("ab\u{202e}cd"), "ab\\u{202e}cd");
        assert_eq!(printable("größe 漢字 🦀"), "größe 漢字 🦀");
        assert_eq!(cell("a\nb\t"), "a\\nb\\t");
        assert_eq!(json("\"a\u{7f}\u{9b}ä\""), "\"a\\u007f\\u009bä\"");
    }

    #[test]
    fn long_names_keep_both_ends() {
        let name = format!("begin{}end", "x".repeat(1_000_000));
        for message in [format!("tensor `{name}` is missing"), format!("tensor {name} is missing")] {
            let short = with_short_names(&message);
            assert!(short.contains("beginxxx") && short.contains("xxend"), "{short}");
            assert!(short.ends_with(" is missing") && short.chars().count() < 250, "{short}");
        }
        let plain = "`a` is `b`: read the page, then `c";
        assert_eq!(with_short_names(plain), plain);
        assert_eq!(with_short_names(&"ä".repeat(200)), "ä".repeat(200));
        assert_eq!(cell(&"ä".repeat(101)), format!("{}…{}", "ä".repeat(75), "ä".repeat(20)));
    }

    #[test]
    fn a_long_text_says_how_much_is_left_out() {
        assert_eq!(limited("abc", 3), "abc");
        assert_eq!(limited("aää", 2), "a … (4 bytes more)");
    }
}
