//! Python's format specifications, `[[fill]align][sign][#][0][width][grouping][.precision][kind]`, and how they
//! write a value. `%` of texts writes its numbers with them as well.

use minijinja::{Error, Value};

use super::format::{check_length, float, invalid, text_of, type_name};
use super::operators;

/// Most digits behind the point of a number.
const PRECISION: usize = 4096;

/// How a value is written.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) fill: char,
    /// One of `<`, `>`, `^` and `=`; the usual side of the type without it.
    pub(super) align: Option<char>,
    /// One of `-`, `+` and a blank.
    pub(super) sign: Option<char>,
    /// `#`.
    pub(super) alternate: bool,
    pub(super) width: usize,
    /// `,` or `_` between groups of digits.
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

/// `format(value, spec)`.
pub(super) fn format_value(value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return text_of(value);
    }
    match type_name(value) {
        "str" => Spec::parse(spec, false)?.text(value.as_str().unwrap_or_default()),
        "int" | "bool" | "float" => Spec::parse(spec, true)?.number(value),
        name => Err(invalid(format!("a format such as `:{spec}` is not defined for {name}"))),
    }
}

impl Spec {
    fn parse(spec: &str, of_number: bool) -> Result<Self, Error> {
        let is_align = |c: Option<char>| c.filter(|c| "<>=^".contains(*c));
        let wrong = || invalid(format!("`{spec}` is no format specification"));
        let mut rest = spec;
        let mut chars = spec.chars();
        let (first, second) = (chars.next(), chars.next());
        let (mut fill, mut align) = (None, None);
        if let Some(side) = is_align(second) {
            (fill, align) = (first, Some(side));
            rest = chars.as_str();
        } else if let Some(side) = is_align(first) {
            align = Some(side);
            rest = &spec[1..];
        }
        let mut skip = |any: &str| {
            let found = rest.chars().next().filter(|c| any.contains(*c));
            rest = &rest[found.map_or(0, char::len_utf8)..];
            found
        };
        let sign = skip("+- ");
        if skip("z").is_some() {
            return Err(invalid("the sign `z` of a format is not supported"));
        }
        let alternate = skip("#").is_some();
        if skip("0").is_some() {
            align = align.or(of_number.then_some('='));
            fill = fill.or(Some('0'));
        }
        let digits = |rest: &mut &str| -> Result<Option<usize>, Error> {
            let (number, behind) =
                rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
            *rest = behind;
            match number {
                "" => Ok(None),
                number => match number.parse::<usize>() {
                    Ok(number) => check_length(Some(number)).map(|()| Some(number)),
                    Err(_) => check_length(None).map(|()| None),
                },
            }
        };
        let width = digits(&mut rest)?.unwrap_or(0);
        let grouping = rest.chars().next().filter(|c| ",_".contains(*c));
        rest = &rest[grouping.map_or(0, char::len_utf8)..];
        let mut precision = None;
        if let Some(behind) = rest.strip_prefix('.') {
            rest = behind;
            precision = Some(digits(&mut rest)?.ok_or_else(wrong)?);
        }
        let mut chars = rest.chars();
        let kind = chars.next();
        if chars.next().is_some() {
            return Err(wrong());
        }
        let spec =
            Self { fill: fill.unwrap_or(' '), align, sign, alternate, width, grouping, precision, kind };
        match (grouping, kind) {
            (None, _) | (Some(_), None | Some('d' | 'e' | 'f' | 'g' | 'E' | 'F' | 'G' | '%')) => Ok(spec),
            (Some('_'), Some('b' | 'o' | 'x' | 'X')) => Ok(spec),
            _ => Err(wrong()),
        }
    }

    /// A text: cut to the precision, filled up to the width.
    pub(super) fn text(&self, text: &str) -> Result<String, Error> {
        if self.sign.is_some()
            || self.alternate
            || self.align == Some('=')
            || self.grouping.is_some()
            || !matches!(self.kind, None | Some('s'))
        {
            return Err(invalid("a format of numbers does not take a text"));
        }
        let text: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        self.aligned("", &text, '<')
    }

    /// An integer, a float or a truth value, which is an integer.
    pub(super) fn number(&self, value: &Value) -> Result<String, Error> {
        let integer = match type_name(value) {
            "float" => None,
            _ => Some(operators::integer(value).ok_or_else(|| invalid("an integer beyond 128 bits"))?),
        };
        let unknown =
            |kind: char| invalid(format!("the format `{kind}` is not defined for {}", type_name(value)));
        match (integer, self.kind) {
            (Some(_), Some('d' | 'n' | 'b' | 'o' | 'x' | 'X') | None) if self.precision.is_some() => {
                Err(invalid("a format of integers has no precision"))
            }
            (Some(integer), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X')) => self.integer(integer, 0),
            (Some(code), Some('c')) if self.sign.is_none() && self.precision.is_none() && !self.alternate => {
                let c = u32::try_from(code).ok().and_then(char::from_u32);
                self.aligned("", &c.ok_or_else(|| invalid("`c` of no character"))?.to_string(), '>')
            }
            (integer, None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%')) => {
                let number = match integer {
                    Some(integer) => integer as f64,
                    None => f64::try_from(value.clone())?,
                };
                self.float(number)
            }
            (_, Some(kind)) => Err(unknown(kind)),
        }
    }

    fn signed(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            (false, _) => "",
        }
    }

    /// An integer of at least `least` digits.
    pub(super) fn integer(&self, integer: i128, least: usize) -> Result<String, Error> {
        let magnitude = integer.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('b') => ("0b", format!("{magnitude:b}")),
            Some('o') => ("0o", format!("{magnitude:o}")),
            Some('x') => ("0x", format!("{magnitude:x}")),
            Some('X') => ("0X", format!("{magnitude:X}")),
            _ => ("", magnitude.to_string()),
        };
        check_length(Some(least))?;
        let prefix = if self.alternate { prefix } else { "" };
        let digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
        self.assembled(self.signed(integer < 0), prefix, &digits, "")
    }

    pub(super) fn float(&self, number: f64) -> Result<String, Error> {
        let sign = self.signed(number.is_sign_negative() && !number.is_nan());
        let kind = self.kind.unwrap_or('r');
        let percent = if kind == '%' { "%" } else { "" };
        if !number.is_finite() {
            let word = if number.is_nan() { "nan" } else { "inf" };
            let word = if kind.is_uppercase() { word.to_uppercase() } else { word.to_owned() };
            return self.assembled(sign, "", "", &(word + percent));
        }
        let precision = self.precision.unwrap_or(6);
        if precision > PRECISION {
            return Err(invalid(format!("a number with more than {PRECISION} digits behind its point")));
        }
        let number = number.abs();
        let text = match kind {
            'e' | 'E' => scientific(number, precision, self.alternate),
            'f' | 'F' => fixed(number, precision, self.alternate),
            '%' => fixed(number * 100.0, precision, self.alternate),
            'g' | 'G' | 'n' => general(number, precision, self.alternate, false),
            _ if self.precision.is_some() => general(number, precision, self.alternate, true),
            _ => float(number),
        };
        let text = if kind.is_uppercase() { text.to_uppercase() } else { text };
        let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        self.assembled(sign, "", digits, &format!("{rest}{percent}"))
    }

    /// Sign, prefix, digits with their groups, and what follows them.
    fn assembled(&self, sign: &str, prefix: &str, digits: &str, rest: &str) -> Result<String, Error> {
        let zeros = self.fill == '0' && self.align == Some('=');
        let around = sign.len() + prefix.len() + rest.len();
        let least = if zeros { self.width.saturating_sub(around) } else { 0 };
        check_length(Some(least))?;
        let size = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
        let mut reversed = String::with_capacity(least.max(digits.len()));
        let mut known = digits.chars().rev();
        let mut count = 0;
        while let Some(digit) = known.next().or_else(|| (reversed.len() < least).then_some('0')) {
            if let Some(sign) = self.grouping.filter(|_| count > 0 && count % size == 0) {
                reversed.push(sign);
            }
            reversed.push(digit);
            count += 1;
        }
        let digits: String = reversed.chars().rev().collect();
        self.aligned(&format!("{sign}{prefix}"), &format!("{digits}{rest}"), '>')
    }

    /// Fills up to the width, on the side of `usual` where none is named.
    fn aligned(&self, sign: &str, text: &str, usual: char) -> Result<String, Error> {
        let missing = self.width.saturating_sub(sign.chars().count() + text.chars().count());
        check_length(missing.checked_mul(self.fill.len_utf8()))?;
        let fill = |count: usize| std::iter::repeat_n(self.fill, count).collect::<String>();
        Ok(match self.align.unwrap_or(usual) {
            '<' => format!("{sign}{text}{}", fill(missing)),
            '^' => format!("{}{sign}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{sign}{}{text}", fill(missing)),
            _ => format!("{}{sign}{text}", fill(missing)),
        })
    }
}

/// `%f`.
fn fixed(number: f64, precision: usize, point: bool) -> String {
    let text = format!("{number:.precision$}");
    if point && precision == 0 { text + "." } else { text }
}

/// `%e`: the exponent has a sign and at least two digits.
fn scientific(number: f64, precision: usize, point: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    let point = if point && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{sign}{exponent:0>2}")
}

/// `%g`: `precision` digits in all, in the shorter of both forms. With `as_float` a digit follows the point.
fn general(number: f64, precision: usize, keep_zeros: bool, as_float: bool) -> String {
    let precision = precision.max(1);
    let places = i32::try_from(precision).unwrap_or(i32::MAX);
    let long = scientific(number, precision - 1, keep_zeros);
    let (digits, exponent) = long.split_once('e').unwrap_or((&long, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let stripped = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..places - i32::from(as_float)).contains(&exponent) {
        let decimals = usize::try_from(places - 1 - exponent).unwrap_or(0);
        let text = stripped(&fixed(number, decimals, keep_zeros));
        return if as_float && !text.contains('.') { text + ".0" } else { text };
    }
    format!("{}{}", stripped(digits), &long[digits.len()..])
}
