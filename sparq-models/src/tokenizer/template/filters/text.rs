//! Filters of texts.

use minijinja::{
    Environment, Error, Value,
    value::{Kwargs, Tuple},
};

use super::super::arguments::{bind, integer, missing, split, text, truth};
use super::super::format::{Side, check_length, invalid, pad, text_of};
use super::super::methods::text::{case::capitalize, is_space, lines, replace, strip};
use super::super::operators;
use super::super::order::by_path;
use super::super::percent::percent;
use super::{add, one, soft};

pub(super) fn register(environment: &mut Environment<'static>) {
    add(environment, "string", |arguments| {
        let value = one("string", arguments)?;
        Ok(if value.as_str().is_some() { value } else { Value::from(text_of(&value)?) })
    });
    add(environment, "upper", |arguments| map("upper", arguments, |text| text.to_uppercase()));
    add(environment, "lower", |arguments| map("lower", arguments, |text| text.to_lowercase()));
    add(environment, "capitalize", |arguments| map("capitalize", arguments, capitalize));
    add(environment, "title", |arguments| map("title", arguments, title));
    add(environment, "wordcount", |arguments| {
        let text = soft("wordcount", Some(one("wordcount", arguments)?))?;
        let words = text.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|word| !word.is_empty());
        Ok(Value::from(words.count()))
    });
    add(environment, "trim", |arguments| {
        let [value, chars] = bind("trim", ["value", "chars"], arguments)?;
        let text = soft("trim", value)?;
        let chars = chars.filter(|chars| !chars.is_none()).map(|chars| text_of(&chars)).transpose()?;
        Ok(Value::from(strip(&text, chars.as_deref(), true, true)))
    });
    add(environment, "replace", |arguments| {
        let [value, old, new, count] = bind("replace", ["s", "old", "new", "count"], arguments)?;
        let count = integer("replace", "count", count.filter(|count| !count.is_none()), -1)?;
        replace(&soft("replace", value)?, &soft("replace", old)?, &soft("replace", new)?, count)
            .map(Value::from)
    });
    add(environment, "center", |arguments| {
        let [value, width] = bind("center", ["value", "width"], arguments)?;
        let width = usize::try_from(integer("center", "width", width, 80)?).unwrap_or(0);
        pad(&soft("center", value)?, width, Side::Both, ' ').map(Value::from)
    });
    add(environment, "format", |arguments| {
        let (placed, named) = split(arguments)?;
        let (format, values) = placed.split_first().ok_or_else(|| missing("format", "value"))?;
        if format.is_safe() {
            return Err(invalid("format: a safe text is not supported"));
        }
        let values = match named {
            Some(_) if !values.is_empty() => {
                return Err(invalid("format: values by place or by name, not both"));
            }
            Some(named) => Value::from_pairs(pairs(&named)?),
            None => Value::from(Tuple::from(values.to_vec())),
        };
        percent(&text_of(format)?, &values)
    });
    add(environment, "join", join);
    add(environment, "indent", indent);
    add(environment, "truncate", truncate);
    for name in ["escape", "e", "forceescape"] {
        environment.add_filter(name, move |value: Value| -> Result<Value, Error> {
            Ok(match value.is_safe() && name != "forceescape" {
                true => value,
                false => Value::from_safe_string(operators::escape(&text_of(&value)?)),
            })
        });
    }
}

fn pairs(named: &Kwargs) -> Result<Vec<(String, Value)>, Error> {
    named.args().map(|name| Ok((name.to_owned(), named.peek(name)?))).collect()
}

fn map(name: &str, arguments: &[Value], change: impl Fn(&str) -> String) -> Result<Value, Error> {
    let text = change(&soft(name, Some(one(name, arguments)?))?);
    Ok(Value::from(text))
}

/// Words begin behind `-`, white space and opening brackets.
fn title(text: &str) -> String {
    let begins = |c: char| is_space(c) || "-({[<".contains(c);
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(begins) {
        let mut chars = word.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(&chars.as_str().to_lowercase());
    }
    out
}

/// `join(value, d='', attribute=none)`.
fn join(arguments: &[Value]) -> Result<Value, Error> {
    let [value, between, attribute] = bind("join", ["value", "d", "attribute"], arguments)?;
    let between = between.map_or(Ok(String::new()), |between| text_of(&between))?;
    let attribute = attribute.filter(|attribute| !attribute.is_none());
    let items = operators::items(value.ok_or_else(|| missing("join", "value"))?)?;
    let mut out = String::new();
    for (index, item) in items.try_iter()?.checked().enumerate() {
        let mut item = item?;
        if let Some(attribute) = &attribute {
            item = by_path(item, attribute)?;
        }
        if index > 0 {
            out.push_str(&between);
        }
        out.push_str(&text_of(&item)?);
        check_length(Some(out.len()))?;
    }
    Ok(Value::from(out))
}

/// `indent(s, width=4, first=false, blank=false)`.
fn indent(arguments: &[Value]) -> Result<Value, Error> {
    let [value, width, first, blank] = bind("indent", ["s", "width", "first", "blank"], arguments)?;
    let text = text("indent", "s", value)? + "\n";
    let (first, blank) = (truth(first, false), truth(blank, false));
    let indent = match width.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => {
            let width = usize::try_from(integer("indent", "width", width, 4)?).unwrap_or(0);
            check_length(Some(width))?;
            " ".repeat(width)
        }
    };
    let mut out = String::new();
    for (index, line) in lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&indent);
        }
        out.push_str(line);
        check_length(Some(out.len()))?;
    }
    Ok(Value::from(out))
}

/// `truncate(s, length=255, killwords=false, end='...', leeway=5)`.
fn truncate(arguments: &[Value]) -> Result<Value, Error> {
    let names = ["s", "length", "killwords", "end", "leeway"];
    let [value, length, cut_words, end, leeway] = bind("truncate", names, arguments)?;
    let text = soft("truncate", value)?;
    let end = end.map_or(Ok("...".to_owned()), |end| text_of(&end))?;
    let length = usize::try_from(integer("truncate", "length", length, 255)?).unwrap_or(0);
    let leeway =
        usize::try_from(integer("truncate", "leeway", leeway.filter(|leeway| !leeway.is_none()), 5)?)
            .unwrap_or(0);
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(invalid("truncate: `length` is shorter than `end`"));
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let kept: String = text.chars().take(kept).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((words, _)) if !truth(cut_words, false) => words,
        _ => &kept,
    };
    Ok(Value::from(kept.to_owned() + &end))
}
