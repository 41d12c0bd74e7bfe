//! Upper and lower case as Python's methods make them.

/// The characters of a text, each with its lower case: that of a sigma depends on where it stands. `lower` is the
/// text in lower case.
fn lowered<'a>(text: &'a str, lower: &'a str) -> impl Iterator<Item = (char, &'a str)> {
    let mut rest = lower;
    text.chars().map(move |c| {
        let length: usize = c.to_lowercase().map(char::len_utf8).sum();
        let (own, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
        rest = behind;
        (c, own)
    })
}

/// `text.capitalize()`.
pub(in crate::tokenizer::template) fn capitalize(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut out = String::with_capacity(text.len());
    for (index, (c, lower)) in lowered(text, &lower).enumerate() {
        match index {
            0 => out.push_str(&title_case(c)),
            _ => out.push_str(lower),
        }
    }
    out
}

/// `text.title()`: every run of letters.
pub(super) fn title(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for (c, lower) in lowered(text, &lower) {
        match inside {
            true => out.push_str(lower),
            false => out.push_str(&title_case(c)),
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// `text.swapcase()`.
pub(super) fn swap_case(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut out = String::with_capacity(text.len());
    for (c, lower) in lowered(text, &lower) {
        match (c.is_uppercase(), c.is_lowercase()) {
            (true, _) => out.push_str(lower),
            (_, true) => out.extend(c.to_uppercase()),
            _ => out.push(c),
        }
    }
    out
}

/// A character without its case.
pub(super) fn fold(c: char) -> String {
    match c {
        'ẞ' => "ss".to_owned(),
        'ı' => c.to_string(),
        // Cherokee folds to its capitals.
        '\u{13a0}'..='\u{13f5}' => c.to_string(),
        '\u{13f8}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => c.to_uppercase().collect(),
        c => c.to_uppercase().collect::<String>().chars().flat_map(char::to_lowercase).collect(),
    }
}

/// The form of a character that begins a word.
fn title_case(c: char) -> String {
    let upper = c.to_uppercase().collect::<String>();
    match c {
        'Ǆ' | 'ǅ' | 'ǆ' => "ǅ".to_owned(),
        'Ǉ' | 'ǈ' | 'ǉ' => "ǈ".to_owned(),
        'Ǌ' | 'ǋ' | 'ǌ' => "ǋ".to_owned(),
        'Ǳ' | 'ǲ' | 'ǳ' => "ǲ".to_owned(),
        'ß' | 'և' | 'ﬀ'..='ﬗ' => {
            let mut chars = upper.chars();
            chars.next().into_iter().chain(chars.flat_map(char::to_lowercase)).collect()
        }
        _ => upper,
    }
}
