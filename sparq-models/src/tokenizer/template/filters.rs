//! Jinja2's filters and tests where minijinja's differ from them.

mod kinds;
mod lists;
mod text;

use minijinja::{
    Environment, Error, ErrorKind, Value,
    value::{Rest, ValueOrKwargs},
};

use super::arguments::{bind, missing, truth};
use super::format::{invalid, text_of, type_name};
use super::methods::text::strip;
use super::{chars, json, methods, operators};

/// Filters and tests of minijinja that Jinja2 has not, where a template that names them is refused, and what is
/// another one there.
const FOREIGN_FILTERS: &[&str] = &["split", "lines", "bool", "chain", "zip", "pprint", "urlencode"];
const FOREIGN_TESTS: &[&str] = &["startingwith", "endingwith", "safe"];

pub(super) fn register(environment: &mut Environment<'static>) {
    FOREIGN_FILTERS.iter().for_each(|name| environment.remove_filter(name));
    FOREIGN_TESTS.iter().for_each(|name| environment.remove_test(name));
    kinds::register(environment);
    lists::register(environment);
    text::register(environment);
    add(environment, "tojson", |arguments| json::tojson(arguments).map(Value::from));
    add(environment, "default", default);
    add(environment, "d", default);
    add(environment, "length", length);
    add(environment, "count", length);
    add(environment, "list", |arguments| operators::list(&one("list", arguments)?));
    add(environment, "int", int);
    add(environment, "float", float);
    add(environment, "attr", attribute);
}

/// Whether there is a filter called `name`.
pub(super) fn has_filter(environment: &Environment<'static>, name: &str) -> bool {
    let applied = environment.empty_state().apply_filter(name, &[]);
    !applied.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter)
}

/// Whether there is a test called `name`.
pub(super) fn has_test(environment: &Environment<'static>, name: &str) -> bool {
    let performed = environment.empty_state().perform_test(name, &[]);
    !performed.is_err_and(|error| error.kind() == ErrorKind::UnknownTest)
}

/// A filter that binds its arguments itself, the value first.
fn add(
    environment: &mut Environment<'static>,
    name: &'static str,
    filter: fn(&[Value]) -> Result<Value, Error>,
) {
    environment.add_filter(name, move |arguments: Rest<ValueOrKwargs>| filter(&arguments.into_values()));
}

/// `attr(value, name)`: no keys, as Python tells them from attributes.
fn attribute(arguments: &[Value]) -> Result<Value, Error> {
    let [value, name] = bind("attr", ["value", "name"], arguments)?;
    let value = value.ok_or_else(|| missing("attr", "value"))?;
    let name = text_of(&name.ok_or_else(|| missing("attr", "name"))?)?;
    match type_name(&value) {
        "undefined" => Err(invalid("attr: the value is undefined")),
        "str" | "list" | "tuple" | "dict" if !methods::has(&value, &name) => Ok(Value::UNDEFINED),
        _ => operators::attribute(value, name),
    }
}

/// The value of a filter without options.
fn one(name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let [value] = bind(name, ["value"], arguments)?;
    value.ok_or_else(|| missing(name, "value"))
}

/// `default(value, default_value='', boolean=false)`.
fn default(arguments: &[Value]) -> Result<Value, Error> {
    let [value, default, boolean] = bind("default", ["value", "default_value", "boolean"], arguments)?;
    let value = value.unwrap_or_default();
    Ok(match value.is_undefined() || truth(boolean, false) && !value.is_true() {
        true => default.unwrap_or_else(|| Value::from("")),
        false => value,
    })
}

fn length(arguments: &[Value]) -> Result<Value, Error> {
    let value = one("length", arguments)?;
    match value.len() {
        _ if value.is_undefined() => Ok(Value::from(0)),
        Some(length) if type_name(&value) != "namespace" => Ok(Value::from(length)),
        _ => Err(invalid(format!("{} has no length", type_name(&value)))),
    }
}

/// What becomes a number; Jinja2 refuses what is undefined.
fn number_of(name: &str, value: Option<Value>) -> Result<Value, Error> {
    match value.unwrap_or_default() {
        value if value.is_undefined() => Err(invalid(format!("{name}: the value is undefined"))),
        value => Ok(value),
    }
}

/// `int(value, default=0, base=10)`.
fn int(arguments: &[Value]) -> Result<Value, Error> {
    let [value, default, base] = bind("int", ["value", "default", "base"], arguments)?;
    let value = number_of("int", value)?;
    let base = base.map_or(Ok(10), u32::try_from)?;
    if !(2..=36).contains(&base) {
        return Err(invalid("int: `base` is from 2 to 36"));
    }
    let number = match (value.as_str(), type_name(&value)) {
        (Some(text), _) => match parse_int(text, base)? {
            Some(number) => Some(number),
            None => parse_float(text).filter(|number| number.is_finite()).map(truncate).transpose()?,
        },
        (None, "int" | "bool") => return Ok(operators::integer(&value).map_or(value, operators::number)),
        (None, "float") => match f64::try_from(value)? {
            number if number.is_nan() => None,
            number => Some(truncate(number)?),
        },
        _ => None,
    };
    Ok(number.map(operators::number).or(default).unwrap_or_else(|| Value::from(0)))
}

fn beyond() -> Error {
    invalid("int: an integer beyond 128 bits")
}

fn truncate(number: f64) -> Result<i128, Error> {
    match number.abs() < 1e38 {
        true => Ok(number as i128),
        false => Err(beyond()),
    }
}

/// A text with the digits of every script as those of ASCII.
fn with_ascii_digits(text: &str) -> String {
    text.chars()
        .map(|c| chars::decimal(c).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c))
        .collect()
}

/// A text as Python's `int(text, base)` reads it.
fn parse_int(text: &str, base: u32) -> Result<Option<i128>, Error> {
    let text = with_ascii_digits(strip(text, None, true, true));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = match digits.get(..prefix.len()) {
        Some(start) if !prefix.is_empty() && start.eq_ignore_ascii_case(prefix) => &digits[prefix.len()..],
        _ => digits,
    };
    if !digits.starts_with(|c: char| c.is_digit(base)) || digits.ends_with('_') || digits.contains("__") {
        return Ok(None);
    }
    let digits = digits.replace('_', "");
    if !digits.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let number = i128::from_str_radix(&digits, base).map_err(|_| beyond())?;
    Ok(Some(if text.starts_with('-') { -number } else { number }))
}

/// A text as Python's `float(text)` reads it.
fn parse_float(text: &str) -> Option<f64> {
    let text = with_ascii_digits(strip(text, None, true, true));
    if text.ends_with('_') || text.starts_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// `float(value, default=0.0)`.
fn float(arguments: &[Value]) -> Result<Value, Error> {
    let [value, default] = bind("float", ["value", "default"], arguments)?;
    let value = number_of("float", value)?;
    let number = match (value.as_str(), operators::integer(&value)) {
        (Some(text), _) => parse_float(text),
        (None, Some(integer)) if type_name(&value) != "float" => Some(integer as f64),
        _ => f64::try_from(value).ok(),
    };
    Ok(number.map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0)))
}

/// The text of a value that a filter of texts works on.
fn soft(name: &str, value: Option<Value>) -> Result<String, Error> {
    text_of(&value.ok_or_else(|| missing(name, "value"))?)
}
