//! Flags of the chat template: which one, and what it is given.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sparq_models::{
    chat::ChatFormat,
    checkpoint::Checkpoint,
    tokenizer::{TemplateOptions, TemplateValue},
};

use crate::output;

/// What every template is given, or has a flag of its own.
const RESERVED: &[&str] = &["messages", "add_generation_prompt", "tools"];

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Chat template")]
pub(crate) struct TemplateArgs {
    /// Chat template to use: a name such as `default`, `tool_use` or `rag`, or a file
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "no_chat_template")]
    pub(crate) chat_template: Option<String>,

    /// JSON file with the list of functions that the model may call
    #[arg(long, value_name = "FILE", conflicts_with = "no_chat_template")]
    pub(crate) tools: Option<PathBuf>,

    /// Variable for the template, such as `enable_thinking=false` (JSON, else text), or a JSON object of
    /// several; repeatable
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "no_chat_template")]
    pub(crate) template_kwargs: Vec<String>,

    /// Ask the model not to think, if its template supports that
    #[arg(long, conflicts_with = "no_chat_template")]
    pub(crate) no_thinking: bool,
}

impl TemplateArgs {
    /// The format of a model's conversations. Flags without effect are said.
    ///
    /// # Errors
    /// Files and values of another form; templates that are damaged.
    pub(crate) fn format(&self, checkpoint: &Checkpoint) -> anyhow::Result<ChatFormat> {
        let (format, unread) = ChatFormat::with(checkpoint, &self.options()?)?;
        let reader = match format {
            ChatFormat::Template(_) => "the chat template does not read",
            ChatFormat::Plain => "the model has no chat template that could read",
        };
        for name in unread {
            output::say(format!("note: {reader} `{name}`: it has no effect"));
        }
        Ok(format)
    }

    fn options(&self) -> anyhow::Result<TemplateOptions> {
        let mut options = TemplateOptions {
            template: self.chat_template.clone(),
            no_thinking: self.no_thinking,
            ..Default::default()
        };
        if let Some(path) = &self.tools {
            let text =
                fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            let tools =
                TemplateValue::json(text).with_context(|| format!("`{}` is no JSON", path.display()))?;
            if !tools.is_list_of_objects() {
                bail!(
                    "`{}` is no list of objects: tools are [{{\"type\": \"function\", …}}, …]",
                    path.display()
                );
            }
            options.tools = Some(tools);
        }
        for word in &self.template_kwargs {
            let pairs = match word.split_once('=') {
                Some((name, value)) if !word.trim_start().starts_with('{') => {
                    vec![(name.to_owned(), read(value))]
                }
                _ => {
                    let object = TemplateValue::json(word).ok().and_then(|value| value.entries());
                    object.with_context(|| {
                        format!("--template-kwargs `{word}`: expected KEY=VALUE or a JSON object")
                    })?
                }
            };
            for (name, value) in pairs {
                if RESERVED.contains(&name.as_str()) || name.is_empty() {
                    bail!("--template-kwargs cannot set `{name}`");
                }
                options.variables.insert(name, value);
            }
        }
        Ok(options)
    }
}

/// A value as JSON, in Python's spelling, or as it is.
fn read(text: &str) -> TemplateValue {
    let json = match text {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    TemplateValue::json(json).unwrap_or_else(|_| TemplateValue::text(text))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn options(words: &[&str]) -> anyhow::Result<TemplateOptions> {
        match Cli::try_parse_from([&["sparq", "chat"], words].concat())?.command {
            Command::Chat(args) => args.template.options(),
            _ => unreachable!("chat was typed"),
        }
    }

    #[test]
    fn values_are_json_or_text() {
        let words = ["a=false", "b=True", "c=low", "d=[1, 2]", "e=", "{\"f\": null, \"g\": 1.5}", "h=x=y"];
        let words: Vec<&str> = words.iter().flat_map(|word| ["--template-kwargs", word]).collect();
        let variables = options(&words).unwrap().variables;
        let json = |text| TemplateValue::json(text).unwrap();
        for (name, value) in [
            ("a", json("false")),
            ("b", json("true")),
            ("c", TemplateValue::text("low")),
            ("d", json("[1, 2]")),
            ("e", TemplateValue::text("")),
            ("f", json("null")),
            ("g", json("1.5")),
            ("h", TemplateValue::text("x=y")),
        ] {
            assert_eq!(variables[name], value, "{name}");
        }
    }

    #[test]
    fn what_is_no_variable_is_named() {
        for (word, expected) in [
            ("enable_thinking", "expected KEY=VALUE or a JSON object"),
            ("{\"a\": 1", "expected KEY=VALUE or a JSON object"),
            ("messages=[]", "cannot set `messages`"),
            ("=1", "cannot set ``"),
        ] {
            let error = options(&["--template-kwargs", word]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(options(&["--no-thinking", "--no-chat-template"]).is_err());
    }
}
