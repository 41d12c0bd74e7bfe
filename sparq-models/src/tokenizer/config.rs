//! `tokenizer_config.json` and the small files beside it: special tokens by role, chat templates.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::ChatTemplate;
use crate::error::{Error, Result};

/// The template that is taken of several.
const DEFAULT_TEMPLATE: &str = "default";

/// What a model folder says about its tokenizer beside `tokenizer.json`; all of it may be absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenizerConfig {
    /// Spelling of the special tokens by role: `bos_token`, `eos_token`, ….
    pub special_tokens: BTreeMap<String, String>,
    /// Chat templates by name; a single one is called `default`.
    pub templates: BTreeMap<String, String>,
    /// The file that the templates come from, for messages.
    pub template_path: PathBuf,
}

impl TokenizerConfig {
    /// Reads the content of `tokenizer_config.json`, and of `special_tokens_map.json` for roles that
    /// it leaves open; `jinja` is the content of `chat_template.jinja`, which wins over a template in
    /// the first file. Each file may be absent; `dir` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a template of another form.
    pub fn new(
        dir: &Path,
        config: Option<&Value>,
        special_tokens_map: Option<&Value>,
        jinja: Option<String>,
    ) -> Result<Self> {
        let empty = Map::new();
        let object = |json: Option<&'_ Value>| json.and_then(Value::as_object).unwrap_or(&empty).clone();
        let (config, map) = (object(config), object(special_tokens_map));
        let special_tokens = map
            .iter()
            .chain(&config)
            .filter(|(role, _)| role.ends_with("_token"))
            .filter_map(|(role, token)| Some((role.clone(), spelling(token)?.to_owned())))
            .collect();
        let path = dir.join("tokenizer_config.json");
        let (templates, template_path) = match jinja {
            Some(source) => {
                (BTreeMap::from([(DEFAULT_TEMPLATE.to_owned(), source)]), dir.join("chat_template.jinja"))
            }
            None => (templates(&path, config.get("chat_template"))?, path),
        };
        Ok(Self { special_tokens, templates, template_path })
    }

    /// The template for a conversation without tools, if the model has one: `default`, or the only
    /// one.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] for one that cannot be parsed, [`Error::Config`] where there are several
    /// and none is the default.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        let only = || self.templates.values().next().filter(|_| self.templates.len() == 1);
        let Some(source) = self.templates.get(DEFAULT_TEMPLATE).or_else(only) else {
            if self.templates.is_empty() {
                return Ok(None);
            }
            let names: Vec<&str> = self.templates.keys().map(String::as_str).collect();
            let message = format!("none of the chat templates is the default: {}", names.join(", "));
            return Err(Error::Config { path: self.template_path.clone(), message });
        };
        ChatTemplate::new(&self.template_path, source, self.special_tokens.clone()).map(Some)
    }
}

/// A token is written as text, or as an object with its text and how it is matched.
fn spelling(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// A template is written as text, or as a list of objects with a name and a text.
fn templates(path: &Path, value: Option<&Value>) -> Result<BTreeMap<String, String>> {
    let one = |source: &str| BTreeMap::from([(DEFAULT_TEMPLATE.to_owned(), source.to_owned())]);
    let named = |entry: &Value| {
        let text = |field| Some(entry.get(field)?.as_str()?.to_owned());
        Some((text("name")?, text("template")?))
    };
    let read = match value {
        None | Some(Value::Null) => Some(BTreeMap::new()),
        Some(Value::String(source)) => Some(one(source)),
        Some(Value::Array(entries)) => entries.iter().map(named).collect(),
        Some(_) => None,
    };
    read.ok_or_else(|| Error::Config {
        path: path.to_owned(),
        message: "field `chat_template`: expected a text, or a list of objects with `name` and `template`"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value, map: &Value, jinja: Option<&str>) -> Result<TokenizerConfig> {
        TokenizerConfig::new(Path::new("m"), Some(config), Some(map), jinja.map(str::to_owned))
    }

    fn render(config: &TokenizerConfig) -> String {
        config.chat_template().unwrap().unwrap().render(&[] as &[()], true).unwrap()
    }

    #[test]
    fn special_tokens_are_texts_or_objects() {
        let config = json!({
            "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
            "add_bos_token": true, "model_max_length": 10
        });
        let map = json!({"pad_token": "<pad>", "eos_token": "<old>"});
        let config = read(&config, &map, None).unwrap();
        let tokens: Vec<_> = config.special_tokens.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(tokens, [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")]);
        assert!(config.chat_template().unwrap().is_none());
    }

    #[test]
    fn a_template_is_a_text_a_list_or_a_file() {
        let none = json!({});
        let text = json!({"chat_template": "{{ bos_token }}one", "bos_token": "<s>"});
        assert_eq!(render(&read(&text, &none, None).unwrap()), "<s>one");
        let file = read(&text, &none, Some("{{ bos_token }}file\n")).unwrap();
        assert_eq!(render(&file), "<s>file");
        assert!(file.template_path.ends_with("chat_template.jinja"));
        let list = json!({"chat_template": [
            {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}
        ]});
        assert_eq!(render(&read(&list, &none, None).unwrap()), "plain");
        let only = json!({"chat_template": [{"name": "rag", "template": "rag"}]});
        assert_eq!(render(&read(&only, &none, None).unwrap()), "rag");
    }

    #[test]
    fn what_is_no_template_is_named() {
        let two = json!({"chat_template": [
            {"name": "rag", "template": ""}, {"name": "tool_use", "template": ""}
        ]});
        let error = read(&two, &json!({}), None).unwrap().chat_template().unwrap_err().to_string();
        assert!(error.contains("rag, tool_use"), "{error}");
        let error = read(&json!({"chat_template": 3}), &json!({}), None).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains("chat_template"), "{error}");
    }
}
