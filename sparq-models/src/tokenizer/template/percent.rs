//! `format % values` of texts.

use minijinja::{Error, Value};

use super::format::{Side, check_length, invalid, pad, text_of, type_name, write_ascii, write_repr};
use super::operators;
use super::spec::Spec;

/// A tuple gives several values, a dictionary names them.
pub(super) fn percent(format: &str, values: &Value) -> Result<Value, Error> {
    let mut positional = match type_name(values) {
        "tuple" => values.try_iter()?.collect(),
        _ => vec![values.clone()],
    }
    .into_iter();
    let mut next = || positional.next().ok_or_else(|| invalid("not enough arguments for format string"));
    let mut out = String::new();
    let mut used_names = false;
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let mut named = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let end = inner.find(')').ok_or_else(|| invalid("incomplete format key"))?;
            named = Some(by_name(values, &inner[..end])?);
            used_names = true;
            rest = &inner[end + 1..];
        }
        let flags = rest.len() - rest.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        let (flags, tail) = rest.split_at(flags);
        let mut size = |tail: &mut &str| -> Result<Option<usize>, Error> {
            if let Some(behind) = tail.strip_prefix('*') {
                *tail = behind;
                return Ok(Some(usize::try_from(next()?)?));
            }
            let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            let number = &tail[..digits];
            *tail = &tail[digits..];
            match number {
                "" => Ok(None),
                number => number.parse().map(Some).map_err(|_| invalid("the width of a format is too large")),
            }
        };
        let mut tail = tail;
        let width = size(&mut tail)?.unwrap_or(0);
        let mut precision = None;
        if let Some(behind) = tail.strip_prefix('.') {
            tail = behind;
            precision = Some(size(&mut tail)?.unwrap_or(0));
        }
        check_length(out.len().checked_add(width).and_then(|sum| sum.checked_add(precision.unwrap_or(0))))?;
        tail = tail.trim_start_matches(['h', 'l', 'L']);
        let kind = tail.chars().next().ok_or_else(|| invalid("incomplete format"))?;
        rest = &tail[kind.len_utf8()..];
        if kind == '%' && width == 0 && flags.is_empty() && precision.is_none() {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None if used_names => return Err(invalid("not enough arguments for format string")),
            None => next()?,
        };
        let text = match kind {
            's' | 'r' | 'a' => {
                let mut text = String::new();
                match kind {
                    's' => text = text_of(&value)?,
                    'r' => write_repr(&mut text, &value, 0)?,
                    _ => write_ascii(&mut text, &value, 0)?,
                }
                let text: String = text.chars().take(precision.unwrap_or(usize::MAX)).collect();
                pad(&text, width, if flags.contains('-') { Side::Right } else { Side::Left }, ' ')?
            }
            'c' => {
                let text = match value.as_str() {
                    Some(text) if text.chars().count() == 1 => text.to_owned(),
                    _ => {
                        let code = operators::integer(&value).and_then(|code| u32::try_from(code).ok());
                        let c = code.filter(|_| type_name(&value) != "float").and_then(char::from_u32);
                        c.ok_or_else(|| invalid("%c takes one character"))?.to_string()
                    }
                };
                pad(&text, width, if flags.contains('-') { Side::Right } else { Side::Left }, ' ')?
            }
            _ => number(flags, width, precision, kind, &value)?,
        };
        out.push_str(&text);
        check_length(Some(out.len()))?;
    }
    out.push_str(rest);
    if positional.next().is_some() && !used_names && !matches!(type_name(values), "dict" | "list") {
        return Err(invalid("not all arguments converted during string formatting"));
    }
    Ok(Value::from(out))
}

fn by_name(values: &Value, name: &str) -> Result<Value, Error> {
    let values = values.as_object().filter(|_| type_name(values) == "dict");
    let values = values.ok_or_else(|| invalid(format!("`%({name})` takes a dictionary")))?;
    values.get_value(&Value::from(name)).ok_or_else(|| invalid(format!("`%({name})`: there is no such key")))
}

fn number(
    flags: &str,
    width: usize,
    precision: Option<usize>,
    kind: char,
    value: &Value,
) -> Result<String, Error> {
    let wrong = || invalid(format!("`%{kind}` is not defined for {}", type_name(value)));
    let zeros = flags.contains('0') && !flags.contains('-');
    let has = |flag: char| flags.contains(flag).then_some(flag);
    let spec = Spec {
        fill: if zeros { '0' } else { ' ' },
        align: Some(if zeros {
            '='
        } else if flags.contains('-') {
            '<'
        } else {
            '>'
        }),
        sign: has('+').or(has(' ')),
        alternate: flags.contains('#'),
        width,
        grouping: None,
        precision,
        kind: Some(kind),
    };
    match (kind, type_name(value)) {
        ('d' | 'i' | 'u' | 'o' | 'x' | 'X', "int" | "bool") => {
            spec.integer(operators::integer(value).ok_or_else(wrong)?, precision.unwrap_or(0))
        }
        ('d' | 'i' | 'u', "float") => {
            // Floats are cut, as by `int`.
            let number = f64::try_from(value.clone())?;
            match number.abs() < 1e38 {
                true => spec.integer(number.trunc() as i128, precision.unwrap_or(0)),
                false => Err(invalid("an integer beyond 128 bits")),
            }
        }
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', "int" | "bool" | "float") => spec.number(value),
        _ => Err(wrong()),
    }
}
