//! Filters of lists. Those that Jinja2 writes as generators give generators.

use std::borrow::Cow;

use minijinja::{
    Environment, Error, State, Value, filters,
    value::{Kwargs, Rest, ValueOrKwargs},
};

use super::super::arguments::{bind, missing, split};
use super::super::format::{invalid, type_name};
use super::super::lazy::{Generator, View};
use super::super::{methods, operators, order};
use super::{add, one};

type ByAttribute = fn(
    &mut State<'_, '_>,
    Value,
    Cow<'_, str>,
    Option<Cow<'_, str>>,
    Rest<ValueOrKwargs>,
) -> Result<Vec<Value>, Error>;

type ByValue =
    fn(&mut State<'_, '_>, Value, Option<Cow<'_, str>>, Rest<ValueOrKwargs>) -> Result<Vec<Value>, Error>;

pub(super) fn register(environment: &mut Environment<'static>) {
    named(environment, "sort", ["reverse", "case_sensitive", "attribute"], filters::sort);
    named(environment, "unique", ["case_sensitive", "attribute"], |state, value, named| {
        filters::unique(state, value, named).and_then(|unique| generator(&unique))
    });
    named(environment, "min", ["case_sensitive", "attribute"], filters::min);
    named(environment, "max", ["case_sensitive", "attribute"], filters::max);
    named(environment, "groupby", ["attribute", "default", "case_sensitive"], |_, value, named| {
        let attribute: Value = named.get("attribute")?;
        let attribute =
            attribute.as_str().ok_or_else(|| invalid("groupby: `attribute` is a text"))?.to_owned();
        filters::groupby(value, Some(&attribute), named)
    });
    named(environment, "dictsort", ["case_sensitive", "by", "reverse"], |_, value, named| {
        filters::dictsort(&value, named)
    });
    placed(environment, "batch", ["value", "linecount", "fill_with"], filters::batch);
    placed(environment, "slice", ["value", "slices", "fill_with"], filters::slice);
    add(environment, "items", items);
    add(environment, "reverse", reverse);
    add(environment, "first", |arguments| end("first", &one("first", arguments)?));
    add(environment, "last", |arguments| end("last", &one("last", arguments)?));
    add(environment, "sum", sum);
    environment.add_filter(
        "map",
        |state: &mut State<'_, '_>, value: Value, arguments: Rest<ValueOrKwargs>| {
            let Some(value) = filled(value)? else { return Ok(Generator::of(vec![])) };
            let values = arguments.iter().cloned().collect::<Vec<_>>();
            if let (_, Some(named)) = split(&Rest(values).into_values())?
                && named.has("attribute")
            {
                keys_only("map", &value, &named.peek("attribute")?)?;
            }
            filters::map(state, value, arguments).map(Generator::of)
        },
    );
    for (name, filter) in
        [("selectattr", filters::selectattr as ByAttribute), ("rejectattr", filters::rejectattr)]
    {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>,
                  value: Value,
                  attribute: String,
                  test: Option<String>,
                  arguments: Rest<ValueOrKwargs>| {
                let Some(value) = filled(value)? else { return Ok(Generator::of(vec![])) };
                keys_only(name, &value, &Value::from(attribute.as_str()))?;
                filter(state, value, attribute.into(), test.map(Cow::from), arguments).map(Generator::of)
            },
        );
    }
    for (name, filter) in [("select", filters::select as ByValue), ("reject", filters::reject)] {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>,
                  value: Value,
                  test: Option<String>,
                  arguments: Rest<ValueOrKwargs>| {
                let Some(value) = filled(value)? else { return Ok(Generator::of(vec![])) };
                filter(state, value, test.map(Cow::from), arguments).map(Generator::of)
            },
        );
    }
}

/// A list as what can be gone through once.
fn generator(list: &Value) -> Result<Value, Error> {
    Ok(Generator::of(list.try_iter()?.collect()))
}

/// What a filter goes through, where there is anything: Jinja2 takes what is not true for an empty list.
fn filled(value: Value) -> Result<Option<Value>, Error> {
    match value.is_true() {
        true => operators::items(value).map(Some),
        false => Ok(None),
    }
}

/// `items(value)`: of a dictionary, or nothing of what is undefined.
fn items(arguments: &[Value]) -> Result<Value, Error> {
    let value = one("items", arguments)?;
    match type_name(&value) {
        "undefined" => Ok(Generator::of(vec![])),
        "dict" => generator(&View::of(&value, "items").unwrap_or_default()),
        name => Err(invalid(format!("items: a dictionary has items, {name} has not"))),
    }
}

/// `reverse(value)`: a text, or what goes through the value from its end.
fn reverse(arguments: &[Value]) -> Result<Value, Error> {
    let value = one("reverse", arguments)?;
    if value.as_str().is_some() {
        return filters::reverse(&value);
    }
    let mut items: Vec<Value> = operators::items(value.clone())?.try_iter()?.collect();
    items.reverse();
    // What cannot be gone through from its end becomes a list there.
    Ok(if type_name(&value) == "generator" { Value::from(items) } else { Generator::of(items) })
}

/// The first or the last item.
fn end(name: &str, value: &Value) -> Result<Value, Error> {
    if name == "first" && type_name(value) == "generator" {
        return value.try_iter()?.checked().next().unwrap_or(Ok(Value::UNDEFINED));
    }
    if type_name(value) == "generator" {
        return Err(invalid(
            "last: what a filter such as `map` or `select` gives has no last item; `|list|last` has",
        ));
    }
    if let Some(text) = value.as_str() {
        let c = if name == "first" { text.chars().next() } else { text.chars().next_back() };
        return Ok(c.map_or(Value::UNDEFINED, |c| match value.is_safe() {
            true => Value::from_safe_string(c.to_string()),
            false => Value::from(c),
        }));
    }
    let mut items = operators::items(value.clone())?.try_iter()?;
    Ok(if name == "first" { items.next() } else { items.last() }.unwrap_or_default())
}

/// `sum(iterable, attribute=none, start=0)`.
fn sum(arguments: &[Value]) -> Result<Value, Error> {
    let [value, attribute, start] = bind("sum", ["iterable", "attribute", "start"], arguments)?;
    let attribute = attribute.filter(|attribute| !attribute.is_none());
    let start = start.unwrap_or_else(|| Value::from(0));
    if type_name(&start) == "str" {
        return Err(invalid("sum: texts have no sum; `|join` joins them"));
    }
    let items = operators::items(value.ok_or_else(|| missing("sum", "iterable"))?)?;
    items.try_iter()?.try_fold(start, |sum, item| {
        let item = attribute.iter().try_fold(item, order::by_path)?;
        operators::add("+", sum, item)
    })
}

/// One of minijinja's filters that take options by name only.
fn named<const N: usize>(
    environment: &mut Environment<'static>,
    name: &'static str,
    options: [&'static str; N],
    filter: fn(&State<'_, '_>, Value, Kwargs) -> Result<Value, Error>,
) {
    environment.add_filter(
        name,
        move |state: &State<'_, '_>, value: Value, arguments: Rest<ValueOrKwargs>| {
            // Gone through twice: to be checked, and by the filter.
            let value = operators::items(value)?;
            let bound = bind(name, options, &arguments.into_values())?;
            let given =
                options.iter().zip(bound).filter_map(|(option, value)| Some(((*option).to_owned(), value?)));
            let given = given.collect::<Kwargs>();
            ordered(name, &value, &given)?;
            filter(state, value, given)
        },
    );
}

/// Refuses items in which `attribute` is a method of Python's and no key: minijinja does not find it.
fn keys_only(filter: &str, value: &Value, attribute: &Value) -> Result<(), Error> {
    let is_method = |part: &str| methods::is_one(part);
    if !attribute.as_str().is_some_and(|path| path.split('.').any(is_method)) {
        return Ok(());
    }
    for item in value.try_iter()? {
        if type_name(&order::by_path(item, attribute)?) == "object" {
            return Err(invalid(format!("{filter}: `{attribute}` is a method where there is no such key")));
        }
    }
    Ok(())
}

/// Refuses what Python cannot sort: minijinja gives any two values an order.
fn ordered(name: &str, value: &Value, options: &Kwargs) -> Result<(), Error> {
    let option =
        |name: &str| if options.has(name) { options.peek::<Value>(name).map(Some) } else { Ok(None) };
    match name {
        "unique" => {
            let attribute = option("attribute")?.filter(|attribute| !attribute.is_none());
            for item in value.try_iter()? {
                let key = attribute.iter().try_fold(item, order::by_path)?;
                if matches!(type_name(&key), "list" | "dict") {
                    return Err(invalid(format!(
                        "unique: Python does not compare values of the type {}",
                        type_name(&key)
                    )));
                }
            }
            Ok(())
        }
        "dictsort" => {
            let by_value = option("by")?.is_some_and(|by| by.as_str() == Some("value"));
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten();
            order::check_keys(name, pairs.map(|(key, value)| if by_value { value } else { key }).collect())
        }
        "groupby" => {
            let default = option("default")?.unwrap_or_default();
            order::check(name, value, option("attribute")?.as_ref(), &default)
        }
        _ => {
            let attribute = option("attribute")?.filter(|attribute| !attribute.is_none());
            order::check(name, value, attribute.as_ref(), &Value::UNDEFINED)
        }
    }
}

/// One of minijinja's filters that take a count and a filling by place only.
fn placed(
    environment: &mut Environment<'static>,
    name: &'static str,
    names: [&'static str; 3],
    filter: fn(&State<'_, '_>, Value, usize, Option<Value>) -> Result<Value, Error>,
) {
    environment.add_filter(name, move |state: &State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let [value, count, fill] = bind(name, names, &arguments.into_values())?;
        let value = operators::items(value.ok_or_else(|| missing(name, names[0]))?)?;
        let count = usize::try_from(count.ok_or_else(|| missing(name, names[1]))?)?;
        filter(state, value, count, fill.filter(|fill| !fill.is_none())).and_then(|list| generator(&list))
    });
}
