//! Messages of several lines: between `"""` and `"""`, or lines that end in a backslash.

use anyhow::bail;

use super::Typed;

/// Begins and ends a text in which line breaks and slashes are as they stand.
const MARK: &str = "\"\"\"";

/// Lines on their way to a message.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What comes before the mark: `/system ` or nothing. `None` outside of marks.
    head: Option<String>,
    /// The lines so far, each with its break.
    text: String,
}

impl Block {
    /// Whether no line is waiting for the next one.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none() && self.text.is_empty()
    }

    /// Takes a line, without its break. The whole text with the last one.
    pub(super) fn push(&mut self, line: &str) -> Option<Typed> {
        let mut line = line;
        if self.is_empty()
            && let Some((head, rest)) = opening(line)
        {
            self.head = Some(head);
            // A break right behind the mark is not part of the text.
            if rest.trim().is_empty() {
                return None;
            }
            line = rest;
        }
        if let Some(head) = &self.head {
            let Some(end) = line.trim_end().strip_suffix(MARK) else {
                self.text += line;
                self.text.push('\n');
                return None;
            };
            // Nor is one right before it.
            match end.is_empty() {
                true => drop(self.text.pop()),
                false => self.text += end,
            }
            let typed = Typed { text: format!("{head}{}", self.text), literal: head.is_empty(), block: true };
            *self = Self::default();
            return Some(typed);
        }
        let slashes = line.len() - line.trim_end_matches('\\').len();
        if slashes % 2 == 1 {
            self.text += &line[..line.len() - 1];
            self.text.push('\n');
            return None;
        }
        let text = std::mem::take(&mut self.text) + line;
        Some(Typed { text, literal: false, block: false })
    }

    /// Ends the lines.
    ///
    /// # Errors
    /// Where a mark has no counterpart.
    pub(super) fn finish(&mut self) -> anyhow::Result<Option<Typed>> {
        let Self { head, text } = std::mem::take(self);
        if head.is_some() {
            bail!("the text that {MARK} begins has no end: {MARK} ends it");
        }
        Ok((!text.is_empty()).then_some(Typed { text, literal: false, block: false }))
    }
}

/// What stands before and behind a mark that begins a line, or a command's text.
fn opening(line: &str) -> Option<(String, &str)> {
    let line = line.trim_start();
    if let Some(rest) = line.strip_prefix(MARK) {
        return Some((String::new(), rest));
    }
    let (command, rest) =
        line.split_once(char::is_whitespace).filter(|(command, _)| command.starts_with('/'))?;
    Some((format!("{command} "), rest.trim_start().strip_prefix(MARK)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the lines become, literal ones in brackets; lines that are left at the end, or the error.
    fn typed(lines: &[&str]) -> Vec<String> {
        let mut block = Block::default();
        let mut all: Vec<Typed> = lines.iter().filter_map(|line| block.push(line)).collect();
        let rest = block.finish();
        let error = rest.as_ref().err().map(ToString::to_string);
        all.extend(rest.ok().flatten());
        let show = |typed: Typed| if typed.literal { format!("[{}]", typed.text) } else { typed.text };
        all.into_iter().map(show).chain(error).collect()
    }

    #[test]
    fn a_line_is_a_text() {
        assert_eq!(typed(&["one", "", " two "]), ["one", "", " two "]);
    }

    #[test]
    fn a_backslash_goes_on_in_the_next_line() {
        assert_eq!(typed(&["one\\", "", "two"]), ["one\n", "two"]);
        assert_eq!(typed(&["one\\", "two\\", "three", "four"]), ["one\ntwo\nthree", "four"]);
        assert_eq!(typed(&["two\\\\", "and\\\\\\", "on"]), ["two\\\\", "and\\\\\non"]);
        assert_eq!(typed(&["cut off\\"]), ["cut off\n"]);
        assert_eq!(typed(&["one\\", "\"\"\"two"]), ["one\n\"\"\"two"], "marks stand first");
    }

    #[test]
    fn marks_hold_a_text_to_the_letter() {
        assert_eq!(typed(&["\"\"\"one\"\"\"", "two"]), ["[one]", "two"]);
        assert_eq!(
            typed(&["  \"\"\"", "  one\\", "", "/two", "\"\"\"", "three"]),
            ["[  one\\\n\n/two]", "three"]
        );
        assert_eq!(typed(&["\"\"\"one", "two\"\"\"  "]), ["[one\ntwo]"]);
        assert_eq!(typed(&["\"\"\"say \"\"\" here", "end\"\"\""]), ["[say \"\"\" here\nend]"]);
        assert_eq!(typed(&["\"\"\"", "\"\"\"", "\"\"\"\"\"\""]), ["[]", "[]"]);
    }

    #[test]
    fn a_command_takes_a_text_between_marks() {
        assert_eq!(typed(&["/system \"\"\"Be brief.", "Be kind.\"\"\""]), ["/system Be brief.\nBe kind."]);
        assert_eq!(typed(&["/save \"x\"\"\""]), ["/save \"x\"\"\""]);
    }

    #[test]
    fn a_mark_without_its_counterpart_is_an_error() {
        let lines = typed(&["\"\"\"one", "two"]);
        assert!(lines.len() == 1 && lines[0].contains("has no end"), "{lines:?}");
    }
}
