//! Groups, their options, and the alternatives in them.

use super::{DEPTH, Flags, Read, Reader};

impl Reader {
    /// Alternatives up to the end of their group.
    pub(super) fn alternatives(&mut self, mut flags: Flags, depth: usize) -> Read<String> {
        if depth > DEPTH {
            return Err(format!("groups within groups, more than {DEPTH}"));
        }
        let mut text = String::new();
        let mut open = 0;
        loop {
            self.skip(flags)?;
            match self.peek() {
                None | Some(')') => break,
                Some('|') => {
                    self.at += 1;
                    self.last = None;
                    text.push('|');
                }
                Some('(') => {
                    let start = self.at;
                    match self.options(flags)? {
                        // The rest of the group, further alternatives included, has the options.
                        Some((inner, options, true)) => {
                            flags = inner;
                            if depth > 0 || start > 0 {
                                open += 1;
                                text += &format!("(?{options}:");
                            } else if !options.is_empty() {
                                text += &format!("(?{options})");
                            }
                        }
                        Some((inner, options, false)) => {
                            let group = format!("(?{options}:{})", self.group(inner, depth)?);
                            text += &self.repeated(group, flags)?;
                        }
                        None => {
                            let group = self.open()?;
                            let group = format!("{group}{})", self.group(flags, depth)?);
                            text += &self.repeated(group, flags)?;
                        }
                    }
                }
                Some(_) => {
                    let atom = self.atom(flags, depth)?;
                    text += &self.repeated(atom, flags)?;
                }
            }
        }
        text.extend(std::iter::repeat_n(')', open));
        Ok(text)
    }

    /// What is in a group, whose end is read.
    fn group(&mut self, flags: Flags, depth: usize) -> Read<String> {
        let text = self.alternatives(flags, depth + 1)?;
        if self.eat(")") { Ok(text) } else { Err("a group without an end".to_owned()) }
    }

    /// Reads `(?i)` or `(?i:`: the flags after it, the options in the syntax here, whether it ends at once.
    fn options(&mut self, mut flags: Flags) -> Read<Option<(Flags, String, bool)>> {
        let start = self.at;
        let (mut on, mut off, mut value) = (String::new(), String::new(), true);
        if !self.eat("(?") || !matches!(self.peek(), Some('i' | 'm' | 'x' | '-')) {
            self.at = start;
            return Ok(None);
        }
        loop {
            let letter = match self.next() {
                Some('-') => {
                    value = false;
                    continue;
                }
                Some('x') => {
                    flags.extended = value;
                    continue;
                }
                Some('i') => {
                    flags.ignore_case = value;
                    'i'
                }
                Some('m') => 's',
                Some(end @ (')' | ':')) => {
                    let off = if off.is_empty() { off } else { format!("-{off}") };
                    return Ok(Some((flags, on + &off, end == ')')));
                }
                _ => return Err(format!("the option `{}`", self.text(start))),
            };
            (if value { &mut on } else { &mut off }).push(letter);
        }
    }

    /// Reads the beginning of a group without options.
    fn open(&mut self) -> Read<String> {
        let start = self.at;
        for plain in ["(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"] {
            if self.eat(plain) {
                return Ok(plain.to_owned());
            }
        }
        let end = match (self.eat("(?<"), self.eat("(?'")) {
            (true, _) => '>',
            (_, true) => '\'',
            _ if self.eat("(?") || self.eat("(*") => {
                self.at += usize::from(self.peek().is_some());
                return Err(format!("the group `{}…`", self.text(start)));
            }
            _ => {
                self.at += 1;
                self.groups += 1;
                return Ok("(".to_owned());
            }
        };
        while let Some(next) = self.next() {
            if next == end {
                self.groups += 1;
                return Ok(self.text(start));
            }
        }
        Err("a name of a group without an end".to_owned())
    }
}
