//! `tokenizer_config.json` and the small files beside it: special tokens by role, chat templates.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    ChatTemplate, ChatTemplates, TemplateOptions, TemplateSource,
    special::{self, Fields, SpecialTokens},
};
use crate::error::Result;

/// What a model folder says about its tokenizer beside `tokenizer.json`; all of it may be absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenizerConfig {
    /// Spelling of the special tokens by role: `bos_token`, `eos_token`, ….
    pub special_tokens: BTreeMap<String, String>,
    /// Chat templates by name.
    pub templates: ChatTemplates,
    /// How tokens are matched, beside what `tokenizer.json` says.
    pub(super) tokens: SpecialTokens,
}

impl TokenizerConfig {
    /// Reads the content of `tokenizer_config.json`, and of `special_tokens_map.json`, whose fields win
    /// unless the first file lists `added_tokens_decoder`. Each file may be absent; `dir` is where they lie,
    /// and templates beside them.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a file that is no object or a special token that is no
    /// token, and those of [`ChatTemplates::read`].
    pub fn new(dir: &Path, config: Option<&Value>, special_tokens_map: Option<&Value>) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        let map_path = dir.join("special_tokens_map.json");
        let tokens = SpecialTokens::new(
            &Fields { path: &path, json: config, is_map: false },
            &Fields { path: &map_path, json: special_tokens_map, is_map: true },
        )?;
        let templates = ChatTemplates::read(dir, config)?;
        Ok(Self { special_tokens: tokens.spellings.clone(), templates, tokens })
    }

    /// Whether `special_tokens_map.json` is read beside this `tokenizer_config.json`.
    pub(crate) fn reads_map(config: Option<&Value>) -> bool {
        special::reads_map(config)
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
