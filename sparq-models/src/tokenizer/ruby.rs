//! Regular expressions of `tokenizer.json` in the syntax that they are written in, Ruby's, put into that of the
//! matcher here.
//!
//! Both know the same signs, and mean other things by some: how often a piece repeats, what a line or a word
//! is, what a class holds. A pattern that means the same in both comes back as it is.

mod atom;
mod class;
mod escape;
mod group;
mod repeat;
mod set;

/// Something read, or what is wrong with it.
type Read<T> = Result<T, String>;

/// How deep groups and classes nest at most.
const DEPTH: usize = 60;

/// The pattern for the matcher here that means what `pattern` means in Ruby's syntax.
///
/// # Errors
///
/// What there is no such pattern for; [`refusal`] makes a message of it.
pub(super) fn translate(pattern: &str) -> Read<String> {
    let mut reader = Reader { pattern: pattern.chars().collect(), at: 0, groups: 0, last: None };
    let text = reader.alternatives(Flags::default(), 0)?;
    match reader.peek() {
        None => Ok(text),
        Some(_) => Err("a `)` that closes no group".to_owned()),
    }
}

/// The message about a pattern that there is no other for.
pub(super) fn refusal(pattern: &str, error: &str) -> String {
    format!("pattern `{pattern}`: {error} is not built")
}

/// Options that change how a part of a pattern is read.
#[derive(Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    /// Blanks and comments do not count.
    extended: bool,
}

struct Reader {
    pattern: Vec<char>,
    at: usize,
    /// Groups that were opened so far and can be referred to.
    groups: usize,
    /// The letter before, where case is ignored.
    last: Option<char>,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.pattern.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.pattern[self.at..].iter().copied().take(text.chars().count()).eq(text.chars());
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn text(&self, from: usize) -> String {
        self.pattern[from..self.at].iter().collect()
    }

    /// Skips what is not part of the pattern.
    fn skip(&mut self, flags: Flags) -> Read<()> {
        loop {
            if self.eat("(?#") {
                loop {
                    match self.next() {
                        Some('\\') => drop(self.next()),
                        Some(')') => break,
                        Some(_) => {}
                        None => return Err("a comment without an end".to_owned()),
                    }
                }
            } else if flags.extended && self.peek().is_some_and(char::is_whitespace) {
                self.at += 1;
            } else if flags.extended && self.eat("#") {
                while self.next().is_some_and(|next| next != '\n') {}
            } else {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
