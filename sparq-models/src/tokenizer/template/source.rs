//! Where a model's chat templates are.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    checkpoint::{parse_json, read_if_exists},
    error::{Error, Result},
};

/// The template that is taken of several.
const DEFAULT: &str = "default";

/// The template for conversations with tools.
const TOOLS: &str = "tool_use";

/// Folder of templates beside the default one.
const FOLDER: &str = "additional_chat_templates";

/// One template as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSource {
    /// The file that holds it.
    pub path: PathBuf,
    /// The template.
    pub text: String,
}

/// A model's chat templates by name; a single one is called `default`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTemplates(BTreeMap<String, TemplateSource>);

impl ChatTemplates {
    /// Finds the templates of the model in `dir`, whose `tokenizer_config.json` holds `config`.
    ///
    /// As in `transformers`, `chat_template.jinja` with what lies in `additional_chat_templates` wins over
    /// `tokenizer_config.json`; where neither has any, an older `chat_template.json` does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Template`] for a file that is not UTF-8, [`Error::File`], and
    /// [`Error::Config`] for a field of another form.
    pub fn read(dir: &Path, config: Option<&Value>) -> Result<Self> {
        let files = Self::files(dir)?;
        if !files.is_empty() {
            return Ok(files);
        }
        let found = Self::field(&dir.join("tokenizer_config.json"), config)?;
        if !found.is_empty() {
            return Ok(found);
        }
        let path = dir.join("chat_template.json");
        match read_if_exists(&path)? {
            Some(bytes) => Self::field(&path, Some(&parse_json(&path, &bytes)?)),
            None => Ok(Self::default()),
        }
    }

    fn files(dir: &Path) -> Result<Self> {
        let mut paths = vec![(DEFAULT.to_owned(), dir.join("chat_template.jinja"))];
        let folder = dir.join(FOLDER);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(error),
        };
        for entry in entries.map_err(|source| Error::Io { path: folder, source })? {
            let path = entry.path();
            let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
            if let Some(name) = name.filter(|_| path.extension().is_some_and(|kind| kind == "jinja")) {
                paths.push((name, path));
            }
        }
        let mut found = BTreeMap::new();
        for (name, path) in paths {
            if let Some(source) = TemplateSource::read(&path)? {
                found.insert(name, source);
            }
        }
        Ok(Self(found))
    }

    /// A template in JSON is a text, an object of texts by name, or a list of objects with name and text.
    fn field(path: &Path, config: Option<&Value>) -> Result<Self> {
        let value = config.and_then(|config| config.get("chat_template"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let read: Option<BTreeMap<String, String>> = match value {
            None | Some(Value::Null) => Some(BTreeMap::new()),
            Some(Value::String(source)) => Some(BTreeMap::from([(DEFAULT.to_owned(), source.clone())])),
            Some(Value::Object(named)) => {
                named.iter().map(|(name, template)| Some((name.clone(), text(template)?))).collect()
            }
            Some(Value::Array(entries)) => entries
                .iter()
                .map(|entry| Some((text(entry.get("name")?)?, text(entry.get("template")?)?)))
                .collect(),
            Some(_) => None,
        };
        let read = read.ok_or_else(|| Error::Config {
            path: path.to_owned(),
            message: "field `chat_template`: expected a text, an object of texts, or a list of objects with \
                      `name` and `template`"
                .to_owned(),
        })?;
        let source = |text| TemplateSource { path: path.to_owned(), text };
        Ok(Self(read.into_iter().map(|(name, text)| (name, source(text))).collect()))
    }

    /// Whether the model has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The templates with their names, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TemplateSource)> {
        self.0.iter().map(|(name, source)| (name.as_str(), source))
    }

    /// The template called `name`; without one `tool_use` where there are tools, else `default`, else the
    /// only one. `None` where the model has no template at all.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where `name` is none of the templates, or where there are several and none is the
    /// default, or where there are no templates for a name.
    pub fn choose(&self, name: Option<&str>, tools: bool) -> Result<Option<&TemplateSource>> {
        let only = || self.0.values().next().filter(|_| self.0.len() == 1);
        let found = match name {
            Some(name) => self.0.get(name),
            None => {
                let with_tools = self.0.get(TOOLS).filter(|_| tools);
                with_tools.or_else(|| self.0.get(DEFAULT)).or_else(only)
            }
        };
        let Some((_, first)) = self.iter().next() else {
            return match name {
                Some(name) => {
                    let message = "there is no such file, and the model has no chat templates".to_owned();
                    Err(Error::Config { path: name.into(), message })
                }
                None => Ok(None),
            };
        };
        if found.is_none() {
            let names: Vec<&str> = self.iter().map(|(name, _)| name).collect();
            let names = names.join(", ");
            let message = match name {
                Some(name) if name.contains(['/', '\\']) => {
                    let message =
                        format!("there is no such file; the model's own chat templates are {names}");
                    return Err(Error::Config { path: name.into(), message });
                }
                Some(name) => format!(
                    "none of the chat templates is called `{name}`; there are {names}, and no file of this name"
                ),
                None => format!("none of the chat templates is the default; choose one of {names}"),
            };
            return Err(Error::Config { path: first.path.clone(), message });
        }
        Ok(found)
    }
}

impl TemplateSource {
    /// Reads a file that holds a template; `None` where it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and [`Error::Template`] for one that is not UTF-8.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = read_if_exists(path)? else { return Ok(None) };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Self { path: path.to_owned(), text })),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
                Err(super::failure::no_text(path, line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir
    }

    fn names(templates: &ChatTemplates) -> Vec<(&str, &str)> {
        templates.iter().map(|(name, source)| (name, source.text.as_str())).collect()
    }

    #[test]
    fn files_come_before_the_configuration_and_that_before_the_old_file() {
        let config = json!({"chat_template": "config"});
        let old = ("chat_template.json", &br#"{"chat_template": "old"}"#[..]);
        let all =
            [("chat_template.jinja", &b"file"[..]), ("additional_chat_templates/rag.jinja", b"rag"), old];
        let none = json!({});
        let read = |files: &[_], config| ChatTemplates::read(folder(files).path(), config).unwrap();
        assert_eq!(names(&read(&all, Some(&config))), [("default", "file"), ("rag", "rag")]);
        assert_eq!(names(&read(&all[1..], Some(&config))), [("rag", "rag")]);
        assert_eq!(names(&read(&all[2..], Some(&config))), [("default", "config")]);
        assert_eq!(names(&read(&all[2..], Some(&none))), [("default", "old")]);
        assert!(read(&[], None).is_empty());
    }

    #[test]
    fn a_template_is_a_text_an_object_or_a_list() {
        let two = json!({"chat_template": [
            {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}
        ]});
        let object = json!({"chat_template": {"default": "plain", "tool_use": "tools"}});
        let chosen = |config: &Value, name, tools| {
            let templates = ChatTemplates::read(Path::new("no folder"), Some(config)).unwrap();
            templates.choose(name, tools).map(|source| source.map(|source| source.text.clone()))
        };
        for config in [&two, &object] {
            assert_eq!(chosen(config, None, false).unwrap().unwrap(), "plain");
            assert_eq!(chosen(config, None, true).unwrap().unwrap(), "tools");
            assert_eq!(chosen(config, Some("tool_use"), false).unwrap().unwrap(), "tools");
            let error = chosen(config, Some("rag"), false).unwrap_err().to_string();
            assert!(error.contains("`rag`; there are default, tool_use"), "{error}");
        }
        let only = json!({"chat_template": [{"name": "rag", "template": "rag"}]});
        assert_eq!(chosen(&only, None, true).unwrap().unwrap(), "rag");
        let none = json!({"chat_template": {"rag": "", "tool_use": ""}});
        let error = chosen(&none, None, false).unwrap_err().to_string();
        assert!(error.contains("choose one of rag, tool_use"), "{error}");
    }

    #[test]
    fn what_is_no_template_is_named() {
        for wrong in [json!(3), json!([{"name": "a"}]), json!({"a": 1})] {
            let config = json!({"chat_template": wrong});
            let error = ChatTemplates::read(Path::new("m"), Some(&config)).unwrap_err().to_string();
            assert!(error.contains("tokenizer_config.json") && error.contains("`chat_template`"), "{error}");
        }
        let dir = folder(&[("chat_template.jinja", b"a\nb \xff")]);
        let error = ChatTemplates::read(dir.path(), None).unwrap_err().to_string();
        assert!(
            error.contains("chat_template.jinja") && error.contains("line 2: the file is not UTF-8"),
            "{error}"
        );
    }
}
