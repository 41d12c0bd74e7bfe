//! What a template is given beside the conversation.

use std::collections::BTreeMap;

use minijinja::Value;
use serde::{Serialize, de::Error as _};

use super::format::type_name;

/// Names by which templates ask whether the model is to think; those that know one of them think where it is
/// true, or not false.
const THINKING: &[&str] = &["enable_thinking", "thinking"];

/// A value of a template: what JSON can say, with the order of keys kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TemplateValue(pub(super) Value);

impl TemplateValue {
    /// Reads JSON.
    ///
    /// # Errors
    ///
    /// Where it is none, and for an integer beyond 64 bits: it would lose digits.
    pub fn json(text: &str) -> serde_json::Result<Self> {
        let value = serde_json::from_str(text).map(Self)?;
        let kept =
            |digits: &str| digits != "-0" && (digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok());
        match integers(text).find(|digits| !kept(digits)) {
            Some(digits) => Err(serde_json::Error::custom(format!(
                "the integer {digits} is not supported: integers of JSON have 64 bits"
            ))),
            None => Ok(value),
        }
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self(Value::from(text.into()))
    }

    /// Whether it is a list of objects, as tools are.
    pub fn is_list_of_objects(&self) -> bool {
        type_name(&self.0) == "list" && self.items().iter().all(|item| type_name(&item.0) == "dict")
    }

    /// The characters of a text; `None` for anything else.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_str()
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> Vec<Self> {
        let list = (type_name(&self.0) == "list").then(|| self.0.try_iter().ok()).flatten();
        list.into_iter().flatten().map(Self).collect()
    }

    /// Names and values of an object; `None` for anything else.
    pub fn entries(&self) -> Option<Vec<(String, Self)>> {
        let object = self.0.as_object().filter(|_| type_name(&self.0) == "dict")?;
        object.try_iter_pairs()?.map(|(key, value)| Some((key.as_str()?.to_owned(), Self(value)))).collect()
    }
}

/// The integers of a JSON text.
fn integers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            let (end, number) = match &rest[start..=start] {
                "\"" => {
                    let mut escaped = true;
                    let end = rest[start..].find(|c| {
                        let ends = c == '"' && !escaped;
                        escaped = c == '\\' && !escaped;
                        ends
                    });
                    (end.map_or(rest.len(), |end| start + end + 1), false)
                }
                _ => {
                    let end = rest[start..].find(|c: char| !"+-.eE".contains(c) && !c.is_ascii_digit());
                    (end.map_or(rest.len(), |end| start + end), true)
                }
            };
            let word = &rest[start..end];
            rest = &rest[end..];
            if number && !word.contains(['.', 'e', 'E']) {
                return Some(word);
            }
        }
    })
}

impl From<bool> for TemplateValue {
    fn from(value: bool) -> Self {
        Self(Value::from(value))
    }
}

/// Which of a model's templates is used, and with what.
#[derive(Debug, Clone, Default)]
pub struct TemplateOptions {
    /// Name of a template, or path of a file that holds one; the model's choice without it.
    pub template: Option<String>,
    /// Descriptions of functions that the model may call: a list of objects.
    pub tools: Option<TemplateValue>,
    /// Further variables by name.
    pub variables: BTreeMap<String, TemplateValue>,
    /// Whether the model is to answer at once: sets what its template calls thinking to false.
    pub no_thinking: bool,
}

impl TemplateOptions {
    /// Names of the variables that they set.
    pub fn names(&self) -> Vec<String> {
        self.resolve(&[]).1
    }

    /// The variables for a template that reads `known`, and the options that it does not read.
    pub(super) fn resolve(&self, known: &[String]) -> (Vec<(String, TemplateValue)>, Vec<String>) {
        let reads = |name: &str| known.iter().any(|other| other == name);
        let mut variables: Vec<_> =
            self.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut unread: Vec<_> = self.variables.keys().filter(|name| !reads(name)).cloned().collect();
        if let Some(tools) = &self.tools {
            variables.push(("tools".to_owned(), tools.clone()));
            unread.extend((!reads("tools")).then(|| "tools".to_owned()));
        }
        if self.no_thinking {
            let names = THINKING.iter().filter(|name| reads(name));
            variables.extend(names.map(|name| ((*name).to_owned(), TemplateValue::from(false))));
            unread.extend((!THINKING.iter().any(|name| reads(name))).then(|| THINKING[0].to_owned()));
        }
        (variables, unread)
    }
}
