//! Conversations in files.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};
use sparq_models::chat::{Message, plain};

/// The conversation as `path` asks for it: a list of messages for `*.json`, which [`read`] reads again, else
/// lines.
///
/// # Errors
/// None that are known.
pub(super) fn write(messages: &[Message], path: &Path) -> anyhow::Result<String> {
    Ok(match path.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::to_string_pretty(messages)? + "\n",
        false => plain(messages),
    })
}

/// The conversation in a file: a list of objects with `role` and `content`, alone or as `messages` of an
/// object.
///
/// # Errors
/// For a file that cannot be read, and for anything in it that would be lost.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Message>> {
    let name = format!("`{}`", path.display());
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {name}"))?;
    ensure!(!metadata.is_dir(), "{name} is a folder, not a file");
    ensure!(metadata.is_file(), "{name} is no file");
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let json: Value = serde_json::from_slice(bytes)
        .with_context(|| format!("{name} is no conversation that /save wrote as JSON"))?;
    messages(json).with_context(|| format!("{name} is no conversation"))
}

fn messages(json: Value) -> anyhow::Result<Vec<Message>> {
    let list = match json {
        Value::Object(mut object) => object.remove("messages").unwrap_or(Value::Null),
        json => json,
    };
    let Value::Array(list) = list else { bail!("expected a list of messages") };
    let numbered = list.into_iter().zip(1..);
    numbered.map(|(json, number)| message(json).with_context(|| format!("message {number}"))).collect()
}

fn message(json: Value) -> anyhow::Result<Message> {
    let Value::Object(mut object) = json else { bail!("expected an object with `role` and `content`") };
    let role = text(&mut object, "role")?;
    let role = serde_json::from_value(Value::String(role.clone()))
        .ok()
        .with_context(|| format!("role `{role}` is not one of system, user and assistant"))?;
    let content = text(&mut object, "content")?;
    match object.iter().find(|(_, value)| !value.is_null()) {
        Some((key, _)) => bail!("`{key}` would be lost: only `role` and `content` are read"),
        None => Ok(Message::new(role, content)),
    }
}

fn text(object: &mut Map<String, Value>, key: &str) -> anyhow::Result<String> {
    match object.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => bail!("`{key}` is no text"),
        None => bail!("`{key}` is missing"),
    }
}

#[cfg(test)]
mod tests {
    use sparq_models::chat::Role;
    use tempfile::TempDir;

    use super::*;

    fn talk() -> Vec<Message> {
        vec![
            Message::new(Role::System, "Be \"brief\"."),
            Message::new(Role::User, " Two\nlines \\ \u{1f600}\u{1b}[1m"),
            Message::new(Role::Assistant, ""),
        ]
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("talk.json");
        for messages in [talk(), vec![]] {
            fs::write(&path, write(&messages, &path).unwrap()).unwrap();
            assert_eq!(read(&path).unwrap(), messages);
        }
        let whole = format!(
            "\u{feff}{{\"model\": \"x\", \"messages\": {}}}",
            serde_json::to_string(&talk()).unwrap()
        );
        fs::write(&path, whole).unwrap();
        assert_eq!(read(&path).unwrap(), talk());
        assert_eq!(write(&talk()[..1], Path::new("talk")).unwrap(), "System: Be \"brief\".\n");
    }

    #[test]
    fn what_is_no_conversation_is_named() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("talk.json");
        let error = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            format!("{:#}", read(&path).unwrap_err())
        };
        for (content, expected) in [
            ("", "no conversation that /save wrote"),
            ("[{\"role\": \"user\", \"content\": \"cut of", "line 1 column"),
            ("User: Hello\n", "no conversation that /save wrote"),
            ("{}", "expected a list of messages"),
            ("3", "expected a list of messages"),
            ("[3]", "message 1: expected an object"),
            (
                "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\"}]",
                "message 2: `content` is missing",
            ),
            ("[{\"content\": \"a\"}]", "`role` is missing"),
            (
                "[{\"role\": \"tool\", \"content\": \"a\"}]",
                "role `tool` is not one of system, user and assistant",
            ),
            ("[{\"role\": \"user\", \"content\": [\"a\"]}]", "`content` is no text"),
            ("[{\"role\": \"user\", \"content\": \"a\", \"name\": \"b\"}]", "`name` would be lost"),
        ] {
            let error = error(content.as_bytes());
            assert!(error.contains(expected) && error.contains("talk.json"), "{error}");
        }
        assert!(error(b"\xff\xfe[\0").contains("no conversation that /save wrote"));
        assert!(format!("{:#}", read(folder.path()).unwrap_err()).contains("is a folder, not a file"));
        let missing = format!("{:#}", read(&folder.path().join("none.json")).unwrap_err());
        assert!(missing.contains("cannot read") && missing.contains("none.json"), "{missing}");
    }
}
