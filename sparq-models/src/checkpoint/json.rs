//! Reading JSON as Python does: the files of a model folder are written by it.
//!
//! Python's `json` knows `NaN`, `Infinity` and `-Infinity`, reads a number beyond the largest one as
//! infinity, and takes half of a surrogate pair. `serde_json` knows none of these and is the reader for all
//! that both accept; where it refuses a text, what Python accepts is rewritten and read again. Numbers that
//! are not finite become texts of their names: a file may hold them in fields that are not read, and a field
//! that is read says that a text is no number.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use super::content::{Content, NEEDED};
use super::error::{Damage, FileError, JSON};
use crate::error::{Error, Result, shorten};

/// What stands for half of a surrogate pair, which no text in UTF-8 can hold.
const REPLACEMENT: &[u8] = b"\\ufffd";

/// The content of a file, or nothing if there is none of that name.
///
/// # Errors
///
/// [`FileError::Folder`] for a folder of that name, [`FileError::BrokenLink`] for a link to nothing, and
/// [`Error::Io`].
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.is_symlink() {
            true => Err(FileError::BrokenLink { path: path.to_owned() }.into()),
            false => Ok(None),
        },
        Err(_) if path.is_dir() => Err(FileError::Folder { path: path.to_owned() }.into()),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

/// Reads the JSON text `bytes`, the content of the file at `path`.
///
/// # Errors
///
/// [`FileError::Damaged`] that says what the file holds instead.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Value> {
    parse_as(path, bytes)
}

/// The same into another type that holds any JSON.
pub(crate) fn parse_as<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let rewritten = python_forms_rewritten(bytes);
    let error = match serde_json::from_slice(&rewritten) {
        Ok(value) => return Ok(value),
        // Places in a text that was rewritten are not those of the file.
        Err(_) if rewritten.len() == bytes.len() => error,
        Err(error) => error,
    };
    let damage = damage(bytes, &error);
    Err(FileError::Damaged { path: path.to_owned(), form: JSON, damage }.into())
}

/// What is wrong with a text that is no JSON.
fn damage(bytes: &[u8], error: &serde_json::Error) -> Damage {
    let start = &bytes[..bytes.len().min(NEEDED)];
    match Content::of(start) {
        Some(Content::Json) | None => {}
        Some(content) => return Damage::Is(content),
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Damage::NotUtf8 { byte: error.valid_up_to() };
    }
    let text = String::from_utf8_lossy(bytes);
    if bytes.trim_ascii().is_empty() {
        return Damage::Is(Content::Empty);
    }
    if error.classify() == Category::Eof {
        return Damage::CutShort { detail: format!("it ends in the middle, on line {}", error.line()) };
    }
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = line.get(error.column().saturating_sub(1)..).unwrap_or_default();
    if at.starts_with("//") || at.starts_with("/*") || at.starts_with('#') {
        return Damage::Comment { line: error.line() };
    }
    if Content::of(start).is_none() && error.line() == 1 && error.column() <= 2 {
        let first = text.trim().lines().next().unwrap_or_default();
        return Damage::Syntax { detail: format!("it begins with `{}`", shorten(first)) };
    }
    Damage::Syntax { detail: shorten(&error.to_string()).into_owned() }
}

/// The text with what only Python reads in a form that every reader reads.
fn python_forms_rewritten(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let taken = match byte {
            b'"' => string(rest, &mut text),
            b'N' | b'I' | b'-' | b'0'..=b'9' => number(rest, &mut text),
            _ => {
                text.push(byte);
                1
            }
        };
        rest = &rest[taken..];
    }
    text
}

/// Copies the number at the beginning of `rest`; a text in its place where it is not finite. Returns its
/// length.
fn number(rest: &[u8], text: &mut Vec<u8>) -> usize {
    for name in ["NaN", "Infinity", "-Infinity"] {
        if rest.starts_with(name.as_bytes()) {
            text.extend_from_slice(format!("\"{name}\"").as_bytes());
            return name.len();
        }
    }
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let length = rest.iter().take_while(|byte| is_part(byte)).count().max(1);
    let digits = &rest[..length];
    let value = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<f64>().ok());
    match value {
        Some(value) if value.is_infinite() => {
            let name = if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" };
            text.extend_from_slice(name.as_bytes());
        }
        _ => text.extend_from_slice(digits),
    }
    length
}

/// Copies the string at the beginning of `rest`, with half surrogate pairs replaced. Returns its length.
fn string(rest: &[u8], text: &mut Vec<u8>) -> usize {
    let mut at = 1;
    text.push(b'"');
    while let Some(&byte) = rest.get(at) {
        let pair = (escaped(rest, at), escaped(rest, at + 6));
        let (piece, taken): (&[u8], usize) = match pair {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (&rest[at..at + 12], 12),
            (Some(0xd800..=0xdfff), _) => (REPLACEMENT, 6),
            _ if byte == b'\\' => (&rest[at..rest.len().min(at + 2)], 2),
            _ => (&rest[at..=at], 1),
        };
        text.extend_from_slice(piece);
        at += taken;
        if byte == b'"' {
            break;
        }
    }
    at.min(rest.len())
}

/// The number in `\uXXXX` at this place, if it is one.
fn escaped(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Value> {
        parse(Path::new("m/config.json"), bytes)
    }

    fn refused(bytes: &[u8]) -> (String, String) {
        let error = read(bytes).unwrap_err();
        (error.to_string(), error.hint().unwrap())
    }

    #[test]
    fn what_python_accepts_is_accepted() {
        let text = br#"{"a": NaN, "b": [Infinity, -Infinity, 1e999, -1E+999], "c": "\ud83d\ude00 \ud800\" NaN \\", "d": -1.5e3,
            "e": 123456789012345678901234567890, "\udc00": {"NaN": 1}}"#;
        let expected = json!({
            "a": "NaN", "b": ["Infinity", "-Infinity", "Infinity", "-Infinity"], "c": "\u{1f600} \u{fffd}\" NaN \\",
            "d": -1500.0, "e": 123_456_789_012_345_678_901_234_567_890.0_f64, "\u{fffd}": {"NaN": 1}
        });
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read(b"NaN").unwrap(), json!("NaN"));
        let long = format!("[{}]", "9".repeat(400));
        assert_eq!(read(long.as_bytes()).unwrap(), json!(["Infinity"]));
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for text in [
            "{a: 1}",
            "[+1]",
            "[.5]",
            "[1.]",
            "[01]",
            "[nan]",
            "[inf]",
            "['a']",
            "[1,]",
            "[NaNa]",
            "[--1]",
            "[-NaN]",
            "\"\\u12\"",
            "\"\\",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn damage_is_told_apart() {
        for (bytes, message, hint) in [
            (&b""[..], "is empty", "download it again"),
            (b" \n", "is empty", "download it again"),
            (&[0; 30], "zero bytes", "download it again"),
            (b"{\"a\": 1, \"b\"", "cut short", "download it again"),
            (b"{\"a\": NaN, \"b\"", "cut short", "download it again"),
            (b"<!DOCTYPE html><html>", "web page", "download it again"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", "git lfs pull"),
            (b"\xff\xfe{\0}\0", "UTF-16", "save it as UTF-8"),
            (b"{\0\"\0a\0\"\0", "UTF-16", "save it as UTF-8"),
            (b"\xef\xbb\xbf{}", "byte-order mark", "save it as UTF-8"),
            (b"{\"a\": \"\xe9\"}", "not UTF-8 (byte 7)", "save it as UTF-8"),
            (b"{\n  // the width\n  \"a\": 1}", "comment on line 2", "remove it"),
            (b"{\"a\": 1 /* one */}", "comment on line 1", "remove it"),
            (b"# a comment\n{}", "comment on line 1", "remove it"),
            (b"Entry not found", "begins with `Entry not found`", "download it again"),
            (b"{\"a\": 1,}", "trailing comma at line 1", "mend that place"),
            (b"GGUF\x03\0\0\0", "GGUF", "GGUF is not read"),
            (b"PK\x03\x04", "ZIP", "download it again"),
        ] {
            let (said, then) = refused(bytes);
            assert!(said.starts_with("`m/config.json` ") && said.contains(message), "{message}: {said}");
            assert!(then.contains(hint), "{said}: {then}");
        }
        // Nothing is said twice, and nothing is said at length.
        let (said, _) = refused("x".repeat(100_000).as_bytes());
        assert!(said.len() < 400, "{said}");
    }

    #[test]
    fn folders_and_links_to_nothing_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(read_if_exists(&path).unwrap(), None);
        fs::create_dir(&path).unwrap();
        assert!(read_if_exists(&path).unwrap_err().to_string().ends_with("is a folder, not a file"));
        #[cfg(unix)]
        {
            fs::remove_dir(&path).unwrap();
            std::os::unix::fs::symlink("nowhere", &path).unwrap();
            assert!(
                read_if_exists(&path).unwrap_err().to_string().contains("link to a file that is not there")
            );
        }
    }
}
