//! The filter `tojson` as `transformers` defines it: Python's `json.dumps`, without escapes for HTML.

use minijinja::{Error, ErrorKind, Value};

use super::arguments::{bind, missing, truth};
use super::format::{NESTING, check_length, float, invalid, type_name};
use super::order::check_keys;

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn tojson(arguments: &[Value]) -> Result<String, Error> {
    let names = ["value", "ensure_ascii", "indent", "separators", "sort_keys"];
    let [value, ascii, indent, separators, sort] = bind("tojson", names, arguments)?;
    let value = value.ok_or_else(|| missing("tojson", "value"))?;
    let indent = match indent.filter(|indent| !indent.is_none() && !indent.is_undefined()) {
        None => None,
        Some(indent) if type_name(&indent) == "float" => {
            return Err(invalid("tojson: `indent` is an integer or a text"));
        }
        Some(indent) => Some(match (indent.as_str(), super::operators::integer(&indent)) {
            (Some(text), _) => text.to_owned(),
            (None, Some(width)) => {
                let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                check_length(Some(width))?;
                " ".repeat(width)
            }
            _ => return Err(invalid("tojson: `indent` is an integer or a text")),
        }),
    };
    let separators = match separators.filter(|separators| !separators.is_none()) {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(separators) => {
            let parts: Vec<Value> = separators.try_iter()?.collect();
            match parts.iter().map(Value::as_str).collect::<Vec<_>>().as_slice() {
                [Some(item), Some(key)] => ((*item).to_owned(), (*key).to_owned()),
                _ => return Err(invalid("tojson: separators are two texts")),
            }
        }
    };
    let mut writer = Writer {
        out: String::new(),
        indent,
        separators,
        ascii: truth(ascii, false),
        sort: truth(sort, false),
    };
    writer.value(&value, 0)?;
    Ok(writer.out)
}

/// Spacing and escapes of `json.dumps`.
struct Writer {
    out: String,
    indent: Option<String>,
    /// After an item, after a key.
    separators: (String, String),
    ascii: bool,
    sort: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > NESTING {
            return Err(invalid("a value is nested too deeply"));
        }
        match type_name(value) {
            "str" => self.text(value.as_str().unwrap_or_default()),
            "None" | "bool" | "int" | "float" => {
                let word = scalar(value).unwrap_or_default();
                self.out.push_str(&word);
            }
            "list" | "tuple" | "iterable" => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                self.items("[", "]", depth, items.len(), |writer, index| {
                    writer.value(&items[index], depth + 1)
                })?;
            }
            "dict" => {
                let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
                let mut pairs = pairs.into_iter().flatten().collect::<Vec<_>>();
                if self.sort {
                    check_keys("tojson", pairs.iter().map(|(key, _)| key.clone()).collect())?;
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.items("{", "}", depth, pairs.len(), |writer, index| {
                    let (key, value) = &pairs[index];
                    match (key.as_str(), scalar(key)) {
                        (Some(text), _) => writer.text(text),
                        (None, Some(word)) => writer.text(&word),
                        _ => return Err(unknown(key)),
                    }
                    writer.out.push_str(&writer.separators.1);
                    writer.value(value, depth + 1)
                })?;
            }
            _ => return Err(unknown(value)),
        }
        check_length(Some(self.out.len()))
    }

    fn items(
        &mut self,
        open: &str,
        close: &str,
        depth: usize,
        count: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push_str(open);
        for index in 0..count {
            if index > 0 {
                self.out.push_str(&self.separators.0);
            }
            self.new_line(depth + 1)?;
            item(self, index)?;
        }
        if count > 0 {
            self.new_line(depth)?;
        }
        self.out.push_str(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            check_length(
                indent.len().checked_mul(depth).and_then(|length| length.checked_add(self.out.len())),
            )?;
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if c < ' ' || self.ascii && (!c.is_ascii() || c == '\x7f') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// What `json.dumps` writes for a value without parts.
fn scalar(value: &Value) -> Option<String> {
    Some(match type_name(value) {
        "None" => "null".to_owned(),
        "bool" => value.is_true().to_string(),
        "int" => value.to_string(),
        "float" => match f64::try_from(value.clone()).ok()? {
            number if number.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            number => float(number),
        },
        _ => return None,
    })
}

fn unknown(value: &Value) -> Error {
    let kind = match type_name(value) {
        "undefined" => "an undefined value".to_owned(),
        name => format!("a value of the type {name}"),
    };
    Error::new(ErrorKind::BadSerialization, format!("{kind} is no JSON"))
}
