//! Values as Python writes them: `str`, `repr`, `%`.

use minijinja::{Error, ErrorKind, Value, value::ValueKind};

use super::lazy::{Generator, Range, View};

/// Longest text that a template may make, in bytes.
pub(super) const TEXT: usize = 64 << 20;

/// Deepest nesting of lists and dictionaries.
pub(super) const NESTING: usize = 200;

/// An error of an operation.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Says that a text of `length` bytes is too long, before it is made.
pub(super) fn check_length(length: Option<usize>) -> Result<(), Error> {
    match length {
        Some(..=TEXT) => Ok(()),
        _ => Err(invalid(format!("a text of more than {} MiB", TEXT >> 20))),
    }
}

/// Whether `value` is what the function `namespace` makes.
pub(super) fn is_namespace(value: &Value) -> bool {
    value.kind() == ValueKind::Map && is_of_type(value, "Namespace")
}

/// Whether `value` is a macro, or what a `call` block gives to one.
pub(super) fn is_macro(value: &Value) -> bool {
    value.kind() == ValueKind::Map && is_of_type(value, "::Macro")
}

fn is_of_type(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with(name))
}

/// The name of a value's type in Python.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "undefined",
        ValueKind::None => "None",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Seq if value.is_tuple() || is_of_type(value, "GroupTuple") => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map if is_namespace(value) => "namespace",
        ValueKind::Map if is_of_type(value, "::Macro") || is_of_type(value, "::Loop") => "object",
        ValueKind::Map => "dict",
        ValueKind::Iterable => "iterable",
        ValueKind::Plain if value.downcast_object_ref::<Generator>().is_some() => "generator",
        ValueKind::Plain if value.downcast_object_ref::<Range>().is_some() => "range",
        _ => value.downcast_object_ref::<View>().map_or("object", View::type_name),
    }
}

/// The text of a value, as `str(value)`: what a template shows.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut text = String::new();
            write_repr(&mut text, value, 0)?;
            Ok(text)
        }
    }
}

/// A float as `repr` writes it: the shortest digits that give it back.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    // Rust changes to exponents where Python does, but writes them without a sign and a zero.
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// Appends `repr(value)`.
pub(super) fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > NESTING {
        return Err(invalid("a value is nested too deeply"));
    }
    let items = |out: &mut String, open: &str, close: &str| -> Result<(), Error> {
        out.push_str(open);
        let mut count = 0;
        for item in value.try_iter()? {
            if count > 0 {
                out.push_str(", ");
            }
            write_repr(out, &item, depth + 1)?;
            check_length(Some(out.len()))?;
            count += 1;
        }
        if count == 1 && close == ")" {
            out.push(',');
        }
        out.push_str(close);
        Ok(())
    };
    match type_name(value) {
        "undefined" => out.push_str("Undefined"),
        "str" if value.is_safe() => {
            out.push_str("Markup(");
            quote(out, value.as_str().unwrap_or_default());
            out.push(')');
        }
        "str" => quote(out, value.as_str().unwrap_or_default()),
        "float" => out.push_str(&f64::try_from(value.clone()).map(float).unwrap_or_default()),
        "tuple" => items(out, "(", ")")?,
        "list" | "iterable" => items(out, "[", "]")?,
        "dict" => write_pairs(out, value, depth)?,
        view @ ("dict_items" | "dict_keys" | "dict_values") => {
            out.push_str(view);
            items(out, "([", "])")?;
        }
        "range" => {
            if let Some(Range { start, stop, step }) = value.downcast_object_ref() {
                out.push_str(&format!("range({start}, {stop}"));
                if *step != 1 {
                    out.push_str(&format!(", {step}"));
                }
                out.push(')');
            }
        }
        "namespace" => {
            out.push_str("<Namespace ");
            write_pairs(out, value, depth)?;
            out.push('>');
        }
        "generator" => {
            let message =
                "what a filter such as `map` or `select` gives has no text: `|list` makes a list of it";
            return Err(invalid(message));
        }
        // Python writes where in the memory it is.
        "object" => return Err(invalid("a function, a method or a block has no text")),
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_pairs(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    out.push('{');
    let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
    for (index, (key, value)) in pairs.into_iter().flatten().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, &key, depth + 1)?;
        out.push_str(": ");
        write_repr(out, &value, depth + 1)?;
        check_length(Some(out.len()))?;
    }
    out.push('}');
    Ok(())
}

/// Appends `ascii(value)`.
pub(super) fn write_ascii(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    let mut text = String::new();
    write_repr(&mut text, value, depth)?;
    for c in text.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => out.push_str(&code(c)),
        }
    }
    Ok(())
}

/// The escape of a character by its number.
fn code(c: char) -> String {
    match u32::from(c) {
        code @ ..=0xff => format!("\\x{code:02x}"),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// A text in quotes, with escapes for what cannot be printed.
fn quote(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if printable(c) => out.push(c),
            c => out.push_str(&code(c)),
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable` of one character.
pub(super) fn printable(c: char) -> bool {
    // Behind a letter, Rust escapes no combining marks, which are printable.
    c.is_ascii_graphic() || c == ' ' || !c.is_ascii() && format!("a{c}").escape_debug().count() == 2
}

/// Where a text is filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

/// A text of at least `width` characters.
pub(super) fn pad(text: &str, width: usize, side: Side, fill: char) -> Result<String, Error> {
    let missing = width.saturating_sub(text.chars().count());
    check_length(missing.checked_mul(fill.len_utf8()).and_then(|length| length.checked_add(text.len())))?;
    let left = match side {
        Side::Left => missing,
        Side::Right => 0,
        // Python's rule for odd numbers.
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let fill = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(fill(left) + text + &fill(missing - left))
}
