//! Arguments as Python binds them: by place or by name.

use minijinja::{Error, ErrorKind, Value, value::Kwargs};

use super::format::{invalid, type_name};

/// The arguments of a call in the order of `names`.
pub(super) fn bind<const N: usize>(
    function: &str,
    names: [&str; N],
    arguments: &[Value],
) -> Result<[Option<Value>; N], Error> {
    let mut bound = [const { None }; N];
    let (placed, named) = split(arguments)?;
    if placed.len() > N {
        let message = format!("{function} takes at most {N} arguments, not {}", placed.len());
        return Err(Error::new(ErrorKind::TooManyArguments, message));
    }
    for (slot, value) in bound.iter_mut().zip(placed) {
        *slot = Some(value.clone());
    }
    let Some(named) = named else { return Ok(bound) };
    for name in named.args() {
        let Some(index) = names.iter().position(|known| *known == name) else {
            let message = format!("{function} has no argument `{name}`");
            return Err(Error::new(ErrorKind::TooManyArguments, message));
        };
        if bound[index].is_some() {
            return Err(Error::new(
                ErrorKind::TooManyArguments,
                format!("{function}: `{name}` is given twice"),
            ));
        }
        bound[index] = Some(named.peek(name)?);
    }
    Ok(bound)
}

/// Arguments by place and by name.
pub(super) fn split(arguments: &[Value]) -> Result<(&[Value], Option<Kwargs>), Error> {
    match arguments.split_last() {
        Some((last, placed)) if last.is_kwargs() => Ok((placed, Some(Kwargs::try_from(last.clone())?))),
        _ => Ok((arguments, None)),
    }
}

/// A text that must be there.
pub(super) fn text(function: &str, name: &str, value: Option<Value>) -> Result<String, Error> {
    let value = value.ok_or_else(|| missing(function, name))?;
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(invalid(format!("{function}: `{name}` is a text, not {}", type_name(&value)))),
    }
}

/// An integer, `default` where it is absent.
pub(super) fn integer(function: &str, name: &str, value: Option<Value>, default: i64) -> Result<i64, Error> {
    match value {
        None => Ok(default),
        Some(value) if matches!(type_name(&value), "int" | "bool") => match super::operators::integer(&value)
        {
            Some(number) => Ok(i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })),
            None => Ok(i64::MAX),
        },
        Some(value) => Err(invalid(format!("{function}: `{name}` is an integer, not {}", type_name(&value)))),
    }
}

/// Whether an argument is true in Python's sense; absent ones are `default`.
pub(super) fn truth(value: Option<Value>, default: bool) -> bool {
    value.map_or(default, |value| value.is_true())
}

pub(super) fn missing(function: &str, name: &str) -> Error {
    Error::new(ErrorKind::MissingArgument, format!("{function}: `{name}` is missing"))
}
