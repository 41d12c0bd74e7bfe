//! Reading single fields of a JSON object, with errors that name file and field.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The fields of a JSON configuration file, or of one object in it.
///
/// A field that is `null` counts as absent, as in transformers.
#[derive(Debug, Clone)]
pub struct ConfigFields<'a> {
    path: &'a Path,
    /// Names of the enclosing objects, each followed by a dot.
    prefix: String,
    object: &'a Map<String, Value>,
}

impl<'a> ConfigFields<'a> {
    /// The top-level fields of the file at `path`, whose content is `json`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if `json` is no object.
    pub fn new(path: &'a Path, json: &'a Value) -> Result<Self> {
        let Value::Object(object) = json else {
            let path = path.to_owned();
            let message = "expected a JSON object at the top level".into();
            return Err(Error::Config { path, message });
        };
        let prefix = String::new();
        Ok(Self { path, prefix, object })
    }

    /// An error about this file.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Config { path: self.path.to_owned(), message: message.into() }
    }

    /// The value of field `name`, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the value has another type.
    pub fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|error| self.bad_field(name, error)),
        }
    }

    /// The value of field `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is missing or has another type.
    pub fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.optional(name)?.ok_or_else(|| self.missing(name))
    }

    /// The count in field `name`: a whole number above zero, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is anything else.
    pub fn optional_positive(&self, name: &str) -> Result<Option<usize>> {
        match self.optional(name)? {
            Some(0) => Err(self.bad_field(name, "must not be 0")),
            count => Ok(count),
        }
    }

    /// The count in field `name`: a whole number above zero.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is missing or anything else.
    pub fn positive(&self, name: &str) -> Result<usize> {
        self.optional_positive(name)?.ok_or_else(|| self.missing(name))
    }

    /// The number in field `name`, which must be above zero, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is anything else.
    pub fn optional_positive_float(&self, name: &str) -> Result<Option<f64>> {
        match self.optional::<f64>(name)? {
            Some(number) if number <= 0.0 => {
                Err(self.bad_field(name, format!("must be above 0, is {number}")))
            }
            number => Ok(number),
        }
    }

    /// The number in field `name`, which must be above zero.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is missing or anything else.
    pub fn positive_float(&self, name: &str) -> Result<f64> {
        self.optional_positive_float(name)?.ok_or_else(|| self.missing(name))
    }

    /// The count in field `name`; `default` where the field is absent, nothing where it is `null`:
    /// for what a file switches off with `null` and transformers has on by default.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is anything but a whole number above zero.
    pub fn positive_or(&self, name: &str, default: usize) -> Result<Option<usize>> {
        Ok(self.optional_positive(name)?.or_else(|| self.unless_null(name, default)))
    }

    /// The number in field `name`; `default` where the field is absent, nothing where it is `null`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is anything but a number above zero.
    pub fn positive_float_or(&self, name: &str, default: f64) -> Result<Option<f64>> {
        Ok(self.optional_positive_float(name)?.or_else(|| self.unless_null(name, default)))
    }

    fn unless_null<T>(&self, name: &str, default: T) -> Option<T> {
        (!self.object.contains_key(name)).then_some(default)
    }

    /// The fields of the object in field `name`, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is no object.
    pub fn section(&self, name: &str) -> Result<Option<ConfigFields<'a>>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(object)) => {
                let prefix = format!("{}{name}.", self.prefix);
                Ok(Some(ConfigFields { path: self.path, prefix, object }))
            }
            Some(_) => Err(self.bad_field(name, "expected an object")),
        }
    }

    /// The architecture that the file names: the first entry of `architectures`
    /// (`LlamaForCausalLM`), or `model_type` (`llama`) in files without one.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the file has neither.
    pub fn architecture(&self) -> Result<&'a str> {
        let listed = self.value("architectures").and_then(|list| list.get(0));
        listed
            .or_else(|| self.value("model_type"))
            .and_then(Value::as_str)
            .ok_or_else(|| self.missing("architectures"))
    }

    /// The file, for messages.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.object.keys().map(String::as_str)
    }

    /// The value of field `name`, if it is there and not null.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn missing(&self, name: &str) -> Error {
        self.error(format!("field `{}{name}` is missing", self.prefix))
    }

    fn bad_field(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        self.error(format!("field `{}{name}`: {problem}", self.prefix))
    }
}
