//! Which tensors of a pickle are not what `pytorch-reader` makes of them.
//!
//! The reader passes over the last argument of `_rebuild_tensor_v2`, where PyTorch notes that the numbers of
//! a tensor are to be negated or conjugated, and names no tensor where it refuses one. Here the pickle is
//! followed far enough to tell the calls that build tensors, and nothing of it is run.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use zip::ZipArchive;

/// Pickles of a file without an archive up to the one that holds the tensors.
const LEADING: usize = 4;
/// Tuples within tuples; deeper ones hold no tensor.
const DEEPEST: usize = 64;

/// A tensor in a form that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// Its key in the state dict.
    pub(super) tensor: String,
    pub(super) form: String,
}

/// The first tensor of the file at `path` that is built by a call with a meaning of its own, or by one that
/// names `refused`.
///
/// # Errors
///
/// A file that cannot be read, or that holds something else than pickles.
pub(super) fn unread(path: &Path, refused: Option<&str>) -> io::Result<Option<Unread>> {
    let mut file = BufReader::new(File::open(path)?);
    if file.fill_buf()?.starts_with(b"PK") {
        return Calls::new(refused).follow(&mut Cursor::new(from_archive(file)?));
    }
    for _ in 0..LEADING {
        if file.fill_buf()?.is_empty() {
            break;
        }
        if let Some(found) = Calls::new(refused).follow(&mut file)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The pickle of an archive: as the reader takes it, the one nearest to the root.
fn from_archive(file: BufReader<File>) -> io::Result<Vec<u8>> {
    let mut archive = ZipArchive::new(file)?;
    let is_pickle = |name: &String| {
        name.strip_suffix("data.pkl").is_some_and(|root| root.is_empty() || root.ends_with('/'))
    };
    let names = archive.file_names().map(|name| name.map(|name| name.into_owned()));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let name = names.into_iter().filter(is_pickle).min_by_key(String::len).unwrap_or_default();
    let mut pickle = Vec::new();
    archive.by_name(&name)?.take(pytorch_reader::MAX_PICKLE_SIZE).read_to_end(&mut pickle)?;
    Ok(pickle)
}

/// A value, as far as calls are concerned.
#[derive(Debug, Clone)]
enum Value {
    Mark,
    None,
    Text(Rc<str>),
    /// A class or function by its full name.
    Name(Rc<str>),
    Tuple(Rc<[Value]>, usize),
    /// Whether anything was put into it: one cell for every place that holds it.
    Dict(Rc<Cell<bool>>),
    Other,
}

impl Value {
    fn tuple(items: Vec<Self>) -> Self {
        let depth = |value: &Self| if let Self::Tuple(_, depth) = value { *depth } else { 0 };
        match items.iter().map(depth).max().unwrap_or(0) + 1 {
            depth if depth > DEEPEST => Self::Other,
            depth => Self::Tuple(items.into(), depth),
        }
    }

    fn dict(is_filled: bool) -> Self {
        Self::Dict(Rc::new(Cell::new(is_filled)))
    }

    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::Name(name) => &**name == wanted,
            Self::Tuple(items, _) => items.iter().any(|item| item.names(wanted)),
            _ => false,
        }
    }
}

/// What a call makes of a tensor that the reader does not, if that is so.
fn form(function: &Value, arguments: &Value, refused: Option<&str>) -> Option<String> {
    let Value::Name(name) = function else { return None };
    let (short, is_of_torch) = match name.rsplit_once('.') {
        Some((module, short)) => (short, module.starts_with("torch.")),
        None => return None,
    };
    if !is_of_torch || !short.starts_with("_rebuild_") {
        return None;
    }
    let Value::Tuple(arguments, _) = arguments else { return Some(format!("built by `{name}`")) };
    if let Some(refused) = refused.filter(|name| arguments.iter().any(|argument| argument.names(name))) {
        return Some(format!("of `{refused}`"));
    }
    let marked = |at: usize| match arguments.get(at) {
        None | Some(Value::None) => None,
        Some(Value::Dict(is_filled)) if !is_filled.get() => None,
        Some(_) => Some("whose numbers are marked as to be negated or conjugated".to_owned()),
    };
    match short {
        "_rebuild_tensor" | "_rebuild_parameter" | "_rebuild_parameter_with_state" => None,
        "_rebuild_tensor_v2" => marked(6),
        "_rebuild_tensor_v3" => marked(7),
        "_rebuild_from_type_v2" => {
            arguments.first().zip(arguments.get(2)).and_then(|(inner, of)| form(inner, of, refused))
        }
        _ => Some(format!("built by `{name}`")),
    }
}

/// The machine that a pickle is a program for.
struct Calls<'a> {
    refused: Option<&'a str>,
    stack: Vec<Value>,
    memo: std::collections::HashMap<u64, Value>,
}

impl<'a> Calls<'a> {
    fn new(refused: Option<&'a str>) -> Self {
        Self { refused, stack: Vec::new(), memo: std::collections::HashMap::new() }
    }

    /// Follows one pickle to its end, or to the first tensor that is not read.
    fn follow(mut self, from: &mut impl BufRead) -> io::Result<Option<Unread>> {
        loop {
            match byte(from)? {
                b'.' => return Ok(None),
                b'(' => self.stack.push(Value::Mark),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.until_mark()?),
                b'2' => {
                    let top = self.top()?.clone();
                    self.stack.push(top);
                }
                b'N' => self.stack.push(Value::None),
                // Numbers and bytes.
                b'F' | b'I' | b'L' => self.other(line(from).map(drop))?,
                b'J' => self.other(skip(from, 4))?,
                b'K' => self.other(skip(from, 1))?,
                b'M' => self.other(skip(from, 2))?,
                b'G' => self.other(skip(from, 8))?,
                0x88 | 0x89 => self.other(Ok(()))?,
                0x8a | b'C' => self.other(counted(from, 1).map(drop))?,
                0x8b | b'B' => self.other(counted(from, 4).map(drop))?,
                0x8e | 0x96 => self.other(counted(from, 8).map(drop))?,
                // Texts and names.
                b'S' | b'V' => self.text(&line(from)?),
                b'U' | 0x8c => self.text(&counted(from, 1)?),
                b'T' | b'X' => self.text(&counted(from, 4)?),
                0x8d => self.text(&counted(from, 8)?),
                b'c' => {
                    let (module, name) = (line(from)?, line(from)?);
                    self.name(&String::from_utf8_lossy(&module), &String::from_utf8_lossy(&name));
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => self.name(&module, &name),
                    _ => self.stack.push(Value::Other),
                },
                // Collections.
                b')' => self.stack.push(Value::tuple(Vec::new())),
                b't' => {
                    let items = self.until_mark()?;
                    self.stack.push(Value::tuple(items));
                }
                count @ 0x85..=0x87 => {
                    let start = self.stack.len().checked_sub(usize::from(count - 0x84));
                    let items = self.stack.split_off(start.ok_or_else(damaged)?);
                    self.stack.push(Value::tuple(items));
                }
                b'}' => self.stack.push(Value::dict(false)),
                b'd' => {
                    let is_filled = !self.until_mark()?.is_empty();
                    self.stack.push(Value::dict(is_filled));
                }
                b's' => {
                    drop((self.pop()?, self.pop()?));
                    self.fill()?;
                }
                b'u' => {
                    if !self.until_mark()?.is_empty() {
                        self.fill()?;
                    }
                }
                b']' | 0x8f => self.stack.push(Value::Other),
                b'l' | 0x91 => {
                    self.until_mark()?;
                    self.stack.push(Value::Other);
                }
                b'a' => drop(self.pop()?),
                b'e' | 0x90 => drop(self.until_mark()?),
                // What was seen before.
                b'p' => self.keep(number(&line(from)?)?)?,
                b'q' => self.keep(count(from, 1)?)?,
                b'r' => self.keep(count(from, 4)?)?,
                0x94 => self.keep(self.memo.len() as u64)?,
                b'g' => self.recall(number(&line(from)?)?)?,
                b'h' => self.recall(count(from, 1)?)?,
                b'j' => self.recall(count(from, 4)?)?,
                // Objects. A storage stays the tuple that describes it.
                b'Q' => {}
                b'P' => self.text(&line(from)?),
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    if let Some(form) = form(&function, &arguments, self.refused) {
                        return Ok(Some(Unread { tensor: self.key(), form }));
                    }
                    self.stack.push(match (&function, &arguments) {
                        (Value::Name(name), Value::Tuple(items, _))
                            if &**name == "collections.OrderedDict" =>
                        {
                            Value::dict(!items.is_empty())
                        }
                        _ => Value::Other,
                    });
                }
                0x81 => {
                    drop((self.pop()?, self.pop()?));
                    self.stack.push(Value::Other);
                }
                0x92 => {
                    drop((self.pop()?, self.pop()?, self.pop()?));
                    self.stack.push(Value::Other);
                }
                b'b' => drop(self.pop()?),
                0x80 => skip(from, 1)?,
                0x95 => skip(from, 8)?,
                _ => return Err(damaged()),
            }
        }
    }

    fn pop(&mut self) -> io::Result<Value> {
        self.stack.pop().ok_or_else(damaged)
    }

    fn top(&self) -> io::Result<&Value> {
        self.stack.last().ok_or_else(damaged)
    }

    /// What lies above the last mark, which is taken away too.
    fn until_mark(&mut self) -> io::Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark)).ok_or_else(damaged)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn fill(&self) -> io::Result<()> {
        if let Value::Dict(is_filled) = self.top()? {
            is_filled.set(true);
        }
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) {
        self.stack.push(Value::Text(String::from_utf8_lossy(bytes).into()));
    }

    fn name(&mut self, module: &str, name: &str) {
        self.stack.push(Value::Name(format!("{module}.{name}").into()));
    }

    fn other(&mut self, skipped: io::Result<()>) -> io::Result<()> {
        skipped.map(|()| self.stack.push(Value::Other))
    }

    fn keep(&mut self, at: u64) -> io::Result<()> {
        let value = self.top()?.clone();
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> io::Result<()> {
        self.stack.push(self.memo.get(&at).ok_or_else(damaged)?.clone());
        Ok(())
    }

    /// The key that waits for the value that is being built.
    fn key(&self) -> String {
        let key = self.stack.iter().rev().find_map(|value| match value {
            Value::Text(text) => Some(text.to_string()),
            _ => None,
        });
        key.unwrap_or_else(|| "?".to_owned())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its pickle breaks the rules of pickles")
}

fn byte(from: &mut impl BufRead) -> io::Result<u8> {
    count(from, 1).map(|byte| byte as u8)
}

/// A little-endian number of so many bytes.
fn count(from: &mut impl BufRead, bytes: usize) -> io::Result<u64> {
    let mut number = [0; 8];
    from.read_exact(&mut number[..bytes])?;
    Ok(u64::from_le_bytes(number))
}

/// So many bytes as a number of `width` bytes says.
fn counted(from: &mut impl BufRead, width: usize) -> io::Result<Vec<u8>> {
    let length = count(from, width)?;
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn skip(from: &mut impl BufRead, bytes: usize) -> io::Result<()> {
    count(from, bytes).map(drop)
}

fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(line.strip_suffix(b"\r").map(<[u8]>::to_vec).unwrap_or(line)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn number(line: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(damaged)
}

#[cfg(test)]
mod tests;
