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
        let error = parsed.map_or_else(Some, |template| template.lacks());
        TemplateSummary { name: name.to_owned(), file, error: error.map(|error| error.to_string()) }
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

    #[test]
    fn names_that_are_not_there_are_told_before_a_template_runs() {
        let error_of = |template: &str| {
            let config = json!({ "chat_template": template });
            let files = TokenizerFiles { config: Some(&config), ..TokenizerFiles::default() };
            let config = TokenizerConfig::new(Path::new("no folder"), &files).unwrap();
            summaries(&config)[0].error.clone()
        };
        for (template, expected) in [
            ("{% if tools %}{{ tools|wordwrap(3) }}{% endif %}", "`wordwrap`: unknown filter"),
            ("{{ messages|fnord }}", "`fnord`: unknown filter"),
            ("{{ 1 if messages is fnord }}", "`fnord`: unknown test"),
            ("{{ messages[0].content.encode('x') }}", "`encode`: unknown method"),
            ("{% set row = cycler(1) %}", "`cycler`: unknown function"),
            ("{% macro f() %}{{ varargs }}{% endmacro %}", "`varargs` of a macro is not supported"),
        ] {
            let error = error_of(template).unwrap_or_default();
            assert!(error.contains(expected) && error.contains("line 1"), "{template}: {error}");
        }
        let known = "{% macro f(a) %}{{ a.split('x') }}{% endmacro %}{{ f(x)|upper }}{{ x is none }}{{ loop.cycle(1) }}\
                     {{ namespace(a=1).a }}{{ strftime_now('') }}{% set g = f %}{{ g('') }}";
        assert_eq!(error_of(known), None);
    }
}
