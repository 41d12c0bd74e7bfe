//! Classes of characters.

use super::{
    DEPTH, Flags, Read, Reader,
    escape::{Escape, keeps_escape},
    set::{Set, WORD, WORD_ALONE},
};

/// Sets by the names that POSIX gives them, in a class. `\p{…}` knows them too.
const POSIX: [(&str, &str); 14] = [
    ("alnum", r"\p{Alphabetic}\p{Nd}"),
    ("alpha", r"\p{Alphabetic}"),
    ("ascii", r"\x00-\x7F"),
    ("blank", r"\p{Zs}\t"),
    ("cntrl", r"\p{Cc}"),
    ("digit", r"\p{Nd}"),
    ("graph", r"[^\p{Z}\p{Cc}\p{Cn}]"),
    ("lower", r"\p{Lowercase}"),
    ("print", r"[^\p{Zl}\p{Zp}\p{Cc}\p{Cn}]"),
    ("punct", r"\p{P}\p{S}"),
    ("space", r"\s"),
    ("upper", r"\p{Uppercase}"),
    ("word", WORD),
    ("xdigit", "0-9A-Fa-f"),
];

/// Where a class was read up to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Char,
    Set,
    Complete,
}

impl Reader {
    /// The class whose bracket is read.
    pub(super) fn class(&mut self, flags: Flags, depth: usize) -> Read<String> {
        if depth > DEPTH {
            return Err(format!("classes within classes, more than {DEPTH}"));
        }
        let negated = self.eat("^");
        let mut text = if negated { "[^" } else { "[" }.to_owned();
        let mut state = State::Start;
        let mut is_first = true;
        loop {
            let was_first = std::mem::take(&mut is_first);
            let start = self.at;
            let Some(c) = self.next() else {
                return Err("a class without an end".to_owned());
            };
            match c {
                ']' if !was_first => {
                    return match state {
                        State::Start => Err("a class with an empty side of `&&`".to_owned()),
                        _ => Ok(text + "]"),
                    };
                }
                '[' if self.peek() == Some(':') => {
                    let set = self.posix()?;
                    text += &within(&set, flags, negated)?;
                    state = State::Set;
                }
                '[' if flags.ignore_case => return Err("a class in a class where case is ignored".to_owned()),
                '[' => {
                    text += &self.class(flags, depth + 1)?;
                    state = State::Complete;
                }
                '&' if self.peek() == Some('&') => {
                    if flags.ignore_case || state == State::Start {
                        return Err("`&&` after nothing, or where case is ignored".to_owned());
                    }
                    self.at += 1;
                    text += "&&";
                    state = State::Start;
                }
                '-' if state == State::Set && !self.ends_side() => {
                    return Err("a range from a class of characters".to_owned());
                }
                _ => match self.item(c)? {
                    Escape::Set(set) => {
                        text += &within(&set, flags, negated)?;
                        state = State::Set;
                    }
                    Escape::Pattern(pattern) => return Err(format!("`{pattern}` in a class")),
                    Escape::Char(low) => {
                        text += &self.literal(low, start);
                        state = State::Char;
                        let mut high = low;
                        if self.peek() == Some('-') {
                            self.at += 1;
                            if self.ends_side() {
                                self.at -= 1;
                            } else {
                                let start = self.at;
                                high = match self.next() {
                                    Some(c) if c != '[' => match self.item(c)? {
                                        Escape::Char(high) => high,
                                        _ => return Err("a range to a class of characters".to_owned()),
                                    },
                                    _ => return Err("a range to a class of characters".to_owned()),
                                };
                                text.push('-');
                                text += &self.literal(high, start);
                                state = State::Complete;
                            }
                        }
                        if flags.ignore_case && !negated {
                            (low..=high).try_for_each(check_case)?;
                        }
                    }
                },
            }
        }
    }

    /// Whether a class, or its side of `&&`, ends here.
    fn ends_side(&self) -> bool {
        let rest = &self.pattern[self.at..];
        rest.starts_with(&[']']) || rest.starts_with(&['&', '&'])
    }

    fn item(&mut self, c: char) -> Read<Escape> {
        if c == '\\' { self.escape(true) } else { Ok(Escape::Char(c)) }
    }

    /// A character in a class, as written at `start` where that can stay.
    fn literal(&self, c: char, start: usize) -> String {
        let written = &self.pattern[start..self.at];
        let doubles = matches!(c, '&' | '~') && self.peek() == Some(c);
        let begins = c == '^' && matches!(self.pattern[start - 1], '[' | '^' | '&');
        match written {
            ['\\', letter] if keeps_escape(*letter) => format!("\\{letter}"),
            _ if matches!(c, '[' | ']' | '\\' | '-') || doubles || begins => format!("\\{c}"),
            ['\\', ..] if c.is_control() => format!(r"\x{{{:X}}}", u32::from(c)),
            _ => c.to_string(),
        }
    }

    /// The set `[:name:]` whose first bracket is read.
    fn posix(&mut self) -> Read<Set> {
        self.at += 1;
        let negated = self.eat("^");
        let found = POSIX.iter().find(|(name, _)| self.eat(&format!("{name}:]")));
        let Some(&(name, items)) = found else {
            let rest: String = self.pattern[self.at..].iter().take_while(|&&c| c != ']').collect();
            return Err(format!("the class `[:{rest}]`"));
        };
        Ok(Set { is_caseless: is_caseless(name), ..Set::new(items, negated) })
    }

    /// The set `\p{name}` whose first brace is read.
    pub(super) fn property(&mut self, negated: bool, in_class: bool) -> Read<Set> {
        let negated = self.eat("^") != negated;
        let start = self.at;
        while self.next().is_some_and(|c| c != '}') {}
        let text = self.text(start);
        let Some(name) = text.strip_suffix('}') else {
            return Err(format!(r"the property `\p{{{text}`"));
        };
        let plain: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect();
        let plain = plain.to_ascii_lowercase();
        let items = match POSIX.iter().find(|(name, _)| *name == plain) {
            // Unlike `[:punct:]`.
            _ if plain == "punct" => r"\p{P}".to_owned(),
            _ if plain == "word" && !in_class => format!("{WORD}{WORD_ALONE}"),
            Some((_, items)) => (*items).to_owned(),
            None => {
                let letter = if negated { 'P' } else { 'p' };
                let set = Set::new(format!(r"\{letter}{{{name}}}"), false);
                return Ok(Set { is_caseless: is_caseless(&plain), ..set });
            }
        };
        Ok(Set { is_caseless: is_caseless(&plain), ..Set::new(items, negated) })
    }
}

/// A set in a class. The classes of both syntaxes differ in some sets where case is ignored.
fn within(set: &Set, flags: Flags, negated: bool) -> Read<String> {
    let is_positive = !set.negated && !set.items.starts_with(r"\P") && !set.items.starts_with("[^");
    let is_positive = is_positive && !matches!(&*set.items, r"\S" | r"\D");
    if flags.ignore_case && !(is_positive && (negated || set.is_caseless) || negated && set.is_caseless) {
        return Err(format!("`{}` in a class where case is ignored", set.in_class()));
    }
    Ok(set.in_class())
}

/// Whether a set by name has every character's other case.
fn is_caseless(name: &str) -> bool {
    const NAMES: [&str; 6] = ["blank", "cntrl", "digit", "punct", "space", "xdigit"];
    name.len() <= 2 && name.starts_with(['n', 'p', 'z']) || NAMES.contains(&name)
}

/// The one character that a character becomes where case is ignored.
fn fold(c: char) -> char {
    let upper = c.to_uppercase().next().unwrap_or(c);
    upper.to_lowercase().next().unwrap_or(c)
}

/// Refuses a character that two or three others stand for where case is ignored.
pub(super) fn check_case(c: char) -> Read<()> {
    match c == 'ẞ' || c.to_uppercase().count() > 1 || c.to_lowercase().count() > 1 {
        true => Err(format!("`{c}` where case is ignored, which stands for several letters")),
        false => Ok(()),
    }
}

/// Refuses two characters that stand for a single one where case is ignored.
pub(super) fn check_pair(before: Option<char>, c: char) -> Read<()> {
    let Some(before) = before else { return Ok(()) };
    let is_one = match (fold(before), fold(c)) {
        ('f', 'f' | 'i' | 'l') | ('s', 's' | 't') | ('ʼ', 'n') | ('a', 'ʾ') => true,
        ('մ', 'ն' | 'ե' | 'ի' | 'խ') | ('վ', 'ն') | ('ե', 'ւ') => true,
        (_, c) => matches!(
            c,
            '\u{300}'
                | '\u{301}'
                | '\u{307}'
                | '\u{308}'
                | '\u{30A}'
                | '\u{30C}'
                | '\u{313}'
                | '\u{331}'
                | '\u{342}'
                | 'ι'
        ),
    };
    match is_one {
        true => Err(format!("`{before}{c}` where case is ignored, which a single letter stands for")),
        false => Ok(()),
    }
}
