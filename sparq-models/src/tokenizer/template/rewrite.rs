//! A template as Jinja2 reads it, written so that minijinja does the same.
//!
//! minijinja is close to Jinja2, but some of Python's meanings are out of its hooks' reach: `%` on texts, `+`
//! on values, loops over texts, methods that a key hides, line breaks, escapes. Such places are replaced by
//! calls of the functions in [`super::operators`], the rest stays as it is, line breaks included, and every
//! place in the new text is known in the old one, for messages.

mod expression;
mod lexer;
mod names;
mod statement;

#[cfg(test)]
mod tests;

use lexer::{Part, parts};
pub(super) use names::{Mention, Name};

/// Deepest nesting of an expression, and of blocks with their `elif`s: minijinja recurses that deep.
const DEPTH: usize = 120;

/// Why a template is no Jinja2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// What is wrong.
    pub(super) message: String,
    /// Where it is, in bytes of the template.
    pub(super) range: std::ops::Range<usize>,
}

impl SyntaxError {
    fn new(range: std::ops::Range<usize>, message: impl Into<String>) -> Self {
        Self { message: message.into(), range }
    }
}

/// A piece of the source that is replaced.
#[derive(Debug)]
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// The replacements of a template.
///
/// Several may be put at one place: what opens goes outside of what opened there before, what closes goes
/// behind what closed there before.
#[derive(Debug, Default)]
struct Edits {
    opened: Vec<Edit>,
    others: Vec<Edit>,
    /// Filters, tests, functions and methods that the template names.
    mentions: Vec<Mention>,
}

impl Edits {
    fn replace(&mut self, start: usize, end: usize, text: impl Into<String>) {
        self.others.push(Edit { start, end, text: text.into() });
    }

    fn open(&mut self, at: usize, text: impl Into<String>) {
        self.opened.push(Edit { start: at, end: at, text: text.into() });
    }

    fn close(&mut self, at: usize, text: impl Into<String>) {
        self.replace(at, at, text);
    }

    /// How many there are; see [`since`](Self::since).
    fn count(&self) -> (usize, usize) {
        (self.opened.len(), self.others.len())
    }

    /// Takes out those that were made since they were counted.
    fn since(&mut self, (opened, others): (usize, usize)) -> Self {
        Self {
            opened: self.opened.split_off(opened),
            others: self.others.split_off(others),
            mentions: vec![],
        }
    }

    /// In the order of their places.
    fn sorted(self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = self.opened.into_iter().rev().chain(self.others).collect();
        // Stable: those at one place keep their order.
        edits.sort_by_key(|edit| edit.start);
        edits
    }
}

/// A template that minijinja takes, and where its pieces come from.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The template with line breaks as Jinja2 makes them.
    pub(super) source: String,
    /// The same for minijinja.
    pub(super) text: String,
    /// Places in both texts, ascending, between which they run alike.
    anchors: Vec<(usize, usize)>,
    /// Filters, tests, functions and methods that it names.
    pub(super) mentions: Vec<Mention>,
}

impl Rewritten {
    /// Reads a template.
    pub(super) fn new(source: &str) -> Result<Self, (String, SyntaxError)> {
        let source = normalize(source);
        match edits(&source) {
            Ok(mut edits) => {
                let mentions = std::mem::take(&mut edits.mentions);
                let (text, anchors) = apply(&source, 0..source.len(), edits);
                Ok(Self { source, text, anchors, mentions })
            }
            Err(error) => Err((source, error)),
        }
    }

    /// The piece of the source that a piece of the text comes from.
    pub(super) fn range(&self, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let place = |at: usize, round_up: bool| {
            let index = self.anchors.partition_point(|&(text, _)| text <= at);
            let (text, source) = index.checked_sub(1).map_or((0, 0), |index| self.anchors[index]);
            let next = self.anchors.get(index).map_or(self.source.len(), |&(_, source)| source);
            match source + (at - text) {
                inside if inside <= next => inside,
                _ if round_up => next,
                _ => source.min(next),
            }
        };
        let start = place(range.start, false);
        start..place(range.end, true).max(start)
    }
}

/// Line breaks as Jinja2 makes them: all alike, and the last one gone.
fn normalize(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    source.strip_suffix('\n').map(str::to_owned).unwrap_or(source)
}

fn edits(source: &str) -> Result<Edits, SyntaxError> {
    separators(source)?;
    let mut edits = Edits::default();
    let mut blocks = statement::Blocks::new(names::has_break(source));
    let defaults = names::macros_have_defaults(source);
    for part in parts(source) {
        let mentioned = edits.mentions.len();
        match part? {
            // minijinja drops a line break behind `{% raw %}`.
            Part::Raw { end } => edits.close(end, "+"),
            Part::Output { tokens, range } => {
                let mut parser = expression::Parser::new(source, &tokens, range, &mut edits, defaults);
                parser.hidden = blocks.hidden();
                parser.output()?;
            }
            Part::Statement { tokens, range } => {
                let mut parser = expression::Parser::new(source, &tokens, range, &mut edits, defaults);
                parser.hidden = blocks.hidden();
                blocks.statement(parser)?;
            }
        }
        let conditional = blocks.in_condition();
        edits.mentions[mentioned..].iter_mut().for_each(|mention| mention.conditional |= conditional);
    }
    blocks.end(source)?;
    Ok(edits)
}

/// Refuses separators of ASCII beside a tag: they are white space to Jinja2, which a tag may strip, and none to
/// minijinja.
fn separators(source: &str) -> Result<(), SyntaxError> {
    let separator = |c: char| ('\x1c'..='\x1f').contains(&c);
    let space = |c: char| c.is_whitespace() || separator(c);
    let mut from = 0;
    while let Some(at) = source[from..].find(separator).map(|found| from + found) {
        let before = source[..at].trim_end_matches(space);
        let behind = source[at..].trim_start_matches(space);
        from = source.len() - behind.len();
        let beside = ["-%}", "-}}", "-#}"].iter().any(|end| before.ends_with(end))
            || ["{%", "{{-", "{#"].iter().any(|start| behind.starts_with(start));
        if beside {
            let code = source.as_bytes()[at];
            let message = format!("the character U+{code:04X} beside a tag is not supported");
            return Err(SyntaxError::new(at..at + 1, message));
        }
    }
    Ok(())
}

/// A piece of the source with its replacements, and the places where both run alike.
fn apply(source: &str, range: std::ops::Range<usize>, edits: Edits) -> (String, Vec<(usize, usize)>) {
    let mut text = String::with_capacity(range.len() + range.len() / 8);
    let mut anchors = vec![(0, range.start)];
    let mut done = range.start;
    for edit in edits.sorted() {
        text.push_str(&source[done..edit.start]);
        anchors.push((text.len(), edit.start));
        // What was a bracket may become a word, which must not join the one before it.
        let word = |c: char| c == '_' || c.is_alphanumeric();
        if edit.text.starts_with(word) && text.ends_with(word) {
            text.push(' ');
        }
        text.push_str(&edit.text);
        anchors.push((text.len(), edit.end));
        done = edit.end;
    }
    text.push_str(&source[done..range.end]);
    (text, anchors)
}
