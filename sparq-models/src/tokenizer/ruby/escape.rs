//! Escapes: what stands behind a backslash.

use super::{
    Read, Reader,
    set::{Set, WORD, WORD_ALONE},
};

/// A break between lines of any kind.
const LINE_BREAK: &str = r"(?>\r\n|[\n\x0B\f\r\x{85}\x{2028}\x{2029}])";

/// What an escape stands for.
pub(super) enum Escape {
    Char(char),
    Set(Set),
    Pattern(String),
}

/// Whether an escape by this character means the same in both syntaxes.
pub(super) fn keeps_escape(c: char) -> bool {
    matches!(c, 'n' | 'r' | 't' | 'f' | 'v') || c.is_ascii_punctuation() && !matches!(c, '<' | '>')
}

impl Reader {
    /// What stands for the escape whose backslash is read.
    pub(super) fn escape(&mut self, in_class: bool) -> Read<Escape> {
        let start = self.at - 1;
        let Some(c) = self.next() else {
            return Err("a backslash at the end".to_owned());
        };
        let set = |set| Ok(Escape::Set(set));
        let verbatim = |c: char| set(Set::new(format!("\\{c}"), false).caseless());
        let pattern = |text: &str| Ok(Escape::Pattern(text.to_owned()));
        match c {
            't' => Ok(Escape::Char('\t')),
            'n' => Ok(Escape::Char('\n')),
            'r' => Ok(Escape::Char('\r')),
            'f' => Ok(Escape::Char('\x0C')),
            'a' => Ok(Escape::Char('\x07')),
            'e' => Ok(Escape::Char('\x1B')),
            'v' => Ok(Escape::Char('\x0B')),
            'b' if in_class => Ok(Escape::Char('\x08')),
            'd' | 'D' | 's' | 'S' => verbatim(c),
            'w' | 'W' if in_class => set(Set::new(WORD, c == 'W')),
            'w' | 'W' => set(Set::new(format!("{WORD}{WORD_ALONE}"), c == 'W')),
            'h' | 'H' => set(Set::new("0-9A-Fa-f", c == 'H').caseless()),
            'p' | 'P' if self.eat("{") => self.property(c == 'P', in_class).map(Escape::Set),
            'x' | 'u' | 'o' | '0' => self.code(c).map(Escape::Char),
            'c' | 'C' | 'M' => Err(format!("`\\{c}`")),
            '1'..='7' if in_class => {
                self.at -= 1;
                self.code('0').map(Escape::Char)
            }
            _ if in_class => Ok(Escape::Char(c)),
            'b' | 'B' => {
                let word = format!("(?-i:[{WORD}{WORD_ALONE}])");
                let (a, b) = if c == 'b' { ("!", "=") } else { ("=", "!") };
                Ok(Escape::Pattern(format!("(?:(?<={word})(?{a}{word})|(?<!{word})(?{b}{word}))")))
            }
            'A' => pattern(r"\A"),
            'z' => pattern(r"\z"),
            'Z' => pattern(r"(?=\n?\z)"),
            'R' => pattern(LINE_BREAK),
            'N' => set(Set::new(r"\n", true).caseless()),
            'O' => pattern("(?s:.)"),
            'k' if matches!(self.peek(), Some('<' | '\'')) => {
                let end = if self.next() == Some('<') { '>' } else { '\'' };
                while self.next().is_some_and(|next| next != end) {}
                Ok(Escape::Pattern(self.text(start)))
            }
            '1'..='9' => {
                while self.peek().is_some_and(|next| next.is_ascii_digit()) {
                    self.at += 1;
                }
                let text = self.text(start);
                match text[1..].parse::<usize>() {
                    Ok(group) if group <= self.groups => Ok(Escape::Pattern(format!("(?:{text})"))),
                    _ => Err(format!("`{text}`")),
                }
            }
            'G' | 'K' | 'X' | 'y' | 'Y' | 'g' => Err(format!("`\\{c}`")),
            c => Ok(Escape::Char(c)),
        }
    }

    /// A character by its number: `\xHH`, `\x{H…}`, `\uHHHH`, `\o{O…}`, `\0OO`.
    fn code(&mut self, kind: char) -> Read<char> {
        let start = self.at;
        let in_braces = matches!(kind, 'x' | 'o') && self.eat("{");
        let (radix, most) = match kind {
            'x' => (16, if in_braces { 8 } else { 2 }),
            'u' => (16, 4),
            'o' if !in_braces => return Ok('o'),
            'o' => (8, 11),
            _ => (8, if self.pattern[start - 1] == '0' { 2 } else { 3 }),
        };
        let from = self.at;
        while self.at - from < most && self.peek().is_some_and(|c| c.is_digit(radix)) {
            self.at += 1;
        }
        let digits = self.text(from);
        let is_whole = match kind {
            'u' => digits.len() == 4,
            _ if in_braces => !digits.is_empty() && self.eat("}"),
            'x' => !digits.is_empty(),
            _ => true,
        };
        let digits = if digits.is_empty() { "0" } else { &digits };
        let code = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        // Without braces it is a byte of a character.
        let is_byte = !in_braces && kind != 'u';
        match code.filter(|&c| is_whole && (!is_byte || c.is_ascii())) {
            Some(c) => Ok(c),
            None => Err(format!("the character `\\{kind}{}`", self.text(start))),
        }
    }
}
