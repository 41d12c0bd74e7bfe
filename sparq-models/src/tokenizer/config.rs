//! `tokenizer_config.json` and the small files beside it: special tokens by role, chat templates.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};

use super::{ChatTemplate, ChatTemplates, TemplateOptions, TemplateSource};
use crate::error::Result;

/// What a model folder says about its tokenizer beside `tokenizer.json`; all of it may be absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenizerConfig {
    /// Spelling of the special tokens by role: `bos_token`, `eos_token`, ….
    pub special_tokens: BTreeMap<String, String>,
    /// Chat templates by name.
    pub templates: ChatTemplates,
}

impl TokenizerConfig {
    /// Reads the content of `tokenizer_config.json`, and of `special_tokens_map.json` for roles that
    /// it leaves open. Each file may be absent; `dir` is where they lie, and templates beside them.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTemplates::read`].
    pub fn new(dir: &Path, config: Option<&Value>, special_tokens_map: Option<&Value>) -> Result<Self> {
        let empty = Map::new();
        let object = |json: Option<&'_ Value>| json.and_then(Value::as_object).unwrap_or(&empty).clone();
        let (fields, map) = (object(config), object(special_tokens_map));
        let special_tokens = map
            .iter()
            .chain(&fields)
            .filter(|(role, _)| role.ends_with("_token"))
            .filter_map(|(role, token)| Some((role.clone(), spelling(token)?.to_owned())))
            .collect();
        let templates = ChatTemplates::read(dir, config)?;
        Ok(Self { special_tokens, templates })
    }

    /// The template that `options` choose, if the model has one, and the options that it does not read.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Template`] for one that cannot be parsed, [`crate::Error::Io`], and those of
    /// [`ChatTemplates::choose`].
    pub fn chat_template(&self, options: &TemplateOptions) -> Result<Option<(ChatTemplate, Vec<String>)>> {
        let name = options.template.as_deref();
        let file = match name {
            Some(name) if !self.templates.has(name) => TemplateSource::read(Path::new(name))?,
            _ => None,
        };
        let source = match &file {
            Some(source) => Some(source),
            None => self.templates.choose(name, options.tools.is_some())?,
        };
        let Some(TemplateSource { path, text }) = source else { return Ok(None) };
        let mut template = ChatTemplate::new(path, text, self.special_tokens.clone())?;
        let unread = template.set(options);
        Ok(Some((template, unread)))
    }
}

/// A token is written as text, or as an object with its text and how it is matched.
fn spelling(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value, map: &Value) -> TokenizerConfig {
        TokenizerConfig::new(Path::new("m"), Some(config), Some(map)).unwrap()
    }

    #[test]
    fn special_tokens_are_texts_or_objects() {
        let config = json!({
            "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
            "add_bos_token": true, "model_max_length": 10
        });
        let map = json!({"pad_token": "<pad>", "eos_token": "<old>"});
        let config = read(&config, &map);
        let tokens: Vec<_> = config.special_tokens.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(tokens, [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")]);
        assert!(config.chat_template(&TemplateOptions::default()).unwrap().is_none());
    }
}
