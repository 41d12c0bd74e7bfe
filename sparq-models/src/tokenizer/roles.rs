//! Tokens with a role, and further special tokens, from the two files that name them.

use std::collections::BTreeMap;

use minijinja::Value as Ordered;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::special::{Fields, Token, kind};
use crate::error::Result;

/// The roles whose value must be a token. Any other field that ends in `_token` is a role if it holds one.
pub(super) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

const EXTRA: &str = "extra_special_tokens";
/// The old name of the same field.
const ADDITIONAL: &str = "additional_special_tokens";

/// The names of a file's fields in the order in which they stand there.
///
/// A [`Value`] sorts them, and new tokens get their ids in this order. Names that it lacks come last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldOrder {
    pub(super) fields: Vec<String>,
    /// Those of the object of extra special tokens.
    extra: Vec<String>,
}

impl FieldOrder {
    /// Of no file.
    pub const NONE: &'static Self = &Self { fields: Vec::new(), extra: Vec::new() };
}

impl<'de> Deserialize<'de> for FieldOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let json = Ordered::deserialize(deserializer)?;
        let names = |json: &Ordered| {
            let pairs = json.as_object().and_then(|object| object.try_iter_pairs());
            pairs.into_iter().flatten().filter_map(|(name, _)| Some(name.as_str()?.to_owned())).collect()
        };
        let extra = [EXTRA, ADDITIONAL].map(|name| json.get_attr(name).map(|list| names(&list)));
        let extra: Vec<Vec<String>> = extra.into_iter().flatten().collect();
        Ok(Self { fields: names(&json), extra: extra.concat() })
    }
}

pub(super) fn in_order<'a>(object: &'a Map<String, Value>, names: &[String]) -> Vec<(&'a String, &'a Value)> {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_by_key(|(name, _)| names.iter().position(|known| known == *name).unwrap_or(names.len()));
    fields
}

/// Tokens by role; a role keeps its first place.
#[derive(Debug, Default)]
pub(super) struct Roles(pub(super) Vec<(String, Token)>);

impl Roles {
    pub(super) fn set(&mut self, role: &str, token: Token) {
        match self.0.iter_mut().find(|(known, _)| known == role) {
            Some((_, old)) => *old = token,
            None => self.0.push((role.to_owned(), token)),
        }
    }

    pub(super) fn contains(&self, role: &str) -> bool {
        self.0.iter().any(|(known, _)| known == role)
    }

    /// Whether a role that every tokenizer has belongs to this token.
    pub(super) fn name(&self, content: &str) -> bool {
        self.0.iter().any(|(role, token)| ROLES.contains(&role.as_str()) && token.content == content)
    }

    /// The roles of `own`, `tokenizer_config.json`, and of `map`, `special_tokens_map.json` where that is
    /// read: first those that every tokenizer has, then those of the model's own, each in the order in
    /// which its token gets an id.
    pub(super) fn new(
        own: &Fields<'_>,
        map: &Fields<'_>,
        fields: &BTreeMap<&str, (&Fields<'_>, &Value)>,
    ) -> Result<Self> {
        let mut roles = Self::default();
        for role in ROLES {
            let Some(&(file, value)) = fields.get(role) else { continue };
            // An object without a text names no token in the map, and is an error elsewhere.
            let names_none = file.is_map && value.is_object() && value.get("content").is_none();
            if !value.is_null() && !names_none {
                roles.set(role, Token::special(role, value).map_err(|error| file.error(error))?);
            }
        }
        let is_own = |name: &str| name.ends_with("_token") && !ROLES.contains(&name);
        let own_fields = own.in_order()?.into_iter().filter(|(name, _)| is_own(name));
        let (texts, others): (Vec<_>, Vec<_>) = own_fields.partition(|(_, value)| value.is_string());
        // A text of the configuration is set last, and stands over the map.
        let tokens = others.into_iter().filter(|(_, value)| is_added_token(value));
        let tokens = tokens.filter_map(|(name, _)| Some((name, *fields.get(name.as_str())?)));
        let mapped = map.in_order()?.into_iter().filter(|(name, _)| is_own(name));
        let mapped = mapped.map(|(name, value)| (name, (map, value)));
        let texts = texts.into_iter().map(|(name, value)| (name, (own, value)));
        for (name, (file, value)) in tokens.chain(mapped).chain(texts) {
            if value.is_string() || value.get("content").is_some_and(Value::is_string) {
                roles.set(name, Token::special(name, value).map_err(|error| file.error(error))?);
            }
        }
        Ok(roles)
    }

    /// Sets the roles of the objects of extra special tokens, and returns the tokens of the lists: those that
    /// `added_tokens.json` is read with, and the rest.
    ///
    /// `additional_special_tokens` counts where the configuration's `extra_special_tokens` are none, or where no
    /// file lists these. The map's list is added to that of the configuration.
    pub(super) fn extra(&mut self, own: &Fields<'_>, map: &Fields<'_>) -> Result<[Vec<Token>; 2]> {
        let mut list: Option<Vec<Token>> = None;
        let mut take = |file: &Fields<'_>, name: &str, value: &Value| {
            let token = |field: &str, json| Token::special(field, json).map_err(|error| file.error(error));
            match value {
                Value::Null => list = Some(Vec::new()),
                Value::Array(values) => {
                    let more = values.iter().map(|json| token(name, json)).collect::<Result<Vec<_>>>()?;
                    list.get_or_insert_default().extend(more);
                }
                Value::Object(object) => {
                    list = None;
                    for (role, json) in in_order(object, &file.order.extra) {
                        self.set(role, token(&format!("{name}.{role}"), json)?);
                    }
                }
                other => {
                    let message = format!("field `{name}`: expected a list of tokens, found {}", kind(other));
                    return Err(file.error(message));
                }
            }
            Ok(list.is_some())
        };
        let (mut old, mut is_listed) = (own.get(ADDITIONAL).map(|value| (own, value)), false);
        match own.get(EXTRA) {
            Some(value) if old.is_none() || !is_empty(value) => is_listed = take(own, EXTRA, value)?,
            _ => {
                if let Some((_, value)) = old.take() {
                    is_listed = take(own, ADDITIONAL, value)?;
                }
            }
        }
        if let Some(value) = map.get(EXTRA) {
            is_listed = take(map, EXTRA, value)?;
        }
        old = map.get(ADDITIONAL).map(|value| (map, value)).or(old);
        if let Some((file, value)) = old.filter(|_| !is_listed) {
            take(file, ADDITIONAL, value)?;
            return Ok([Vec::new(), list.unwrap_or_default()]);
        }
        Ok([list.unwrap_or_default(), Vec::new()])
    }
}

/// Whether an object says that it is a token, as those do that the library writes.
fn is_added_token(value: &Value) -> bool {
    value.get("__type").and_then(Value::as_str) == Some("AddedToken")
}

/// Whether Python takes a value for false.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}
