//! The tags of a template and their tokens, by the rules of Jinja2's lexer.

use std::ops::Range;

use super::SyntaxError;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Integer,
    Float,
    Text,
    Operator,
}

/// A word of an expression and its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A tag of a template.
#[derive(Debug)]
pub(super) enum Part {
    /// `{% raw %}`, up to its `endraw`. `end` is where the `%}` of the first tag begins, where that has no sign.
    Raw { end: usize },
    /// `{{ … }}`; the range is that of the whole tag.
    Output { tokens: Vec<Token>, range: Range<usize> },
    /// `{% … %}`.
    Statement { tokens: Vec<Token>, range: Range<usize> },
}

/// The longest come first.
const OPERATORS: &[&str] = &[
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// The tags of `source`, comments left out.
pub(super) fn parts(source: &str) -> impl Iterator<Item = Result<Part, SyntaxError>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + ["{{", "{%", "{#"].iter().filter_map(|tag| source[at..].find(tag)).min()?;
            match &source[start..start + 2] {
                "{#" => match source[start + 2..].find("#}") {
                    Some(length) => at = start + 2 + length + 2,
                    None => {
                        at = source.len();
                        return Some(Err(SyntaxError::new(start..start + 2, "the comment has no end")));
                    }
                },
                tag => {
                    let part = match tag {
                        "{%" => raw(source, start).unwrap_or_else(|| tag_at(source, start)),
                        _ => tag_at(source, start),
                    };
                    let (part, end) = match part {
                        Ok((part, end)) => (Ok(part), end),
                        Err(error) => (Err(error), source.len()),
                    };
                    at = end;
                    match part {
                        // With a sign of its own, it needs none.
                        Ok(Part::Raw { end: 0 }) => {}
                        part => return Some(part),
                    }
                }
            }
        }
    })
}

/// A raw block at `start`, and where it ends.
fn raw(source: &str, start: usize) -> Option<Result<(Part, usize), SyntaxError>> {
    let open = name_tag(source, start, "raw")?;
    let mut from = open;
    while let Some(next) = source[from..].find("{%") {
        let next = from + next;
        if let Some(end) = name_tag(source, next, "endraw") {
            let sign = source[..open - 2].ends_with(['-', '+']);
            return Some(Ok((Part::Raw { end: if sign { 0 } else { open - 2 } }, end)));
        }
        from = next + 2;
    }
    Some(Err(SyntaxError::new(start..open, "the raw block has no end")))
}

/// Where the tag `{% name %}` at `start` ends, if it is one.
fn name_tag(source: &str, start: usize, name: &str) -> Option<usize> {
    let rest = &source[start + 2..];
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start();
    let rest = rest.strip_prefix(name)?.trim_start();
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(source.len() - rest.len())
}

/// The tag at `start` and where it ends.
fn tag_at(source: &str, start: usize) -> Result<(Part, usize), SyntaxError> {
    let block = source[start..].starts_with("{%");
    let close = if block { "%}" } else { "}}" };
    let mut at = start + 2;
    if source[at..].starts_with(['-', '+']) {
        at += 1;
    }
    let mut tokens = Vec::new();
    let mut open = Vec::new();
    loop {
        let rest = &source[at..];
        let Some(next) = rest.chars().next() else {
            return Err(SyntaxError::new(start..start + 2, format!("the tag has no `{close}`")));
        };
        if next.is_whitespace() {
            at += next.len_utf8();
            continue;
        }
        if open.is_empty() {
            // An output may end with `-` only.
            let signed = rest.strip_prefix(if block { &['-', '+'][..] } else { &['-'] });
            let signed = signed.filter(|rest| rest.starts_with(close));
            if signed.is_some() || rest.starts_with(close) {
                let end = at + 2 + usize::from(signed.is_some());
                let range = start..end;
                let part = match block {
                    true => Part::Statement { tokens, range },
                    false => Part::Output { tokens, range },
                };
                return Ok((part, end));
            }
        }
        let token = token_at(source, at)?;
        let bracket = &source[token.start..token.end];
        match bracket {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" if token.kind == Kind::Operator && open.pop() != Some(bracket) => {
                return Err(SyntaxError::new(token.start..token.end, format!("unexpected `{bracket}`")));
            }
            _ => {}
        }
        at = token.end;
        tokens.push(token);
    }
}

fn token_at(source: &str, start: usize) -> Result<Token, SyntaxError> {
    let rest = &source[start..];
    let token = |kind, length| Ok(Token { kind, start, end: start + length });
    let first = rest.chars().next().unwrap_or(' ');
    if first.is_ascii_digit() {
        let (kind, length) = number(rest);
        return token(kind, length);
    }
    if first == '_' || first.is_alphanumeric() {
        let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        return token(Kind::Name, length);
    }
    if first == '\'' || first == '"' {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return token(Kind::Text, index + 1),
                _ => {}
            }
        }
        return Err(SyntaxError::new(start..source.len(), "the text has no closing quote"));
    }
    match OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
        Some(operator) => token(Kind::Operator, operator.len()),
        None => Err(SyntaxError::new(start..start + first.len_utf8(), format!("unexpected `{first}`"))),
    }
}

/// Kind and length of the number that `rest` begins with.
fn number(rest: &str) -> (Kind, usize) {
    let digits = |text: &str, radix: u32| -> usize {
        text.find(|c: char| c != '_' && !c.is_digit(radix)).unwrap_or(text.len())
    };
    let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    if let Some(radix) = radix {
        let length = digits(&rest[2..], radix);
        return (Kind::Integer, 2 + length);
    }
    let mut length = digits(rest, 10);
    let mut kind = Kind::Integer;
    let fraction = rest[length..].strip_prefix('.').map_or(0, |rest| {
        match rest.starts_with(|c: char| c.is_ascii_digit()) {
            true => 1 + digits(rest, 10),
            false => 0,
        }
    });
    if fraction > 0 {
        (kind, length) = (Kind::Float, length + fraction);
    }
    if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
            let sign = exponent.len() - unsigned.len();
            (kind, length) = (Kind::Float, length + 1 + sign + digits(unsigned, 10));
        }
    }
    (kind, length)
}

/// The characters that a text constant stands for, as minijinja reads them again: with the quotes, on as many
/// lines as in the source.
pub(super) fn text_constant(source: &str, token: Token) -> Result<Option<String>, SyntaxError> {
    let inner = &source[token.start + 1..token.end - 1];
    if !inner.contains('\\') {
        return Ok(None);
    }
    let fail = |message: &str| SyntaxError::new(token.start..token.end, message);
    let mut text = String::from("\"");
    let mut push = |c: char, escaped: bool| match c {
        '"' | '\\' => text.extend(['\\', c]),
        '\n' if escaped => text.push_str("\\n"),
        c => text.push(c),
    };
    let mut chars = inner.chars();
    let mut lines = 0;
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(c, false);
            continue;
        }
        let Some(kind) = chars.next() else { break };
        let mut code = |length: usize, radix: u32| {
            let digits: String = chars.clone().take_while(|c| c.is_digit(radix)).take(length).collect();
            chars = chars.as_str()[digits.len()..].chars();
            u32::from_str_radix(&digits, radix).ok().filter(|_| digits.len() == length || radix == 8)
        };
        let character = match kind {
            // An escaped line break is none, but it counts as a line.
            '\n' => {
                lines += 1;
                continue;
            }
            '\\' | '\'' | '"' => kind,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => code(2, 16)
                .and_then(char::from_u32)
                .ok_or_else(|| fail("`\\x` needs two hexadecimal digits"))?,
            // Python keeps half of a surrogate pair, which no tokenizer takes.
            'u' => {
                let code = code(4, 16).ok_or_else(|| fail("`\\u` needs four hexadecimal digits"))?;
                char::from_u32(code).ok_or_else(|| fail("`\\u` of half a character"))?
            }
            'U' => code(8, 16)
                .and_then(char::from_u32)
                .ok_or_else(|| fail("`\\U` needs eight hexadecimal digits of a character"))?,
            'N' => return Err(fail("characters by name, `\\N{…}`, are not supported")),
            '0'..='7' => {
                let digits: String = chars.clone().take_while(|c| c.is_digit(8)).take(2).collect();
                chars = chars.as_str()[digits.len()..].chars();
                let code = u32::from_str_radix(&format!("{kind}{digits}"), 8).ok();
                code.and_then(char::from_u32).ok_or_else(|| fail("no such character"))?
            }
            other => {
                push('\\', true);
                other
            }
        };
        push(character, true);
    }
    Ok(Some(text + "\"" + &"\n".repeat(lines)))
}
