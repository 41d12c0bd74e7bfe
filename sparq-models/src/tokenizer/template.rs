//! Chat templates: a conversation as the text that a model was trained on.
//!
//! Templates are written for Jinja2 as `transformers` sets it up (`apply_chat_template`); this is the
//! same set-up for minijinja.

mod json;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    error::Error as _,
    fmt,
    path::{Path, PathBuf},
};

use jiff::Zoned;
use minijinja::{Environment, ErrorKind, Value, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

use crate::error::{Error, Result};

/// Name of the template inside its environment.
const NAME: &str = "chat_template";

/// Longest piece of a template that an error shows, in characters.
const SNIPPET: usize = 80;

/// A parsed chat template and the special tokens that it may spell out.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    /// The file it comes from, for messages.
    path: PathBuf,
}

/// What a template's `raise_exception` says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Parses `source`, found in the file at `path`. `special_tokens` are spellings by role, such as
    /// `bos_token`.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] names the line that cannot be parsed.
    pub fn new(path: &Path, source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let mut environment = Environment::new();
        let fail = |error| template_error(path, &error);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fail)?;
        environment.set_syntax(syntax);
        // Errors carry the place in the template.
        environment.set_debug(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned(NAME, without_generation_tags(source).into_owned())
            .map_err(|error| template_error(path, &error))?;
        Ok(Self { environment, special_tokens, path: path.to_owned() })
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the answer begins.
    ///
    /// The template spells out the special tokens, beginning of text included: encode the text
    /// without adding any.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] says what failed and in which line: many templates refuse roles that the
    /// model does not know, or that do not alternate.
    pub fn render(&self, messages: &[impl Serialize], add_generation_prompt: bool) -> Result<String> {
        let tokens =
            self.special_tokens.iter().map(|(role, token)| (role.as_str(), Value::from(token.as_str())));
        let variables = Value::from_pairs(tokens.chain([
            ("messages", Value::from(Serde(messages))),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]));
        let template = self.environment.get_template(NAME);
        let text = template.and_then(|template| template.render(variables));
        text.map_err(|error| template_error(&self.path, &error))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, special_tokens, .. } = self;
        f.debug_struct("ChatTemplate")
            .field("path", path)
            .field("special_tokens", special_tokens)
            .finish_non_exhaustive()
    }
}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The date or time where the user is, in the notation of C's `strftime`.
fn strftime_now(format: String) -> std::result::Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(&format, &Zoned::now())
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// `{% generation %}` marks what a model is trained on; for rendering, it is a scope and no more.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag, after)) = next_tag(rest) {
        result.push_str(before);
        let name = tag.trim_matches(|c: char| c.is_whitespace() || "{%-+}".contains(c));
        match name {
            // Keeps the line breaks and the whitespace control of the tag.
            "generation" | "endgeneration" => result.push_str(&tag.replace("generation", "with")),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result.push_str(rest);
    Cow::Owned(result)
}

/// The text before the first `{% … %}`, the tag itself, and the text after it.
fn next_tag(source: &str) -> Option<(&str, &str, &str)> {
    let start = source.find("{%")?;
    let end = start + source[start..].find("%}")? + 2;
    Some((&source[..start], &source[start..end], &source[end..]))
}

/// The line, the piece of the template and what is wrong with it.
fn template_error(path: &Path, error: &minijinja::Error) -> Error {
    let snippet = error.range().zip(error.template_source()).and_then(|(range, source)| {
        let piece = source.get(range)?.trim();
        let cut = piece.char_indices().nth(SNIPPET).map_or(piece.len(), |(index, _)| index);
        Some(format!("{}{}", &piece[..cut], if cut < piece.len() { "…" } else { "" }))
    });
    let raised = error.source().and_then(|source| source.downcast_ref::<Raised>());
    let message = match (raised, error.detail()) {
        (Some(Raised(message)), _) => format!("the template refuses the conversation: {message}"),
        (None, Some(detail)) => format!("{}: {detail}", error.kind()),
        (None, None) => error.kind().to_string(),
    };
    let place = match (error.line(), snippet.filter(|snippet| !snippet.is_empty())) {
        (Some(line), Some(snippet)) => format!(", line {line}, `{snippet}`"),
        (Some(line), None) => format!(", line {line}"),
        (None, _) => String::new(),
    };
    Error::Template { path: path.to_owned(), place, message }
}
