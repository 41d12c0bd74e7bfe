//! Python's meaning of what minijinja sees otherwise; [`super::rewrite`] puts calls of these functions into a
//! template.

use std::sync::Arc;

use minijinja::{
    Environment, Error, State, Value, functions,
    value::{Object, ObjectRepr, Rest, Tuple, ValueKind, ValueOrKwargs},
};

use super::arguments::split;
use super::format::{NESTING, check_length, invalid, is_macro, is_namespace, text_of, type_name};
use super::lazy::{Generator, Range, View, is_lazy, slice};
use super::methods;
use super::numbers::{self, multiply, power};
use super::percent::percent;

/// Most items of a list.
pub(super) const ITEMS: usize = 1 << 20;

pub(super) fn register(environment: &mut Environment<'static>) {
    // minijinja's own.
    environment.remove_global("debug");
    environment.add_function("_add", |values: Rest<Value>| fold(values, "+", add));
    environment.add_function("_mod", |values: Rest<Value>| fold(values, "%", modulo));
    environment.add_function("_mul", |values: Rest<Value>| fold(values, "*", multiply));
    environment.add_function("_pow", |values: Rest<Value>| fold(values, "**", power));
    environment.add_function("_concat", concat);
    environment.add_function("_pos", positive);
    environment.add_function("_iter", items);
    environment.add_function("_iter_to_break", |value: Value| {
        let list = items(value.clone())?;
        if let Some(generator) = value.downcast_object_ref::<Generator>() {
            generator.leave();
        }
        Ok::<_, Error>(list)
    });
    environment.add_function("_stored", |value: Value| stored(value, 0));
    environment.add_function("_kept", |value: Value, _namespace: Rest<Value>| stored(value, 1));
    environment.add_function("_attr", attribute);
    environment.add_function("_item", item);
    environment.add_function("_slice", slice);
    environment.add_function("_key", key);
    environment.add_function("range", Range::call);
    environment.add_function("dict", |arguments: Rest<ValueOrKwargs>| dictionary(&arguments.into_values()));
    environment.add_function("namespace", |arguments: Rest<ValueOrKwargs>| {
        let values = dictionary(&arguments.into_values())?;
        let hidden = values.try_iter()?.any(|name| name.as_str().is_some_and(|name| name.starts_with('_')));
        if hidden {
            return Err(invalid("a namespace takes no names that begin with `_`"));
        }
        check_nesting(&values, 1)?;
        functions::namespace(Some(values.into()))
    });
    environment.add_function("_neg", negative);
    environment.add_function("_rows", rows);
    environment.add_function("_row", row);
    environment.add_function("_given", |value: Value| match value.is_undefined() {
        true => Value::from_object(Undefined),
        false => value,
    });
    environment.add_function("_argument", argument);
}

fn argument(value: Value) -> Value {
    match value.downcast_object_ref::<Undefined>() {
        Some(_) => Value::UNDEFINED,
        None => value,
    }
}

fn fold(
    values: Rest<Value>,
    sign: &str,
    operator: fn(&str, Value, Value) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut values = values.0.into_iter();
    let first = values.next().unwrap_or_default();
    values.try_fold(first, |left, right| operator(sign, left, right))
}

pub(super) fn unsupported(sign: &str, left: &Value, right: &Value) -> Error {
    invalid(format!("`{sign}` is not defined between {} and {}", type_name(left), type_name(right)))
}

pub(super) fn add(sign: &str, left: Value, right: Value) -> Result<Value, Error> {
    match (type_name(&left), type_name(&right)) {
        ("str", "str") => {
            let (a, b) = (left.as_str().unwrap_or_default(), right.as_str().unwrap_or_default());
            check_length(a.len().checked_add(b.len()))?;
            Ok(match (left.is_safe(), right.is_safe()) {
                (false, false) => Value::from([a, b].concat()),
                (true, true) => Value::from_safe_string([a, b].concat()),
                // Markup escapes what joins it.
                (true, false) => Value::from_safe_string([a, &escape(b)].concat()),
                (false, true) => Value::from_safe_string([&escape(a), b].concat()),
            })
        }
        ("list", "list") | ("tuple", "tuple") => {
            let count = left.len().unwrap_or(0).saturating_add(right.len().unwrap_or(0));
            if count > ITEMS {
                return Err(invalid(format!("a list of more than {ITEMS} items")));
            }
            let values = left.try_iter()?.chain(right.try_iter()?).collect::<Vec<_>>();
            Ok(if left.is_tuple() { Value::from(Tuple::from(values)) } else { Value::from(values) })
        }
        // What filters give is a list as far as a template can tell.
        ("list" | "iterable", "list" | "iterable") => {
            Ok(Value::from(left.try_iter()?.chain(right.try_iter()?).take(ITEMS).collect::<Vec<_>>()))
        }
        ("int" | "bool", "int" | "bool") => {
            let sum = integer(&left).zip(integer(&right)).and_then(|(a, b)| a.checked_add(b));
            sum.map(number).ok_or_else(|| invalid("an integer beyond 128 bits"))
        }
        ("int" | "bool" | "float", "int" | "bool" | "float") => Ok(Value::from(real(&left)? + real(&right)?)),
        _ => Err(unsupported(sign, &left, &right)),
    }
}

pub(super) fn modulo(sign: &str, left: Value, right: Value) -> Result<Value, Error> {
    match (type_name(&left), type_name(&right)) {
        ("str", _) if left.is_safe() => Err(invalid("`%` of a safe text is not supported")),
        ("str", _) => percent(left.as_str().unwrap_or_default(), &right),
        ("int" | "bool", "int" | "bool") => {
            let (a, b) =
                integer(&left).zip(integer(&right)).ok_or_else(|| invalid("an integer beyond 128 bits"))?;
            match a.checked_rem(b) {
                Some(rest) if rest != 0 && (rest < 0) != (b < 0) => Ok(number(rest + b)),
                Some(rest) => Ok(number(rest)),
                None => Err(invalid("modulo by zero")),
            }
        }
        ("int" | "bool" | "float", "int" | "bool" | "float") => {
            let (a, b) = (real(&left)?, real(&right)?);
            if b == 0.0 {
                return Err(invalid("modulo by zero"));
            }
            let rest = a % b;
            Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
                rest + b
            } else {
                rest.abs().copysign(b)
            }))
        }
        _ => Err(unsupported(sign, &left, &right)),
    }
}

pub(super) fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ => i128::try_from(value.clone()).ok(),
    }
}

pub(super) fn real(value: &Value) -> Result<f64, Error> {
    match integer(value) {
        Some(integer) if type_name(value) != "float" => Ok(integer as f64),
        _ => f64::try_from(value.clone()),
    }
}

pub(super) fn number(integer: i128) -> Value {
    i64::try_from(integer).map_or_else(|_| Value::from(integer), Value::from)
}

/// `a ~ b ~ …`.
fn concat(values: Rest<Value>) -> Result<String, Error> {
    let mut text = String::new();
    for value in values.iter() {
        match value.as_str() {
            Some(piece) => text.push_str(piece),
            None => text.push_str(&text_of(value)?),
        }
        check_length(Some(text.len()))?;
    }
    Ok(text)
}

/// `+a`.
fn positive(value: Value) -> Result<Value, Error> {
    match type_name(&value) {
        "int" | "float" => Ok(value),
        "bool" => Ok(Value::from(i64::from(value.is_true()))),
        name => Err(invalid(format!("bad operand type for unary `+`: {name}"))),
    }
}

/// `-a`.
fn negative(value: Value) -> Result<Value, Error> {
    match (type_name(&value), integer(&value)) {
        ("float", _) => Ok(Value::from(-f64::try_from(value)?)),
        ("int" | "bool", Some(integer)) => {
            integer.checked_neg().map(number).ok_or_else(|| invalid("an integer beyond 128 bits"))
        }
        (name, _) => Err(invalid(format!("bad operand type for unary `-`: {name}"))),
    }
}

/// `dict(pairs, name=value, …)`.
fn dictionary(arguments: &[Value]) -> Result<Value, Error> {
    let (placed, named) = split(arguments)?;
    if placed.len() > 1 {
        return Err(invalid(format!("dict takes one value, not {}", placed.len())));
    }
    let mut pairs = Vec::new();
    match placed.first() {
        None => {}
        Some(value) if type_name(value) == "dict" => {
            pairs.extend(value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten());
        }
        Some(value) => {
            for pair in items(value.clone())?.try_iter()? {
                let pair: Vec<Value> = items(pair)?.try_iter()?.collect();
                let [key, value] = <[Value; 2]>::try_from(pair).map_err(|_| invalid("dict takes pairs"))?;
                pairs.push((key, value));
            }
        }
    }
    if let Some(named) = named {
        for name in named.args() {
            pairs.push((Value::from(name), named.peek(name)?));
        }
    }
    Ok(Value::from_pairs(pairs))
}

/// What is taken apart: minijinja knows lists only.
fn row(value: Value) -> Result<Value, Error> {
    match type_name(&value) {
        "str" | "dict" => list(&value),
        _ => Ok(value),
    }
}

/// What a loop goes through whose items are taken apart: texts are their characters.
fn rows(value: Value) -> Result<Value, Error> {
    items(value)?.try_iter()?.map(row).collect::<Result<Vec<_>, _>>().map(Value::from)
}

/// What a loop goes through: the characters of a text, the keys of a dictionary, …; nothing of what is
/// undefined.
pub(super) fn items(value: Value) -> Result<Value, Error> {
    match type_name(&value) {
        "undefined" => Ok(Value::from(Vec::<Value>::new())),
        "str" => Ok(value.as_str().unwrap_or_default().chars().map(|c| Value::from(c.to_string())).collect()),
        "list" | "tuple" | "dict" => Ok(value),
        "iterable" => collect(&value),
        _ if is_lazy(&value) => collect(&value),
        name => Err(invalid(format!("{name} is not iterable"))),
    }
}

/// `list(value)`.
pub(super) fn list(value: &Value) -> Result<Value, Error> {
    collect(&items(value.clone())?)
}

/// An iterable as a list.
fn collect(value: &Value) -> Result<Value, Error> {
    if value.len().is_some_and(|count| count > ITEMS) {
        return Err(invalid(format!("a list of more than {ITEMS} items")));
    }
    let mut list = Vec::new();
    for item in value.try_iter()?.checked() {
        list.push(item?);
        if list.len() > ITEMS {
            return Err(invalid(format!("a list of more than {ITEMS} items")));
        }
    }
    Ok(Value::from(list))
}

/// A value that gets a name, at `depth` 1 in a namespace. Values that hold the value of before, round after
/// round, would nest without end.
fn stored(value: Value, depth: usize) -> Result<Value, Error> {
    let value = match type_name(&value) {
        "iterable" if value.len().is_none_or(|count| count <= ITEMS) => collect(&value)?,
        _ => value,
    };
    check_nesting(&value, depth)?;
    Ok(value)
}

fn check_nesting(value: &Value, depth: usize) -> Result<(), Error> {
    if depth > NESTING || depth > 0 && is_namespace(value) {
        return Err(invalid("a value is nested too deeply, or holds a namespace"));
    }
    if depth > 0 && is_macro(value) {
        return Err(invalid("a list, a dictionary or a namespace that holds a macro is not supported"));
    }
    match type_name(value) {
        "list" | "tuple" => value.try_iter()?.try_for_each(|item| check_nesting(&item, depth + 1)),
        "dict" => {
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
            pairs.into_iter().flatten().try_for_each(|(_, item)| check_nesting(&item, depth + 1))
        }
        _ => {
            let generator = value.downcast_object_ref().map(Generator::left);
            let view = value.downcast_object_ref().map(|view: &View| vec![view.dictionary.clone()]);
            let method = value.downcast_object_ref().map(|method: &Method| vec![method.value.clone()]);
            let inside = generator.or(view).or(method).unwrap_or_default();
            inside.iter().try_for_each(|item| check_nesting(item, depth + 1))
        }
    }
}

/// `value.name`: methods come before keys. Those that change a value are undefined in Jinja2's sandbox.
pub(super) fn attribute(value: Value, name: String) -> Result<Value, Error> {
    if is_macro(&value) && name != "name" {
        return Err(invalid(format!("`{name}` of a macro is not supported")));
    }
    if let Some(found) = numbers::attribute(&value, &name) {
        return found;
    }
    match methods::of(&value, &name) {
        Some(true) => Ok(Value::from_object(Method { value, name })),
        Some(false) => Ok(Value::UNDEFINED),
        None => value.get_attr(&name),
    }
}

/// `value[key]`: keys come before methods.
pub(super) fn item(value: Value, key: Value) -> Result<Value, Error> {
    if type_name(&key) == "float" && type_name(&value) != "dict" {
        return Ok(Value::UNDEFINED);
    }
    if let Some(found) = key.as_str().and_then(|name| numbers::attribute(&value, name)) {
        return found;
    }
    let found = value.get_item(&key)?;
    match key.as_str() {
        Some(name) if found.is_undefined() && methods::of(&value, name) == Some(true) => {
            Ok(Value::from_object(Method { value, name: name.to_owned() }))
        }
        _ => Ok(found),
    }
}

/// A method that is named; it may be called later.
#[derive(Debug)]
struct Method {
    value: Value,
    name: String,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let arguments: Vec<Value> = arguments.iter().cloned().map(argument).collect();
        methods::call(state, &self.value, &self.name, &arguments)
    }
}

/// A key of a dictionary: lists and dictionaries are none.
fn key(value: Value) -> Result<Value, Error> {
    match type_name(&value) {
        "list" | "dict" | "iterable" | "dict_items" | "dict_keys" => {
            Err(invalid(format!("{} is no key of a dictionary", type_name(&value))))
        }
        "tuple" => value.try_iter()?.try_for_each(|item| key(item).map(|_| ())).map(|()| value),
        _ => Ok(value),
    }
}

/// An undefined value that a macro is given: it is there, and its default does not take its place.
#[derive(Debug)]
struct Undefined;

impl Object for Undefined {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// The escapes of markupsafe.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}
