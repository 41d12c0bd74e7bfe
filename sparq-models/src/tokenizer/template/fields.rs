//! `str.format`: texts with fields in braces, one by one, as Python's `string.Formatter` reads them.

use minijinja::{Error, Value, value::Kwargs};

use super::arguments::split;
use super::format::{check_length, invalid, text_of, write_ascii, write_repr};
use super::operators::attribute;
use super::spec::format_value;

/// Formats nested in formats.
const DEPTH: usize = 2;

/// `text.format(arguments…)`.
pub(super) fn format(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (placed, named) = split(arguments)?;
    let mut fields = Fields { placed, named, next: Some(0) };
    fields.text(text, DEPTH).map(Value::from)
}

/// What fields are filled with.
struct Fields<'a> {
    placed: &'a [Value],
    named: Option<Kwargs>,
    /// The number of the next field without one; `None` once one has a number.
    next: Option<usize>,
}

impl Fields<'_> {
    fn text(&mut self, text: &str, depth: usize) -> Result<String, Error> {
        if depth == 0 {
            return Err(invalid("a format is nested too deeply"));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                out.push_str(brace);
                rest = behind;
                continue;
            }
            if brace == "}" || behind.is_empty() {
                return Err(invalid(format!("single `{brace}` in a format")));
            }
            let (field, behind) = Field::read(behind)?;
            rest = behind;
            let value = self.value(field.name)?;
            let value = match field.conversion {
                None => value,
                Some('s') => Value::from(text_of(&value)?),
                Some('r') => converted(&value, write_repr)?,
                Some('a') => converted(&value, write_ascii)?,
                Some(other) => {
                    return Err(invalid(format!("`!{other}` of a format is none of `!r`, `!s`, `!a`")));
                }
            };
            let spec = self.text(field.spec, depth - 1).or_else(|error| match field.spec {
                "" => Ok(String::new()),
                _ => Err(error),
            })?;
            out.push_str(&format_value(&value, &spec)?);
            check_length(Some(out.len()))?;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What `0.name[key]` stands for.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let (first, mut path) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
        let missing = || invalid(format!("format: there is no argument for `{{{name}}}`"));
        let number = match (first.is_empty() && path.is_empty(), index(first)) {
            (true, _) => {
                let next = self.next.ok_or_else(mixed)?;
                self.next = Some(next + 1);
                Some(next)
            }
            (false, Some(number)) => {
                if self.next.is_some_and(|next| next > 0) {
                    return Err(mixed());
                }
                self.next = None;
                Some(number)
            }
            (false, None) => None,
        };
        let mut value = match (number, &self.named) {
            (Some(number), _) => self.placed.get(number).cloned().ok_or_else(missing)?,
            (None, Some(named)) if named.has(first) => named.peek(first)?,
            _ => return Err(missing()),
        };
        while !path.is_empty() {
            let wrong = || invalid(format!("`{{{name}}}` is no field of a format"));
            if let Some(behind) = path.strip_prefix('.') {
                let (part, behind) = behind.split_at(behind.find(['.', '[']).unwrap_or(behind.len()));
                value = attribute(value, part.to_owned())?;
                path = behind;
                if part.is_empty() {
                    return Err(wrong());
                }
            } else {
                let (part, behind) = path[1..].split_once(']').ok_or_else(wrong)?;
                if part.is_empty() || !(behind.is_empty() || behind.starts_with(['.', '['])) {
                    return Err(wrong());
                }
                value = value.get_item(&index(part).map_or_else(|| Value::from(part), Value::from))?;
                path = behind;
            }
        }
        Ok(value)
    }
}

fn mixed() -> Error {
    invalid("a format has fields with numbers and fields without")
}

fn index(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn converted(
    value: &Value,
    write: fn(&mut String, &Value, usize) -> Result<(), Error>,
) -> Result<Value, Error> {
    let mut text = String::new();
    write(&mut text, value, 0)?;
    Ok(Value::from(text))
}

/// `name!conversion:spec`.
struct Field<'a> {
    name: &'a str,
    conversion: Option<char>,
    spec: &'a str,
}

impl<'a> Field<'a> {
    /// Reads what stands behind `{`, up to its `}`; returns what follows.
    fn read(text: &'a str) -> Result<(Self, &'a str), Error> {
        let open = || invalid("a field of a format has no `}`");
        let mut end = 0;
        loop {
            let at = end + text[end..].find(['[', '{', '}', ':', '!']).ok_or_else(open)?;
            match &text[at..=at] {
                "[" => end = at + text[at..].find(']').ok_or_else(open)?,
                "{" => return Err(invalid("unexpected `{` in a field of a format")),
                _ => {
                    end = at;
                    break;
                }
            }
        }
        let name = &text[..end];
        let mut rest = &text[end..];
        let mut conversion = None;
        if let Some(behind) = rest.strip_prefix('!') {
            let mut chars = behind.chars();
            conversion = Some(chars.next().ok_or_else(open)?);
            rest = chars.as_str();
        }
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((Self { name, conversion, spec: "" }, behind));
        }
        let rest = rest
            .strip_prefix(':')
            .ok_or_else(|| invalid("expected `:` behind the conversion of a format"))?;
        let mut depth = 1;
        for (at, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok((Self { name, conversion, spec: &rest[..at] }, &rest[at + 1..]));
            }
        }
        Err(open())
    }
}
