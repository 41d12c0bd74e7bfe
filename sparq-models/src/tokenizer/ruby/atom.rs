//! The pieces of a pattern that are no groups.

use super::{
    Flags, Read, Reader, class,
    escape::{Escape, keeps_escape},
};

impl Reader {
    /// One piece of a pattern that is no group.
    pub(super) fn atom(&mut self, flags: Flags, depth: usize) -> Read<String> {
        let start = self.at;
        let last = self.last.take();
        let c = match self.next() {
            Some('^') => return Ok(r"(?:\A|(?<=\n)(?!\z))".to_owned()),
            Some('$') => return Ok("(?m:$)".to_owned()),
            Some('.') => return Ok(".".to_owned()),
            Some('[') => return self.class(flags, depth + 1),
            Some('*' | '+' | '?') => return Err("a repetition of nothing".to_owned()),
            Some('{') if self.interval(start)?.is_some() => return Err("a repetition of nothing".to_owned()),
            Some('\\') => match self.escape(false)? {
                Escape::Pattern(text) if flags.ignore_case && self.is_reference(start) => {
                    return Err(format!("`{text}` where case is ignored"));
                }
                Escape::Pattern(text) => return Ok(text),
                Escape::Set(set) => return Ok(set.alone(flags)),
                Escape::Char(c) => c,
            },
            Some(c) => c,
            None => return Ok(String::new()),
        };
        if flags.ignore_case {
            class::check_case(c)?;
            self.skip(flags)?;
            let at = self.at;
            let repeats = self.repeat()?.is_some();
            self.at = at;
            if !repeats {
                self.last = Some(c);
                class::check_pair(last, c)?;
            }
        }
        let is_escaped = self.pattern[start] == '\\';
        Ok(match self.pattern.get(start + 1) {
            Some(&letter) if is_escaped && keeps_escape(letter) => format!("\\{letter}"),
            _ if r"\.+*?()|[{^$".contains(c) => format!("\\{c}"),
            _ => c.to_string(),
        })
    }

    fn is_reference(&self, start: usize) -> bool {
        self.pattern.get(start + 1).is_some_and(|&c| c == 'k' || c.is_ascii_digit())
    }
}
