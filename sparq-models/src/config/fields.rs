//! Reading single fields of a JSON object, with errors that name file and field.

use std::any::type_name;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result, excerpt};

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
        Ok(Self::of_object(path, String::new(), object))
    }

    /// The fields of an object inside the file at `path`; `prefix` are the names of the enclosing objects,
    /// each followed by a dot.
    pub(crate) fn of_object(path: &'a Path, prefix: String, object: &'a Map<String, Value>) -> Self {
        Self { path, prefix, object }
    }

    /// The file.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// The object itself.
    pub(crate) fn object(&self) -> &'a Map<String, Value> {
        self.object
    }

    /// Whether the field `name` is there, `null` included.
    pub fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
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
            Some(value) => T::deserialize(value).map(Some).map_err(|error| {
                self.bad_field(
                    name,
                    match expected::<T>() {
                        Some(expected) => format!("expected {expected}, found {}", brief(value)),
                        None => error.to_string(),
                    },
                )
            }),
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

    /// The number in field `name` whose inverse root queries are multiplied by; `default` where it is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where f32 cannot hold that root.
    pub fn query_scalar_or(&self, name: &str, default: f64) -> Result<f64> {
        let scalar = self.optional_positive_float(name)?.unwrap_or(default);
        let scale = scalar.powf(-0.5) as f32;
        match scale.is_finite() && scale > 0.0 {
            true => Ok(scalar),
            false => Err(self.bad_field(name, format!("f32 cannot hold 1 / √{scalar:e}"))),
        }
    }

    /// The cap in field `name`: a number above zero that f32 can hold, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is anything else.
    pub fn optional_cap(&self, name: &str) -> Result<Option<f64>> {
        match self.optional_positive_float(name)? {
            Some(cap) if cap > f64::from(f32::MAX) => {
                Err(self.bad_field(name, format!("{cap:e} is more than f32 can hold")))
            }
            cap => Ok(cap),
        }
    }

    /// The cap in field `name`; `default` where the field is absent, nothing where it is `null`.
    ///
    /// # Errors
    ///
    /// As [`ConfigFields::optional_cap`].
    pub fn cap_or(&self, name: &str, default: f64) -> Result<Option<f64>> {
        Ok(self.optional_cap(name)?.or_else(|| self.unless_null(name, default)))
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
            Some(value) => Err(self.bad_field(name, format!("expected an object, found {}", brief(value)))),
        }
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.object.keys().map(String::as_str)
    }

    /// The value of field `name` as it is, if it is there.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        #[cfg(test)]
        super::record::note(&self.prefix, name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// An error that says that field `name` is missing.
    pub(crate) fn missing(&self, name: &str) -> Error {
        self.error(format!("field `{}{name}` is missing", self.prefix))
    }

    /// An error about field `name`.
    pub(crate) fn bad_field(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        self.error(format!("field `{}{name}`: {problem}", self.prefix))
    }
}

/// What a field of type `T` may hold, in plain words.
fn expected<T>() -> Option<&'static str> {
    Some(match type_name::<T>() {
        "bool" => "true or false",
        "usize" | "u64" => "a whole number that is not negative",
        "u32" => "a whole number from 0 to 4294967295",
        "f32" | "f64" => "a number",
        "alloc::string::String" => "a text",
        "alloc::vec::Vec<alloc::string::String>" => "a list of texts",
        "alloc::vec::Vec<f64>" => "a list of numbers",
        "alloc::vec::Vec<u32>" => "a list of whole numbers from 0 to 4294967295",
        _ => return None,
    })
}

/// A value for a message, cut where it is long.
pub(crate) fn brief(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) => format!("\"{}\"", excerpt(text)),
        other => other.to_string(),
    }
}
