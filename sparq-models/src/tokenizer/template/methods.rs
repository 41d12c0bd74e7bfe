//! Python's methods of texts, lists and dictionaries.

pub(super) mod text;

use minijinja::{Error, ErrorKind, State, Value, value::ValueKind};

use super::arguments::{bind, split};
use super::format::{invalid, is_namespace, type_name};
use super::lazy::View;

/// The methods of dictionaries.
pub(super) const DICTIONARY: &[&str] = &[
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// Methods that change what they are called on, which templates may not.
const CHANGING: &[&str] = &[
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

/// The methods of lists, and those of tuples.
const LISTS: &[&str] =
    &["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
const TUPLES: &[&str] = &["count", "index"];

/// Methods whose arguments may have names.
const BY_NAME: &[&str] = &["expandtabs", "format", "rsplit", "split", "splitlines"];

/// Methods of texts that escape their arguments where the text is marked as safe.
const ESCAPING: &[&str] =
    &["center", "format", "join", "ljust", "partition", "replace", "rjust", "rpartition"];

/// What can be called of a loop.
const OF_LOOPS: &[&str] = &["changed", "cycle"];

/// Methods of Python that are not here.
const LACKING: &[&str] = &["encode", "format_map", "fromkeys", "maketrans", "translate"];

/// Whether any type has a method of this name.
pub(super) fn is_one(name: &str) -> bool {
    [DICTIONARY, LISTS, text::NAMES].iter().any(|names| names.contains(&name))
}

/// Whether a method of this name can be called on any type.
pub(super) fn is_known(name: &str) -> bool {
    is_one(name) && !LACKING.contains(&name) || OF_LOOPS.contains(&name)
}

/// Whether `value` has a method of this name.
pub(super) fn has(value: &Value, name: &str) -> bool {
    of(value, name).is_some()
}

/// Whether `value` has a method of this name, and templates may use it.
pub(super) fn of(value: &Value, name: &str) -> Option<bool> {
    let names = match type_name(value) {
        "str" => text::NAMES,
        "dict" => DICTIONARY,
        "list" => LISTS,
        "tuple" => TUPLES,
        _ => return None,
    };
    names.contains(&name).then(|| type_name(value) == "str" || !CHANGING.contains(&name))
}

/// Calls `value.method(arguments)` where minijinja has no such method.
pub(super) fn call(
    _state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    if value.kind() != ValueKind::Map || !is_namespace(value) {
        by_place(method, arguments)?;
    }
    match value.kind() {
        ValueKind::String if value.is_safe() && ESCAPING.contains(&method) => {
            Err(invalid(format!("`{method}` of a safe text is not supported")))
        }
        ValueKind::String => text::call(value.as_str().unwrap_or_default(), method, arguments),
        ValueKind::Map if is_namespace(value) => Err(Error::from(ErrorKind::UnknownMethod)),
        ValueKind::Map if DICTIONARY.contains(&method) => dictionary(value, method, arguments),
        ValueKind::Seq => list(value, method, arguments),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Most methods of Python take no arguments by name.
fn by_place(method: &str, arguments: &[Value]) -> Result<(), Error> {
    let named = split(arguments)?.1.is_some_and(|named| named.args().next().is_some());
    match named && !BY_NAME.contains(&method) {
        true => Err(invalid(format!("{method} takes no arguments by name"))),
        false => Ok(()),
    }
}

fn changes(method: &str) -> Error {
    invalid(format!("`{method}` would change a value, which templates may not"))
}

fn dictionary(value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    if CHANGING.contains(&method) {
        return Err(changes(method));
    }
    let pairs = || value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
    match method {
        "get" => {
            let [key, default] = bind(method, ["key", "default"], arguments)?;
            let key = key.ok_or_else(|| super::arguments::missing(method, "key"))?;
            let found = value.as_object().and_then(|object| object.get_value(&key));
            Ok(found.or(default).unwrap_or_else(|| Value::from(())))
        }
        "items" | "keys" | "values" => {
            bind(method, [], arguments)?;
            Ok(View::of(value, method).unwrap_or_default())
        }
        "copy" => {
            bind(method, [], arguments)?;
            Ok(Value::from_pairs(pairs()))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list(value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match method {
        "count" | "index" => {
            let [item] = bind(method, ["value"], arguments)?;
            let item = item.ok_or_else(|| super::arguments::missing(method, "value"))?;
            let mut items = value.try_iter()?;
            if method == "count" {
                return Ok(Value::from(items.filter(|other| *other == item).count()));
            }
            let index = items.position(|other| other == item);
            index.map(Value::from).ok_or_else(|| invalid("the value is not in the list"))
        }
        "copy" if !value.is_tuple() => Ok(value.try_iter()?.collect()),
        _ if CHANGING.contains(&method) && !value.is_tuple() => Err(changes(method)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}
