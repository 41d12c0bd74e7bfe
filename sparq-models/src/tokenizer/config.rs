//! `tokenizer_config.json` and the small files beside it: special tokens by role, chat templates.

use std::{collections::BTreeMap, fmt, path::Path};

use serde_json::Value;

use super::{
    ChatTemplate, ChatTemplates, TemplateOptions, TemplateSource,
    class::Asked,
    roles::FieldOrder,
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

/// The files that say something about a tokenizer; each may be absent.
#[derive(Clone, Copy)]
pub struct TokenizerFiles<'a> {
    /// `config.json`.
    pub model: Option<&'a Value>,
    /// `tokenizer_config.json`.
    pub config: Option<&'a Value>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a Value>,
    /// `added_tokens.json`.
    pub added_tokens: Option<&'a Value>,
    /// In which order `tokenizer_config.json` and `special_tokens_map.json` have their fields.
    pub orders: [&'a FieldOrder; 2],
    /// Whether `tokenizer.json` is byte-level: it holds `"ByteLevel"`. Asked where it matters.
    pub is_byte_level: &'a dyn Fn() -> bool,
}

impl fmt::Debug for TokenizerFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenizerFiles").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Default for TokenizerFiles<'_> {
    fn default() -> Self {
        Self {
            model: None,
            config: None,
            special_tokens_map: None,
            added_tokens: None,
            orders: [FieldOrder::NONE; 2],
            is_byte_level: &|| false,
        }
    }
}

impl TokenizerConfig {
    /// Reads the content of `tokenizer_config.json`, and, unless it lists `added_tokens_decoder`, of
    /// `special_tokens_map.json`, whose fields win, and of `added_tokens.json`. What a class of tokenizers adds follows from
    /// `tokenizer_class` and from the `model_type` of `config.json`. `dir` is where the files lie, and
    /// templates beside them.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a file that is no object or a special token that is no
    /// token, and those of [`ChatTemplates::read`].
    pub fn new(dir: &Path, files: &TokenizerFiles<'_>) -> Result<Self> {
        let TokenizerFiles { model, config, special_tokens_map: map, added_tokens, .. } = *files;
        let is_byte_level = files.is_byte_level;
        let [path, map_path, older] =
            ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
                .map(|name| dir.join(name));
        let [order, map_order] = files.orders;
        let tokens = SpecialTokens::new(
            &Fields { path: &path, json: config, is_map: false, order },
            &Fields { path: &map_path, json: map, is_map: true, order: map_order },
            &Fields { path: &older, json: added_tokens, is_map: false, order: FieldOrder::NONE },
            Asked { model, config, is_byte_level }.class(),
        )?;
        let templates = ChatTemplates::read(dir, config)?;
        Ok(Self { special_tokens: tokens.spellings.clone(), templates, tokens })
    }

    /// Whether `special_tokens_map.json` and `added_tokens.json` are read beside this `tokenizer_config.json`.
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
