//! Tests of what a value is.

use minijinja::{Environment, Error, Value};

use super::super::format::{invalid, text_of, type_name};
use super::super::lazy::is_lazy;
use super::super::operators::modulo;

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_test("iterable", |value: &Value| {
        matches!(type_name(value), "str" | "list" | "tuple" | "dict" | "iterable" | "undefined")
            || is_lazy(value)
    });
    // What has a length and items by index.
    environment.add_test("sequence", |value: &Value| match type_name(value) {
        "str" | "list" | "tuple" | "dict" | "range" | "undefined" => true,
        "iterable" => value.len().is_some(),
        _ => false,
    });
    environment.add_test("even", |value: &Value| {
        remainder(value, &Value::from(2)).map(|rest| rest == Value::from(0))
    });
    environment.add_test("odd", |value: &Value| {
        remainder(value, &Value::from(2)).map(|rest| rest == Value::from(1))
    });
    environment.add_test("divisibleby", |value: &Value, number: &Value| {
        remainder(value, number).map(|rest| rest == Value::from(0))
    });
    environment.add_test("mapping", |value: &Value| type_name(value) == "dict");
    environment.add_test("number", |value: &Value| matches!(type_name(value), "bool" | "int" | "float"));
    environment.add_test("callable", callable);
    environment.add_test("lower", |value: &Value| cased(value, char::is_lowercase, char::is_uppercase));
    environment.add_test("upper", |value: &Value| cased(value, char::is_uppercase, char::is_lowercase));
}

/// `value % number` of numbers.
fn remainder(value: &Value, number: &Value) -> Result<Value, Error> {
    match type_name(value) {
        "int" | "bool" | "float" => modulo("%", value.clone(), number.clone()),
        name => Err(invalid(format!("{name} is no number"))),
    }
}

/// Functions and macros are; so are values that are undefined, which fail only when they are called.
fn callable(value: &Value) -> bool {
    matches!(type_name(value), "object" | "undefined")
}

fn cased(value: &Value, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text_of(value).is_ok_and(|text| text.chars().any(wanted) && !text.chars().any(other))
}
