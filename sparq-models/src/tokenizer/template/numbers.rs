//! What Python does with numbers that minijinja sees otherwise.

use minijinja::{Error, Value, value::Tuple};

use super::format::{check_length, invalid, type_name};
use super::operators::{ITEMS, integer, number, real, unsupported};

/// What a number has beside methods.
const ATTRIBUTES: &[&str] = &["denominator", "imag", "numerator", "real"];

/// The methods of numbers, none of which is here.
const METHODS: &[&str] = &[
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "from_bytes",
    "from_number",
    "fromhex",
    "hex",
    "is_integer",
    "to_bytes",
];

/// Whether numbers have an attribute of this name.
pub(super) fn is_attribute(name: &str) -> bool {
    ATTRIBUTES.contains(&name) || METHODS.contains(&name)
}

/// `value.name` of a number, nothing where it has no such attribute or `value` is no number.
pub(super) fn attribute(value: &Value, name: &str) -> Option<Result<Value, Error>> {
    let is_float = match type_name(value) {
        "float" => true,
        "int" | "bool" => false,
        _ => return None,
    };
    let found = match (name, is_float) {
        ("real" | "numerator", false) => integer(value).map(number),
        ("imag", false) => Some(Value::from(0)),
        ("denominator", false) => Some(Value::from(1)),
        ("real", true) => Some(value.clone()),
        ("imag", true) => Some(Value::from(0.0)),
        _ if METHODS.contains(&name) => {
            return Some(Err(invalid(format!("`{name}` of a number is not supported"))));
        }
        _ => None,
    };
    found.map(Ok)
}

/// `a * b`: texts and lists are repeated by integers alone.
pub(super) fn multiply(sign: &str, left: Value, right: Value) -> Result<Value, Error> {
    match (type_name(&left), type_name(&right)) {
        ("int" | "bool", "int" | "bool") => {
            let product = integer(&left).zip(integer(&right)).and_then(|(a, b)| a.checked_mul(b));
            product.map(number).ok_or_else(|| invalid("an integer beyond 128 bits"))
        }
        ("int" | "bool" | "float", "int" | "bool" | "float") => Ok(Value::from(real(&left)? * real(&right)?)),
        ("str" | "list" | "tuple", "int" | "bool") => repeat(&left, &right),
        ("int" | "bool", "str" | "list" | "tuple") => repeat(&right, &left),
        _ => Err(unsupported(sign, &left, &right)),
    }
}

fn repeat(value: &Value, count: &Value) -> Result<Value, Error> {
    let count =
        integer(count).map_or(usize::MAX, |count| usize::try_from(count.max(0)).unwrap_or(usize::MAX));
    if let Some(text) = value.as_str() {
        check_length(text.len().checked_mul(count))?;
        let text = text.repeat(count);
        return Ok(if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) });
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    if items.len().saturating_mul(count) > ITEMS {
        return Err(invalid(format!("a list of more than {ITEMS} items")));
    }
    let items: Vec<Value> = items.iter().cycle().take(items.len() * count).cloned().collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

/// `a ** b`.
pub(super) fn power(sign: &str, left: Value, right: Value) -> Result<Value, Error> {
    let kinds = ["int", "bool", "float"];
    if !kinds.contains(&type_name(&left)) || !kinds.contains(&type_name(&right)) {
        return Err(unsupported(sign, &left, &right));
    }
    let are_integers = [&left, &right].iter().all(|value| type_name(value) != "float");
    if let Some((a, b)) = integer(&left).zip(integer(&right)).filter(|(_, b)| are_integers && *b >= 0) {
        let power = match a {
            0 | 1 => Some(if b == 0 { 1 } else { a }),
            -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        };
        return power.map(number).ok_or_else(|| invalid("an integer beyond 128 bits"));
    }
    let (a, b) = (real(&left)?, real(&right)?);
    let power = a.powf(b);
    if a == 0.0 && b < 0.0 {
        return Err(invalid("0.0 cannot be raised to a negative power"));
    }
    if a.is_finite() && b.is_finite() && power.is_nan() {
        return Err(invalid("complex numbers are not supported"));
    }
    if a.is_finite() && b.is_finite() && power.is_infinite() {
        return Err(invalid(format!("the result of `{sign}` is out of range")));
    }
    Ok(Value::from(power))
}
