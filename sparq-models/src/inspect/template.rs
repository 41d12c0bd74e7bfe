//! Chat templates: where they are, and whether they can be used.

use serde::Serialize;

use crate::{
    checkpoint::Checkpoint,
    tokenizer::{ChatTemplate, TokenizerConfig},
};

/// One chat template of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateSummary {
    /// Its name; a single one is called `default`.
    pub name: String,
    /// The file that holds it, where the files could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The chat templates of `checkpoint`. What is wrong with their files is told in their place.
pub(super) fn templates(checkpoint: &Checkpoint) -> Vec<TemplateSummary> {
    let failed = |error: crate::Error| {
        vec![TemplateSummary { name: "default".to_owned(), file: None, error: Some(error.to_string()) }]
    };
    match checkpoint.tokenizer_config() {
        Ok(config) => summaries(&config),
        Err(error) => failed(error),
    }
}

fn summaries(config: &TokenizerConfig) -> Vec<TemplateSummary> {
    let summary = |(name, source): (&str, &crate::tokenizer::TemplateSource)| {
        let parsed = ChatTemplate::new(&source.path, &source.text, config.special_tokens.clone());
        let file = source.path.file_name().map(|name| name.to_string_lossy().into_owned());
        TemplateSummary { name: name.to_owned(), file, error: parsed.err().map(|error| error.to_string()) }
    };
    config.templates.iter().map(summary).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::tokenizer::TokenizerFiles;

    #[test]
    fn templates_are_parsed_one_by_one() {
        let config = json!({"chat_template": {"default": "{{ messages }}", "tool_use": "a\n{% do x %}"}});
        let config = TokenizerConfig::new(
            Path::new("no folder"),
            &TokenizerFiles { config: Some(&config), ..TokenizerFiles::default() },
        )
        .unwrap();
        let found = summaries(&config);
        assert_eq!((found[0].name.as_str(), &found[0].error), ("default", &None));
        assert_eq!(found[1].file.as_deref(), Some("tokenizer_config.json"));
        assert!(found[1].error.as_ref().unwrap().contains("line 2, `{% do x %}`: syntax error"), "{found:?}");
    }
}
