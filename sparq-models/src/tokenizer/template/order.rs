//! Comparisons and sorting as in Python: what cannot be ordered is an error.

use std::cmp::Ordering;

use minijinja::{
    Environment, Error, Value,
    value::{Rest, ValueKind},
};

use super::format::{NESTING, invalid, type_name};
use super::lazy::is_lazy;
use super::operators::{integer, items};

/// Comparisons by their tests.
const TESTS: &[(&str, &[&str])] = &[
    ("<", &["lt", "lessthan", "<"]),
    ("<=", &["le", "<="]),
    (">", &["gt", "greaterthan", ">"]),
    (">=", &["ge", ">="]),
    ("in", &["in"]),
];

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_function("_compare", |row: Rest<Value>| row_holds(&row));
    for (operator, names) in TESTS {
        for name in *names {
            environment.add_test(*name, move |left: &Value, right: &Value| holds(left, operator, right));
        }
    }
}

/// `a < b <= c …`: values with operators between them.
fn row_holds(row: &[Value]) -> Result<bool, Error> {
    let mut left = row.first();
    for pair in row.get(1..).unwrap_or_default().chunks_exact(2) {
        let operator = pair[0].as_str().unwrap_or_default();
        if !holds(left.unwrap_or(&Value::UNDEFINED), operator, &pair[1])? {
            return Ok(false);
        }
        left = Some(&pair[1]);
    }
    Ok(true)
}

fn holds(left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    match operator {
        "==" => return Ok(left == right),
        "!=" => return Ok(left != right),
        "in" => return contains(right, left),
        "not in" => return contains(right, left).map(|found| !found),
        _ => {}
    }
    let order = compare(left, right, 0)?.ok_or_else(|| {
        invalid(format!("`{operator}` is not defined between {} and {}", type_name(left), type_name(right)))
    })?;
    Ok(match operator {
        "<" => order == Some(Ordering::Less),
        "<=" => order.is_some_and(Ordering::is_le),
        ">" => order == Some(Ordering::Greater),
        _ => order.is_some_and(Ordering::is_ge),
    })
}

/// Whether `item` is in `container`.
fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    match (type_name(container), item.as_str()) {
        ("str", Some(part)) => Ok(container.as_str().unwrap_or_default().contains(part)),
        ("undefined", _) => Ok(false),
        ("dict", _) => Ok(container.as_object().is_some_and(|object| object.get_value(item).is_some())),
        ("list" | "tuple" | "iterable", _) => Ok(container.try_iter()?.any(|other| other == *item)),
        // A generator is gone through as far as the item.
        _ if is_lazy(container) => {
            for other in container.try_iter()?.checked() {
                if other? == *item {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (name, _) => Err(invalid(format!("`in` is not defined between {} and {name}", type_name(item)))),
    }
}

/// How two values are ordered. Nothing where they cannot be; nothing inside where one is no number.
fn compare(left: &Value, right: &Value, depth: usize) -> Result<Option<Option<Ordering>>, Error> {
    if depth > NESTING {
        return Err(invalid("a value is nested too deeply"));
    }
    Ok(Some(match (type_name(left), type_name(right)) {
        ("str", "str") => Some(left.as_str().cmp(&right.as_str())),
        ("int" | "bool" | "float", "int" | "bool" | "float") => numbers(left, right),
        // A part of a list is an iterable here.
        ("list" | "iterable", "list" | "iterable") | ("tuple", "tuple") => {
            let mut others = right.try_iter()?;
            for item in left.try_iter()? {
                match others.next() {
                    None => return Ok(Some(Some(Ordering::Greater))),
                    Some(other) if other == item => {}
                    Some(other) => return compare(&item, &other, depth + 1),
                }
            }
            Some(if others.next().is_some() { Ordering::Less } else { Ordering::Equal })
        }
        _ => return Ok(None),
    }))
}

fn numbers(left: &Value, right: &Value) -> Option<Ordering> {
    let float = |value: &Value| f64::try_from(value.clone()).ok().filter(|_| type_name(value) == "float");
    let whole = |integer: i128, number: f64| match integer {
        // Compared exactly where the float has no more than 128 bits.
        _ if number.abs() < 1e38 => integer
            .cmp(&(number.trunc() as i128))
            .then(0.0.partial_cmp(&number.fract()).unwrap_or(Ordering::Equal)),
        _ if number > 0.0 => Ordering::Less,
        _ => Ordering::Greater,
    };
    match (float(left), float(right)) {
        (Some(left), Some(right)) => left.partial_cmp(&right),
        (None, None) => Some(integer(left)?.cmp(&integer(right)?)),
        (Some(number), _) | (_, Some(number)) if number.is_nan() => None,
        (None, Some(right)) => Some(whole(integer(left)?, right)),
        (Some(left), None) => Some(whole(integer(right)?, left).reverse()),
    }
}

/// Says which values of a filter cannot be sorted: those of `value`, or of what `attribute` names in them.
/// `default` takes the place of what is undefined.
pub(super) fn check(
    filter: &str,
    value: &Value,
    attribute: Option<&Value>,
    default: &Value,
) -> Result<(), Error> {
    let paths: Vec<Value> = match attribute.map(|path| (path, path.as_str())) {
        None => vec![],
        Some((_, Some(paths))) => paths.split(',').map(Value::from).collect(),
        Some((path, None)) => vec![path.clone()],
    };
    let key = |item: &Value, path| match by_path(item.clone(), path) {
        Ok(key) if key.is_undefined() => Ok(default.clone()),
        key => key,
    };
    let mut keys = Vec::new();
    for item in items(value.clone())?.try_iter()?.checked() {
        let item = item?;
        keys.push(match paths.as_slice() {
            [] => item,
            [path] => key(&item, path)?,
            paths => paths.iter().map(|path| key(&item, path)).collect::<Result<Vec<_>, _>>()?.into(),
        });
    }
    if filter == "sort" {
        // It compares lists, where equal values need no order.
        keys = keys.into_iter().map(|key| Value::from(vec![key])).collect();
    }
    check_keys(filter, keys)
}

/// Says which of `keys` cannot be sorted, as sorting meets them.
pub(super) fn check_keys(filter: &str, keys: Vec<Value>) -> Result<(), Error> {
    let kind = |key: &Value| match key.kind() {
        ValueKind::Seq if key.len() == Some(1) => {
            key.get_item_by_index(0).map_or(ValueKind::Seq, |key| key.kind())
        }
        kind => kind,
    };
    let same = |kinds: &[ValueKind]| keys.iter().all(|key| kinds.contains(&kind(key)));
    if same(&[ValueKind::String]) || same(&[ValueKind::Number, ValueKind::Bool]) {
        return Ok(());
    }
    merge(filter, keys).map(|_| ())
}

fn merge(filter: &str, mut keys: Vec<Value>) -> Result<Vec<Value>, Error> {
    if keys.len() < 2 {
        return Ok(keys);
    }
    let right = keys.split_off(keys.len() / 2);
    let (left, right) = (merge(filter, keys)?, merge(filter, right)?);
    let mut sorted = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let order = compare(b, a, 0)?.ok_or_else(|| {
            invalid(format!("{filter}: {} and {} have no order", type_name(a), type_name(b)))
        })?;
        sorted.extend(if order == Some(Ordering::Less) { right.next() } else { left.next() });
    }
    sorted.extend(left.chain(right));
    Ok(sorted)
}

/// The attribute `a.b.0` of an item.
pub(super) fn by_path(item: Value, path: &Value) -> Result<Value, Error> {
    let Some(path) = path.as_str() else { return item.get_item(path) };
    path.split('.').try_fold(item, |item, part| match part.parse::<usize>() {
        Ok(index) => item.get_item(&Value::from(index)),
        Err(_) => super::operators::item(item, Value::from(part)),
    })
}
