//! Repetitions.

use super::{Flags, Read, Reader};

/// How often something repeats.
pub(super) struct Repeat {
    text: String,
    is_atomic: bool,
}

impl Reader {
    /// A piece with all the repetitions that follow it: `{1,3}+` is one of another.
    pub(super) fn repeated(&mut self, piece: String, flags: Flags) -> Read<String> {
        let mut text = piece;
        let mut repeats = false;
        loop {
            let at = self.at;
            self.skip(flags)?;
            let Some(repeat) = self.repeat()? else {
                self.at = at;
                return Ok(text);
            };
            if repeats {
                text = format!("(?:{text})");
            }
            text = match repeat.is_atomic {
                true => format!("(?>{text}{})", repeat.text),
                false => text + &repeat.text,
            };
            repeats = true;
        }
    }

    pub(super) fn repeat(&mut self) -> Read<Option<Repeat>> {
        let start = self.at;
        let (is_fixed, is_interval, is_atomic) = match self.peek() {
            Some('?' | '*' | '+') => {
                self.at += 1;
                (false, false, false)
            }
            Some('{') => match self.interval(start)? {
                None => return Ok(None),
                Some((low, high, end)) => {
                    self.at = end;
                    let is_fixed = high == Some(low) && !self.pattern[start..end].contains(&',');
                    match high {
                        Some(high) if high < low => {
                            let text = format!("{{{high},{low}}}");
                            return Ok(Some(Repeat { text, is_atomic: true }));
                        }
                        _ => (is_fixed, true, false),
                    }
                }
            },
            _ => return Ok(None),
        };
        let is_lazy = !is_fixed && self.eat("?");
        if !is_lazy && !is_interval {
            self.eat("+");
        }
        Ok(Some(Repeat { text: self.text(start), is_atomic }))
    }

    /// The bounds of the interval at `start`, and where it ends, if it is one.
    pub(super) fn interval(&self, start: usize) -> Read<Option<(u32, Option<u32>, usize)>> {
        let mut at = start + 1;
        let number = |at: &mut usize| -> Read<Option<u32>> {
            let from = *at;
            while self.pattern.get(*at).is_some_and(char::is_ascii_digit) {
                *at += 1;
            }
            let digits: String = self.pattern[from..*at].iter().collect();
            match digits.is_empty() {
                true => Ok(None),
                false => match digits.parse() {
                    Ok(number) if number <= 100_000 => Ok(Some(number)),
                    _ => Err(format!("{digits} repetitions")),
                },
            }
        };
        let low = number(&mut at)?;
        let high = if self.pattern.get(at) == Some(&',') {
            at += 1;
            let high = number(&mut at)?;
            if low.is_none() && high.is_none() {
                return Ok(None);
            }
            high
        } else if low.is_some() {
            low
        } else {
            return Ok(None);
        };
        let is_closed = self.pattern.get(at) == Some(&'}');
        Ok(is_closed.then_some((low.unwrap_or(0), high, at + 1)))
    }
}
