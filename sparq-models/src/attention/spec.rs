//! Methods in one word, for lists and profiles: `sparq:r=16:k=64`, `h2o@8`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sparq_core::{Method, MethodKind};

use super::{
    COMPRESSION, RATIO,
    keys::{KEYS, SpecKey, SpecKeys, key},
};
use crate::error::{Error, Result};

/// A decode method as a user writes it: what is not stated is filled in for the model and the length of the
/// run by [`MethodSpec::resolve`].
///
/// `NAME[@RATIO][:KEY=VALUE]…`, such as `dense`, `sparq@8`, `sparq:r=16:k=64:mean=off`, `h2o:k=64`.
/// [`KEYS`] has the keys, [`super::CLASHES`] what cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodSpec {
    /// The method.
    pub kind: MethodKind,
    /// `@RATIO`: dense bytes over bytes moved.
    pub compression: Option<f64>,
    /// What is stated by key.
    pub keys: SpecKeys,
}

impl From<MethodKind> for MethodSpec {
    /// The method with every size left open.
    fn from(kind: MethodKind) -> Self {
        Self { kind, compression: None, keys: SpecKeys::default() }
    }
}

impl From<&Method> for MethodSpec {
    /// The notation of a method, all sizes stated. Calibrated channels have no place in it.
    fn from(method: &Method) -> Self {
        let mut spec = Self::from(method.kind());
        for key in keys_of(spec.kind) {
            key.state(method, &mut spec.keys);
        }
        spec
    }
}

/// The keys that a method takes, in the order in which they are written.
pub fn keys_of(kind: MethodKind) -> impl Iterator<Item = &'static dyn SpecKey> {
    KEYS.into_iter().filter(move |key| key.methods().contains(&kind))
}

/// A compression ratio as it is written.
pub fn ratio(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio >= 1.0)
}

impl MethodSpec {
    /// Reads the notation.
    ///
    /// # Errors
    /// [`Error::MethodSpec`] that says what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text).map_err(|reason| Error::MethodSpec { text: text.into(), reason })
    }

    /// The notation with a key more, or with the ratio for [`RATIO`]. What it clashes with is not checked.
    ///
    /// # Errors
    /// [`Error::MethodSpec`] for a key that the method does not take, that is stated already, or whose value
    /// is out of range.
    pub fn with(mut self, option: &str, value: &str) -> Result<Self> {
        let text = format!("{self}:{option}={value}");
        self.state(option, value).map_err(|reason| Error::MethodSpec { text, reason })?;
        Ok(self)
    }

    /// The compression ratio where neither sizes nor a ratio are stated: [`COMPRESSION`]. Exact top-k, which
    /// reads every key and so moves more than a half, reads the values of as large a part of the positions.
    pub fn default_compression(&self) -> f64 {
        match self.kind {
            MethodKind::ExactTopk => 2.0 / (1.0 + 1.0 / COMPRESSION),
            _ => COMPRESSION,
        }
    }

    /// Whether the method takes a key, or a ratio for [`RATIO`].
    pub fn takes(&self, option: &str) -> bool {
        match option {
            RATIO => self.kind != MethodKind::Dense,
            _ => key(option).is_some_and(|key| key.methods().contains(&self.kind)),
        }
    }

    /// Whether it states the value of a key, or the ratio for [`RATIO`].
    pub fn states(&self, option: &str) -> bool {
        match option {
            RATIO => self.compression.is_some(),
            _ => key(option).is_some_and(|key| key.written(&self.keys).is_some()),
        }
    }

    /// The sizes that are stated, as a list in a sentence, but for the keys `without`.
    pub fn in_words(&self, without: &str) -> String {
        let keys = keys_of(self.kind).filter(|key| key.name() != without);
        let said = keys.filter_map(|key| key.said(&self.keys));
        std::iter::once(self.kind.to_string()).chain(said).collect::<Vec<_>>().join(", ")
    }

    fn read(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.trim().split(':');
        let head = parts.next().unwrap_or_default();
        let (name, ratio) = match head.split_once('@') {
            Some((name, ratio)) => (name, Some(ratio)),
            None => (head, None),
        };
        let mut spec = Self::from(kind(name)?);
        if let Some(ratio) = ratio {
            spec.state(RATIO, ratio)?;
        }
        for part in parts {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not of the form key=value"))?;
            spec.state(key, value)?;
        }
        match spec.clash() {
            Some(clash) => {
                let ratio = || format!("{RATIO}{}", ratio.unwrap_or_default());
                let option = if clash.option == RATIO { ratio() } else { clash.option.to_owned() };
                Err(format!("`{option}` has no effect beside {}", clash.words))
            }
            None => Ok(spec),
        }
    }

    fn state(&mut self, option: &str, value: &str) -> std::result::Result<(), String> {
        if !self.takes(option) {
            let takes: Vec<&str> = keys_of(self.kind).map(|key| key.name()).collect();
            let takes = if takes.is_empty() { "nothing".to_owned() } else { takes.join(", ") };
            return Err(format!("{} takes no `{option}`; it takes {takes}", self.kind));
        }
        if self.states(option) {
            return Err(format!("`{option}` is given twice"));
        }
        match key(option) {
            Some(key) if !key.read(value, &mut self.keys) => {
                return Err(format!("`{value}` is no value of `{option}`: {} is", key.values()));
            }
            Some(_) => {}
            None => {
                let reason =
                    || format!("`{RATIO}{value}` is no compression ratio: a number of at least 1 is");
                self.compression = Some(ratio(value).ok_or_else(reason)?);
            }
        }
        Ok(())
    }
}

/// A method by name; underscores will do.
fn kind(name: &str) -> std::result::Result<MethodKind, String> {
    let written = name.replace('_', "-");
    MethodKind::ALL.into_iter().find(|kind| kind.name() == written).ok_or_else(|| {
        let known = MethodKind::ALL.map(MethodKind::name);
        let near = known.iter().map(|known| (strsim::jaro_winkler(known, &written), known));
        let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
        let meant = near.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"));
        format!("there is no such method{meant}; methods are {}", known.join(", "))
    })
}

impl fmt::Display for MethodSpec {
    /// The notation, keys in the order of [`KEYS`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(ratio) = self.compression {
            write!(f, "{RATIO}{ratio}")?;
        }
        for key in keys_of(self.kind) {
            if let Some(value) = key.written(&self.keys) {
                write!(f, ":{}={value}", key.name())?;
            }
        }
        Ok(())
    }
}

impl FromStr for MethodSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for MethodSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<MethodSpec> for String {
    fn from(spec: MethodSpec) -> Self {
        spec.to_string()
    }
}
