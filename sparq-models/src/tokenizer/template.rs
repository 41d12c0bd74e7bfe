//! Chat templates: a conversation as the text that a model was trained on.
//!
//! Templates are written for Jinja2 as `transformers` sets it up (`apply_chat_template`); this is the
//! same set-up for minijinja.

mod arguments;
mod chars;
mod dates;
mod failure;
mod fields;
mod filters;
mod format;
mod json;
mod lazy;
mod methods;
mod numbers;
mod operators;
mod order;
mod percent;
mod rewrite;
mod source;
mod spec;
mod variables;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use jiff::Zoned;
use minijinja::{
    Environment, ErrorKind, Output, State, Value,
    syntax::SyntaxConfig,
    value::{Object, ObjectRepr, Rest, Serde, ValueOrKwargs},
};
use serde::Serialize;

use crate::error::{Error, Result};
use arguments::bind;
use failure::Raised;
use rewrite::{Mention, Name, Rewritten};
pub use source::{ChatTemplates, TemplateSource};
pub use variables::{TemplateOptions, TemplateValue};

/// Name of the template inside its environment.
const NAME: &str = "chat_template";

/// Steps of the engine that a rendering may take, where one is also 64 bytes that are written, …
const STEPS: u64 = 16 << 20;

/// … and how many more for each pair of messages: many templates look back from every message.
const STEPS_PER_PAIR: u64 = 64;

/// Stack of a rendering, in bytes: macros and nested values go deep.
const STACK: usize = 64 << 20;

/// A parsed chat template and the special tokens that it may spell out.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// What it is given beside the conversation: special tokens by role, tools, ….
    variables: BTreeMap<String, Value>,
    /// The source, and where its pieces are in what the environment runs.
    rewritten: Rewritten,
    /// The file it comes from, for messages.
    path: PathBuf,
}

impl ChatTemplate {
    /// Parses `source`, found in the file at `path`. `special_tokens` are spellings by role, such as
    /// `bos_token`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Template`] names the line that cannot be parsed.
    pub fn new(path: &Path, source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let rewritten = Rewritten::new(source)
            .map_err(|(source, error)| failure::syntax(path, &source, error.range, &error.message))?;
        let environment = failure::guarded(path, || environment(&rewritten.text))?
            .map_err(|error| failure::engine(path, &rewritten, &error))?;
        let at_once = |mention: &Mention| mention.name != Name::Method && !mention.conditional;
        if let Some(error) = Self::unknown(path, &environment, &rewritten, at_once).next() {
            return Err(error);
        }
        let none = ["tools", "documents"].map(|name| (name.to_owned(), Value::from(())));
        let tokens = special_tokens.into_iter().map(|(role, token)| (role, Value::from(token)));
        Ok(Self {
            environment,
            variables: none.into_iter().chain(tokens).collect(),
            rewritten,
            path: path.to_owned(),
        })
    }

    /// What the template names and is not there, function, filter, test or method: it cannot be used, or only as
    /// long as it does not get there.
    pub fn lacks(&self) -> Option<Error> {
        let functions = self.unknown_functions();
        let lacking = Self::unknown(&self.path, &self.environment, &self.rewritten, |_| true);
        lacking.chain(functions).next()
    }

    /// … and functions that are neither here nor set by the template.
    fn unknown_functions(&self) -> impl Iterator<Item = Error> + '_ {
        let variables = self.variables();
        let globals: Vec<String> = self.environment.globals().map(|(name, _)| name.to_owned()).collect();
        self.rewritten.mentions.iter().filter(|mention| mention.name == Name::Function).filter_map(
            move |mention| {
                let word = &self.rewritten.source[mention.range.clone()];
                let unknown =
                    variables.iter().any(|name| name == word) && !globals.iter().any(|name| name == word);
                (unknown && word != "caller")
                    .then(|| failure::unknown(&self.path, &self.rewritten.source, mention))
            },
        )
    }

    /// What is not there of all that Jinja2 looks for before it runs, …
    fn unknown<'a>(
        path: &'a Path,
        environment: &'a Environment<'static>,
        rewritten: &'a Rewritten,
        heeded: fn(&Mention) -> bool,
    ) -> impl Iterator<Item = Error> + 'a {
        let mentions = rewritten.mentions.iter().filter(move |mention| heeded(mention));
        mentions.filter_map(move |mention| {
            let word = &rewritten.source[mention.range.clone()];
            let known = match mention.name {
                Name::Filter => filters::has_filter(environment, word),
                Name::Test => filters::has_test(environment, word),
                Name::Method => methods::is_known(word),
                Name::Function => true,
            };
            (!known).then(|| failure::unknown(path, &rewritten.source, mention))
        })
    }

    /// Gives the template what `options` hold; returns the names of those that it does not read, which have
    /// no effect.
    pub fn set(&mut self, options: &TemplateOptions) -> Vec<String> {
        let (variables, unread) = options.resolve(&self.variables());
        self.variables.extend(variables.into_iter().map(|(name, TemplateValue(value))| (name, value)));
        unread
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the answer begins.
    ///
    /// The template spells out the special tokens, beginning of text included: encode the text
    /// without adding any.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Template`] says what failed and in which line: many templates refuse roles that the
    /// model does not know, or that do not alternate.
    pub fn render(&self, messages: &[impl Serialize], add_generation_prompt: bool) -> Result<String> {
        let mut variables = self.variables.clone();
        variables.insert("messages".to_owned(), Value::from(Serde(messages)));
        variables.insert("add_generation_prompt".to_owned(), Value::from(add_generation_prompt));
        let count = messages.len() as u64;
        let steps = STEPS.saturating_add(count.saturating_mul(count).saturating_mul(STEPS_PER_PAIR));
        self.on_a_thread(Value::from_pairs(variables), steps)
    }

    /// Renders with room to recurse.
    fn on_a_thread(&self, variables: Value, steps: u64) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        let run = || environment.get_template(NAME).and_then(|template| template.render(variables));
        let render = || failure::guarded(&self.path, run);
        let failed = |message: &str| failure::whole(&self.path, message);
        let outcome = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, render);
            thread
                .map(|thread| thread.join())
                .map_err(|error| failed(&format!("no thread to render on: {error}")))
        })?;
        match outcome {
            Ok(rendered) => rendered?.map_err(|error| failure::engine(&self.path, &self.rewritten, &error)),
            Err(_) => Err(failed("the thread that renders it broke down")),
        }
    }

    /// Names that the template reads and does not set itself.
    pub fn variables(&self) -> Vec<String> {
        let template = self.environment.get_template(NAME);
        let mut names: Vec<_> = template
            .map(|template| template.undeclared_variables(false))
            .unwrap_or_default()
            .into_iter()
            .collect();
        names.sort_unstable();
        names
    }
}

/// What runs a template of the rewritten text.
fn environment(text: &str) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?,
    );
    // Errors carry the place in the template.
    environment.set_debug(true);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(show);
    filters::register(&mut environment);
    operators::register(&mut environment);
    order::register(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    // Jinja2 always has it; its blocks are the engine's own.
    environment.add_global("self", Value::from_object(TemplateReference));
    environment.add_template_owned(NAME, text.to_owned())?;
    Ok(environment)
}

/// What Jinja2 calls `self`: the template that is running.
#[derive(Debug)]
struct TemplateReference;

impl Object for TemplateReference {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// Writes a value as Python does.
fn show(
    out: &mut Output<'_>,
    _state: &mut State<'_, '_>,
    value: &Value,
) -> std::result::Result<(), minijinja::Error> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&format::text_of(value)?),
    };
    Ok(written?)
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, variables, .. } = self;
        f.debug_struct("ChatTemplate")
            .field("path", path)
            .field("variables", variables)
            .finish_non_exhaustive()
    }
}

fn raise_exception(arguments: Rest<ValueOrKwargs>) -> std::result::Result<Value, minijinja::Error> {
    let [message] = bind("raise_exception", ["message"], &arguments.into_values())?;
    let message = format::text_of(&message.unwrap_or_default())?;
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The date or time where the user is, in the notation of C's `strftime`.
fn strftime_now(arguments: Rest<ValueOrKwargs>) -> std::result::Result<String, minijinja::Error> {
    let [format] = bind("strftime_now", ["format"], &arguments.into_values())?;
    let format = arguments::text("strftime_now", "format", format)?;
    dates::strftime(&format, &Zoned::now())
}
