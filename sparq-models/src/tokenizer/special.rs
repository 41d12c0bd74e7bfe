//! Special and added tokens, by the rules of transformers 5.
//!
//! `tokenizer_config.json` names special tokens by role. Where it lists tokens in `added_tokens_decoder`, the
//! list overrules how `tokenizer.json` matches them, and `special_tokens_map.json` is not read. Else the
//! map is read, and wins, and `added_tokens.json` lists further tokens.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::{
    Inner,
    class::Class,
    roles::{FieldOrder, ROLES, Roles, in_order},
};
use crate::error::{Error, Result};

/// The field whose presence leaves the map and `added_tokens.json` unread.
const DECODER: &str = "added_tokens_decoder";

/// Something read, or what is wrong with its field.
type Read<T> = std::result::Result<T, String>;

/// What the files beside `tokenizer.json` say about tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SpecialTokens {
    /// The spelling of every role's token. Roles that no file mentions have what their class gives them.
    pub(super) spellings: BTreeMap<String, String>,
    /// The tokens with a role.
    roles: Vec<Token>,
    /// Further special tokens without a role.
    extra: Vec<Token>,
    /// The tokens of `added_tokens_decoder` in the order of their ids, where there is such a field.
    added: Option<Vec<Token>>,
    /// The tokens of `added_tokens.json` by id, where there is no such field.
    older: BTreeMap<i64, Token>,
    /// What transformers makes of the tokenizer.
    class: Class,
    /// Whether every text begins with a space, where the class or a file says so.
    prefix_space: Option<bool>,
    /// Whether special tokens that are spelled out in a text are split like any other text.
    splits_special: bool,
}

/// A token and how it is matched in a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    /// Special tokens are not normalised if nothing is said.
    normalized: Option<bool>,
    special: bool,
}

/// Fields of one of the files, with its path for messages.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) json: Option<&'a Value>,
    /// Whether it is `special_tokens_map.json`.
    pub(super) is_map: bool,
    pub(super) order: &'a FieldOrder,
}

impl<'a> Fields<'a> {
    pub(super) fn object(&self) -> Result<Option<&'a Map<String, Value>>> {
        match self.json {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.error(format!("expected an object, found {}", kind(other)))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.json.and_then(|json| json.get(name))
    }

    /// The fields in the order of the file.
    pub(super) fn in_order(&self) -> Result<Vec<(&'a String, &'a Value)>> {
        Ok(self.object()?.map(|object| in_order(object, &self.order.fields)).unwrap_or_default())
    }

    pub(super) fn error(&self, message: String) -> Error {
        Error::Config { path: self.path.to_owned(), message }
    }
}

/// Whether `special_tokens_map.json` is read beside this `tokenizer_config.json`.
pub(super) fn reads_map(config: Option<&Value>) -> bool {
    config.is_none_or(|config| config.get(DECODER).is_none())
}

impl SpecialTokens {
    /// Reads `config`, the content of `tokenizer_config.json`, `map`, that of `special_tokens_map.json`, and
    /// `older`, that of `added_tokens.json`, for a tokenizer of this class.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the file and the field that holds something else than a token.
    pub(super) fn new(
        config: &Fields<'_>,
        map: &Fields<'_>,
        older: &Fields<'_>,
        class: Class,
    ) -> Result<Self> {
        config.object()?;
        let added =
            config.get(DECODER).map(|list| added(list).map_err(|error| config.error(error))).transpose()?;
        let unread = Fields { json: None, ..*map };
        let map = if added.is_none() { map } else { &unread };
        let mut fields: BTreeMap<&str, (&Fields<'_>, &Value)> = BTreeMap::new();
        for file in [config, map] {
            let object = file.object()?;
            fields.extend(object.into_iter().flatten().map(|(name, value)| (name.as_str(), (file, value))));
        }
        let mut roles = Roles::new(config, map, &fields)?;
        let [extra, late] = roles.extra(config, map)?;
        let older = match added {
            Some(_) => BTreeMap::new(),
            None => read_older(older, |content| {
                roles.name(content) || extra.iter().any(|token| token.content == content)
            })?,
        };
        let splits_special = match fields.get("split_special_tokens") {
            None => false,
            Some((_, Value::Bool(split))) => *split,
            Some((file, other)) => {
                let message =
                    format!("field `split_special_tokens`: expected true or false, found {}", kind(other));
                return Err(file.error(message));
            }
        };
        let defaults = class.roles().iter().filter(|(role, _)| !fields.contains_key(role));
        for &(role, token) in defaults {
            if !roles.contains(role) {
                roles.set(role, Token::new(token.to_owned(), true));
            }
        }
        // New tokens get their ids in this order.
        let Roles(mut roles) = roles;
        roles.sort_by_key(|(role, _)| ROLES.iter().position(|name| name == role).unwrap_or(ROLES.len()));
        let spellings = roles.iter().map(|(role, token)| (role.clone(), token.content.clone())).collect();
        Ok(Self {
            spellings,
            roles: roles.into_iter().map(|(_, token)| token).collect(),
            extra: [extra, late].concat(),
            added,
            older,
            class,
            prefix_space: prefix_space(&fields, class)?,
            splits_special,
        })
    }

    /// Changes how a tokenizer matches tokens, and adds those that it lacks.
    ///
    /// # Errors
    ///
    /// Those of the library.
    pub(super) fn apply(&self, tokenizer: &mut Inner) -> tokenizers::Result<()> {
        let mut own: Vec<(u32, AddedToken)> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        own.sort_by_key(|(id, _)| *id);
        // Adding nothing would take time with many tokens.
        let tokens = self.to_add(&own);
        if !tokens.is_empty() {
            tokenizer.add_tokens(tokens)?;
        }
        if self.splits_special {
            tokenizer.set_encode_special_tokens(true);
        }
        if let Some(on) = self.prefix_space {
            self.class.set_prefix_space(tokenizer, on)?;
        }
        self.class.set_frame(tokenizer, self.spellings.get("bos_token").map(String::as_str))
    }

    /// The tokens to add to a tokenizer whose file adds `own`, in the order of their ids, or to change in it.
    fn to_add(&self, own: &[(u32, AddedToken)]) -> Vec<AddedToken> {
        let mut tokens: Vec<Token> = match &self.added {
            Some(added) => added.clone(),
            None => {
                let mut tokens = self.older.clone();
                tokens.extend(own.iter().map(|(id, token)| (i64::from(*id), Token::from(token))));
                tokens.into_values().collect()
            }
        };
        let mut known: HashSet<String> = own.iter().map(|(_, token)| token.content.clone()).collect();
        known.extend(tokens.iter().map(|token| token.content.clone()));
        // A token of several roles stands where the first names it, with the flags that the last gives it.
        let mut places: HashMap<&str, usize> = HashMap::new();
        let others = self.roles.iter().chain(&self.extra);
        for token in others.filter(|token| !known.contains(&token.content)) {
            match places.get(token.content.as_str()) {
                Some(&place) => tokens[place] = token.clone(),
                None => {
                    places.insert(&token.content, tokens.len());
                    tokens.push(token.clone());
                }
            }
        }
        let named: HashSet<&str> = self.roles.iter().map(|token| token.content.as_str()).collect();
        let own: HashMap<&str, &AddedToken> =
            own.iter().map(|(_, token)| (token.content.as_str(), token)).collect();
        let is_new = |token: &AddedToken| own.get(token.content.as_str()) != Some(&token);
        let special =
            |token: Token| Token { special: token.special || named.contains(&*token.content), ..token };
        tokens.into_iter().map(special).map(Token::into_added).filter(is_new).collect()
    }
}

/// The tokens of `added_tokens_decoder`, by id.
fn added(list: &Value) -> Read<Vec<Token>> {
    let Value::Object(list) = list else {
        return Err(format!("field `{DECODER}`: expected an object, found {}", kind(list)));
    };
    let mut tokens = BTreeMap::new();
    for (id, token) in list {
        let number: i64 = id.trim().parse().map_err(|_| format!("field `{DECODER}.{id}`: expected an id"))?;
        let field = format!("{DECODER}.{id}");
        match token {
            Value::Object(_) => tokens.insert(number, Token::from_json(&field, token)?),
            other => return Err(format!("field `{field}`: expected an object, found {}", kind(other))),
        };
    }
    Ok(tokens.into_values().collect())
}

/// The tokens of `added_tokens.json`, by id; those that are named elsewhere are special.
fn read_older(file: &Fields<'_>, is_special: impl Fn(&str) -> bool) -> Result<BTreeMap<i64, Token>> {
    let Some(list) = file.object()? else { return Ok(BTreeMap::new()) };
    let token = |(content, id): (&String, &Value)| match id.as_i64() {
        Some(id) => Ok((id, Token::new(content.clone(), is_special(content)))),
        None => Err(file.error(format!("token `{content}`: expected an id, found {}", kind(id)))),
    };
    list.iter().map(token).collect()
}

/// `add_prefix_space`, for classes that read it.
fn prefix_space(fields: &BTreeMap<&str, (&Fields<'_>, &Value)>, class: Class) -> Result<Option<bool>> {
    match (class.prefix_space(), fields.get("add_prefix_space")) {
        (None, _) => Ok(None),
        (default, None) => Ok(default),
        (_, Some((_, Value::Bool(on)))) => Ok(Some(*on)),
        (default, Some((_, Value::Null))) if class.prefix_space_is_optional() => Ok(default),
        (_, Some((file, other))) => {
            let found = kind(other);
            Err(file.error(format!("field `add_prefix_space`: expected true or false, found {found}")))
        }
    }
}

impl Token {
    /// A token that is written as text, or as an object with its text and how it is matched. It is special,
    /// whatever the object says.
    pub(super) fn special(field: &str, json: &Value) -> Read<Self> {
        match json {
            Value::String(content) => Ok(Self::new(content.clone(), true)),
            Value::Object(_) => Ok(Self { special: true, ..Self::from_json(field, json)? }),
            other => Err(format!(
                "field `{field}`: expected a token as a text, or as an object with `content`, found {}",
                kind(other)
            )),
        }
    }

    fn from_json(field: &str, json: &Value) -> Read<Self> {
        let Some(content) = json.get("content").and_then(Value::as_str) else {
            return Err(format!(
                "field `{field}`: expected an object with the text of the token in `content`"
            ));
        };
        let flag = |name: &str| match json.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => {
                Err(format!("field `{field}.{name}`: expected true or false, found {}", kind(other)))
            }
        };
        Ok(Self {
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?,
            special: flag("special")?.unwrap_or(false),
            content: content.to_owned(),
        })
    }

    fn new(content: String, special: bool) -> Self {
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special }
    }

    fn into_added(self) -> AddedToken {
        let normalized = self.normalized.unwrap_or(!self.special);
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(normalized)
    }
}

impl From<&AddedToken> for Token {
    fn from(token: &AddedToken) -> Self {
        Self {
            content: token.content.clone(),
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: Some(token.normalized),
            special: token.special,
        }
    }
}

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests;
