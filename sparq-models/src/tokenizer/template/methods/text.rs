//! Python's methods of texts.

pub(in super::super) mod case;

use minijinja::{Error, ErrorKind, Value, value::Tuple};

use super::super::arguments::{bind, integer, missing, text, truth};
use super::super::format::{Side, check_length, invalid, pad, printable, type_name};
use super::super::{chars, fields};
use case::{capitalize, fold, swap_case, title};

/// The methods of Python's texts.
pub(in super::super) const NAMES: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// Calls `string.method(arguments)`.
pub(in super::super) fn call(string: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(changed) = plain(string, method) {
        bind(method, [], arguments)?;
        return Ok(changed);
    }
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = bind(method, ["chars"], arguments)?;
            let chars = chars
                .filter(|chars| !chars.is_none())
                .map(|chars| text(method, "chars", Some(chars)))
                .transpose()?;
            Ok(Value::from(strip(string, chars.as_deref(), method != "rstrip", method != "lstrip")))
        }
        "removeprefix" => {
            let [prefix] = bind(method, ["prefix"], arguments)?;
            Ok(Value::from(string.strip_prefix(&*text(method, "prefix", prefix)?).unwrap_or(string)))
        }
        "removesuffix" => {
            let [suffix] = bind(method, ["suffix"], arguments)?;
            Ok(Value::from(string.strip_suffix(&*text(method, "suffix", suffix)?).unwrap_or(string)))
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = bind(method, ["prefix", "start", "end"], arguments)?;
            let Some(range) = bounds(string, method, start, end)? else { return Ok(Value::from(false)) };
            let part = &string[range];
            let affix = affix.ok_or_else(|| missing(method, "prefix"))?;
            let affixes = match type_name(&affix) {
                "tuple" => affix.try_iter()?.collect(),
                _ => vec![affix],
            };
            for affix in affixes {
                let affix = text(method, "prefix", Some(affix))?;
                if if method == "startswith" { part.starts_with(&affix) } else { part.ends_with(&affix) } {
                    return Ok(Value::from(true));
                }
            }
            Ok(Value::from(false))
        }
        "split" | "rsplit" => {
            let [separator, most] = bind(method, ["sep", "maxsplit"], arguments)?;
            let most = usize::try_from(integer(method, "maxsplit", most, -1)?).unwrap_or(usize::MAX);
            match separator.filter(|separator| !separator.is_none()) {
                None => Ok(words(string, most, method == "rsplit").into_iter().map(Value::from).collect()),
                Some(separator) => match text(method, "sep", Some(separator))?.as_str() {
                    "" => Err(invalid(format!("{method}: empty separator"))),
                    separator => {
                        let count = most.saturating_add(1);
                        let mut parts: Vec<&str> = match method {
                            "split" => string.splitn(count, separator).collect(),
                            _ => string.rsplitn(count, separator).collect(),
                        };
                        if method == "rsplit" {
                            parts.reverse();
                        }
                        Ok(parts.into_iter().map(Value::from).collect())
                    }
                },
            }
        }
        "splitlines" => {
            let [keep] = bind(method, ["keepends"], arguments)?;
            Ok(lines(string, truth(keep, false)).into_iter().map(Value::from).collect())
        }
        "partition" | "rpartition" => {
            let [separator] = bind(method, ["sep"], arguments)?;
            let separator = text(method, "sep", separator)?;
            if separator.is_empty() {
                return Err(invalid(format!("{method}: empty separator")));
            }
            let parts = match method {
                "partition" => {
                    string.split_once(&*separator).map_or((string, "", ""), |(a, b)| (a, &*separator, b))
                }
                _ => string.rsplit_once(&*separator).map_or(("", "", string), |(a, b)| (a, &*separator, b)),
            };
            Ok(Value::from(Tuple::from([Value::from(parts.0), Value::from(parts.1), Value::from(parts.2)])))
        }
        "replace" => {
            let [old, new, count] = bind(method, ["old", "new", "count"], arguments)?;
            let count = integer(method, "count", count, -1)?;
            replace(string, &text(method, "old", old)?, &text(method, "new", new)?, count).map(Value::from)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [sub, start, end] = bind(method, ["sub", "start", "end"], arguments)?;
            let sub = text(method, "sub", sub)?;
            let range = bounds(string, method, start, end)?;
            let part = range.clone().map(|range| &string[range]);
            if method == "count" {
                return Ok(Value::from(part.map_or(0, |part| part.matches(&*sub).count())));
            }
            let find =
                |part: &str| if method.starts_with('r') { part.rfind(&*sub) } else { part.find(&*sub) };
            match part.and_then(find).zip(range) {
                Some((at, range)) => Ok(Value::from(string[..range.start + at].chars().count())),
                None if method.ends_with("find") => Ok(Value::from(-1)),
                None => Err(invalid("substring not found")),
            }
        }
        "join" => {
            let [items] = bind(method, ["iterable"], arguments)?;
            let items = super::super::operators::items(items.ok_or_else(|| missing(method, "iterable"))?)?;
            let mut out = String::new();
            for (index, item) in items.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(string);
                }
                out.push_str(&text(method, "iterable", Some(item))?);
                check_length(Some(out.len()))?;
            }
            Ok(Value::from(out))
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = bind(method, ["width", "fillchar"], arguments)?;
            let width = width.ok_or_else(|| missing(method, "width"))?;
            let width = usize::try_from(integer(method, "width", Some(width), 0)?).unwrap_or(0);
            if method == "zfill" {
                let digits = string.strip_prefix(['+', '-']).unwrap_or(string);
                let sign = &string[..string.len() - digits.len()];
                return Ok(Value::from(
                    sign.to_owned() + &pad(digits, width.saturating_sub(sign.len()), Side::Left, '0')?,
                ));
            }
            let fill = fill.map_or(Ok(" ".to_owned()), |fill| text(method, "fillchar", Some(fill)))?;
            let mut chars = fill.chars();
            let (Some(fill), None) = (chars.next(), chars.next()) else {
                return Err(invalid(format!(
                    "{method}: the fill character must be exactly one character long"
                )));
            };
            let side = match method {
                "center" => Side::Both,
                "ljust" => Side::Right,
                _ => Side::Left,
            };
            pad(string, width, side, fill).map(Value::from)
        }
        "expandtabs" => {
            let [size] = bind(method, ["tabsize"], arguments)?;
            let size = usize::try_from(integer(method, "tabsize", size, 8)?).unwrap_or(0);
            expand_tabs(string, size).map(Value::from)
        }
        "format" => fields::format(string, arguments),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Methods without arguments.
fn plain(string: &str, method: &str) -> Option<Value> {
    let all = |is: fn(char) -> bool| Value::from(!string.is_empty() && string.chars().all(is));
    let cased = |wanted: fn(char) -> bool, other: fn(char) -> bool| {
        Value::from(string.chars().any(wanted) && !string.chars().any(other))
    };
    Some(match method {
        "lower" => Value::from(string.to_lowercase()),
        "upper" => Value::from(string.to_uppercase()),
        "casefold" => Value::from(string.chars().map(fold).collect::<String>()),
        "capitalize" => Value::from(capitalize(string)),
        "title" => Value::from(title(string)),
        "swapcase" => Value::from(swap_case(string)),
        "isspace" => all(is_space),
        "isdigit" => all(chars::is_digit),
        "isdecimal" => all(chars::is_decimal),
        "isnumeric" => all(chars::is_numeric),
        "isalpha" => all(chars::is_letter),
        "isalnum" => all(|c| chars::is_letter(c) || chars::is_numeric(c)),
        "isascii" => Value::from(string.is_ascii()),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "istitle" => Value::from(string.chars().any(char::is_alphabetic) && title(string) == string),
        "isprintable" => Value::from(string.chars().all(printable)),
        "isidentifier" => Value::from(
            string.starts_with(|c: char| c == '_' || c.is_alphabetic())
                && string.chars().all(|c| c == '_' || c.is_alphanumeric()),
        ),
        _ => return None,
    })
}

/// White space as Python sees it.
pub(in super::super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `text.strip(chars)` on the sides that are named.
pub(in super::super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

/// `text.split()`: what stands between white space.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, true, true);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = cut.filter(|_| parts.len() < most) else {
            break;
        };
        let behind = at + rest[at..].chars().next().map_or(1, char::len_utf8);
        match from_right {
            true => {
                parts.push(&rest[behind..]);
                rest = strip(&rest[..at], None, false, true);
            }
            false => {
                parts.push(&rest[..at]);
                rest = strip(&rest[behind..], None, true, false);
            }
        }
    }
    // At the limit, the white space on the outer side stays.
    if !rest.is_empty() {
        let offset = rest.as_ptr() as usize - text.as_ptr() as usize;
        parts.push(match (parts.len() < most, from_right) {
            (true, _) => rest,
            (false, true) => strip(&text[..offset + rest.len()], None, false, true),
            (false, false) => strip(&text[offset..], None, true, false),
        });
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// `text.splitlines(keep)`.
pub(in super::super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_break = |c: char| {
        matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_break).unwrap_or(rest.len());
        let length = match rest[end..].starts_with("\r\n") {
            true => 2,
            false => rest[end..].chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep { end + length } else { end }]);
        rest = &rest[end + length..];
    }
    lines
}

/// `text.replace(old, new, count)`; a negative count replaces all.
pub(in super::super) fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    if new.len() > old.len() {
        let places = text.matches(old).count().min(most);
        check_length(places.checked_mul(new.len()).and_then(|length| length.checked_add(text.len())))?;
    }
    Ok(text.replacen(old, new, most))
}

/// The bytes between two places that are counted in characters, from the end where negative; none where the first
/// is behind the text, or behind the other.
fn bounds(
    text: &str,
    method: &str,
    start: Option<Value>,
    end: Option<Value>,
) -> Result<Option<std::ops::Range<usize>>, Error> {
    let given = |value: Option<Value>| value.filter(|value| !value.is_none());
    let (start, end) = (given(start), given(end));
    if start.is_none() && end.is_none() {
        return Ok(Some(0..text.len()));
    }
    let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let byte = |at: i64| {
        let at = if at < 0 { at.saturating_add(count).max(0) } else { at };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
    };
    let first = integer(method, "start", start, 0)?;
    let (start, end) = (byte(first), byte(integer(method, "end", end, count)?));
    Ok((first <= count && start <= end).then_some(start..end))
}

fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let fill = if size == 0 { 0 } else { size - column % size };
                check_length(out.len().checked_add(fill))?;
                out.extend(std::iter::repeat_n(' ', fill));
                column += fill;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out)
}
