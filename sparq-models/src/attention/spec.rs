//! Methods in one word, for lists and profiles: `sparq:r=16:k=64`, `h2o@8`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sparq_core::{Choice, GroupScores, IndexDtype, Method, SparqConfig};

use super::COMPRESSION;
use crate::error::{Error, Result};

/// Names of the decode methods, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MethodName {
    /// Read the whole cache.
    Dense,
    /// SparQ attention.
    Sparq,
    /// SparQ attention with a mass budget.
    SparqMass,
    /// FlexGen's top-k of the exact weights.
    ExactTopk,
    /// Top-k of the exact weights, renormalised: a bound.
    OracleTopk,
    /// LM-Infinite.
    Local,
    /// H2O.
    H2o,
    /// Quest.
    Quest,
    /// Double Sparsity.
    DoubleSparsity,
}

impl MethodName {
    /// All of them, dense first.
    pub const ALL: [Self; 9] = [
        Self::Dense,
        Self::Sparq,
        Self::SparqMass,
        Self::ExactTopk,
        Self::OracleTopk,
        Self::Local,
        Self::H2o,
        Self::Quest,
        Self::DoubleSparsity,
    ];

    /// The compression ratio where none is stated: [`COMPRESSION`]. Exact top-k, which reads every key and
    /// so moves more than a half, reads the values of as large a part of the positions.
    pub fn default_compression(self) -> f64 {
        match self {
            Self::ExactTopk => 2.0 / (1.0 + 1.0 / COMPRESSION),
            _ => COMPRESSION,
        }
    }

    /// As it is written: `double-sparsity`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparq => "sparq",
            Self::SparqMass => "sparq-mass",
            Self::ExactTopk => "exact-topk",
            Self::OracleTopk => "oracle-topk",
            Self::Local => "local",
            Self::H2o => "h2o",
            Self::Quest => "quest",
            Self::DoubleSparsity => "double-sparsity",
        }
    }

    /// Keys that its notation takes.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Dense => &[],
            Self::Sparq => &["r", "k", "l", "mean", "group", "min-k", "dense-below", "index", "choice"],
            Self::SparqMass => &["r", "k", "l", "mean", "group", "min-k", "dense-below", "index", "p"],
            Self::ExactTopk | Self::OracleTopk => &["k"],
            Self::Local => &["k", "i"],
            Self::H2o => &["k", "l"],
            Self::Quest => &["k", "page"],
            Self::DoubleSparsity => &["r", "k", "l"],
        }
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MethodName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let written = name.replace('_', "-");
        Self::ALL.into_iter().find(|method| method.as_str() == written).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|method| method.as_str()).collect();
            let near = known.iter().map(|known| (strsim::jaro_winkler(known, &written), known));
            let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
            let meant = near.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"));
            Error::MethodSpec {
                text: name.into(),
                reason: format!("there is no such method{meant}; methods are {}", known.join(", ")),
            }
        })
    }
}

/// A decode method as a user writes it: what is `None` is filled in for the model and the length of the
/// run by [`MethodSpec::resolve`].
///
/// `NAME[@RATIO][:KEY=VALUE]…`, such as `dense`, `sparq@8`, `sparq:r=16:k=64:mean=off`, `h2o:k=64`.
///
/// | key | meaning | methods |
/// |---|---|---|
/// | `r` | rank: components that choose positions | sparq, sparq-mass, double-sparsity |
/// | `k` | positions that are read | all but dense |
/// | `l` | most recent positions always read | sparq, sparq-mass, h2o, double-sparsity |
/// | `p` | attention mass to reach | sparq-mass |
/// | `i` | first positions | local |
/// | `page` | positions per page | quest |
/// | `mean` | mean value, `on` or `off` | sparq, sparq-mass |
/// | `group` | `logits` or `softmax` | sparq, sparq-mass |
/// | `min-k` | smallest `k` that a ratio may choose | sparq, sparq-mass |
/// | `dense-below` | shorter contexts are attended densely | sparq, sparq-mass |
/// | `index` | copy of the keys: `cache` (their dtype), `int8` or `int4` | sparq, sparq-mass |
/// | `choice` | of positions: `exact` or `buckets` | sparq |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodSpec {
    /// The method.
    pub name: MethodName,
    /// `@RATIO`: dense bytes over bytes moved, instead of the run's ratio.
    pub compression: Option<f64>,
    /// `r`.
    pub rank: Option<usize>,
    /// `k`.
    pub top_k: Option<usize>,
    /// `l`.
    pub local_window: Option<usize>,
    /// `p`.
    pub mass: Option<f32>,
    /// `i`.
    pub initial: Option<usize>,
    /// `page`.
    pub page: Option<usize>,
    /// `mean`.
    pub mean_value: Option<bool>,
    /// `group`.
    pub group_scores: Option<GroupScores>,
    /// `min-k`.
    pub min_top_k: Option<usize>,
    /// `dense-below`.
    pub dense_below: Option<usize>,
    /// `index`.
    pub index: Option<IndexDtype>,
    /// `choice`.
    pub choice: Option<Choice>,
}

impl From<MethodName> for MethodSpec {
    /// The method with every size left open.
    fn from(name: MethodName) -> Self {
        Self {
            name,
            compression: None,
            rank: None,
            top_k: None,
            local_window: None,
            mass: None,
            initial: None,
            page: None,
            mean_value: None,
            group_scores: None,
            min_top_k: None,
            dense_below: None,
            index: None,
            choice: None,
        }
    }
}

impl From<&Method> for MethodSpec {
    /// The notation of a method, all sizes stated. Calibrated channels have no place in it.
    fn from(method: &Method) -> Self {
        let sparq = |name, config: &SparqConfig| Self {
            rank: Some(config.rank),
            top_k: Some(config.top_k),
            local_window: Some(config.local_window),
            mean_value: Some(config.mean_value),
            group_scores: Some(config.group_scores),
            dense_below: Some(config.dense_below).filter(|&len| len > 0),
            index: Some(config.index).filter(|&index| index != IndexDtype::Cache),
            choice: Some(config.choice).filter(|&choice| choice != Choice::Exact),
            ..Self::from(name)
        };
        let sized = |name, top_k| Self { top_k: Some(top_k), ..Self::from(name) };
        match method {
            Method::Dense => MethodName::Dense.into(),
            Method::Sparq(config) => sparq(MethodName::Sparq, config),
            Method::SparqMass(config) => {
                Self { mass: Some(config.mass), ..sparq(MethodName::SparqMass, &config.sparq) }
            }
            Method::ExactTopk(config) => sized(MethodName::ExactTopk, config.top_k),
            Method::OracleTopk(config) => sized(MethodName::OracleTopk, config.top_k),
            Method::Local(config) => {
                Self { initial: Some(config.initial), ..sized(MethodName::Local, config.top_k) }
            }
            Method::H2o(config) => {
                Self { local_window: Some(config.local_window), ..sized(MethodName::H2o, config.top_k) }
            }
            Method::Quest(config) => {
                Self { page: Some(config.page), ..sized(MethodName::Quest, config.top_k) }
            }
            Method::DoubleSparsity(config) => Self {
                rank: Some(config.rank),
                local_window: Some(config.local_window),
                ..sized(MethodName::DoubleSparsity, config.top_k)
            },
        }
    }
}

impl MethodSpec {
    /// Reads the notation.
    ///
    /// # Errors
    /// [`Error::MethodSpec`] that says what is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |reason: String| Error::MethodSpec { text: text.into(), reason };
        let mut parts = text.trim().split(':');
        let head = parts.next().unwrap_or_default();
        let (name, ratio) = match head.split_once('@') {
            Some((name, ratio)) => (name, Some(ratio)),
            None => (head, None),
        };
        let name: MethodName = name.parse().map_err(|error| match error {
            Error::MethodSpec { reason, .. } => bad(reason),
            other => other,
        })?;
        let mut spec = Self::from(name);
        if let Some(ratio) = ratio {
            let number = ratio.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio >= 1.0);
            let reason = || bad(format!("`@{ratio}` is no compression ratio: a number of at least 1 is"));
            spec.compression = Some(number.ok_or_else(reason)?);
        }
        let mut seen = vec![];
        for part in parts {
            let (key, value) =
                part.split_once('=').ok_or_else(|| bad(format!("`{part}` is not of the form key=value")))?;
            if !name.keys().contains(&key) {
                let takes = match name.keys() {
                    [] => "nothing".to_owned(),
                    keys => keys.join(", "),
                };
                return Err(bad(format!("{name} takes no `{key}`; it takes {takes}")));
            }
            if seen.contains(&key) {
                return Err(bad(format!("`{key}` is given twice")));
            }
            seen.push(key);
            spec.set(key, value)
                .ok_or_else(|| bad(format!("`{value}` is no value of `{key}`: {}", range(key))))?;
        }
        if let Some(ratio) = ratio.filter(|_| spec.is_sized()) {
            return Err(bad(format!("`@{ratio}` has no effect beside the sizes that are stated")));
        }
        if spec.min_top_k.is_some() && spec.top_k.is_some() {
            return Err(bad("`min-k` has no effect beside `k`".to_owned()));
        }
        Ok(spec)
    }

    /// Whether it states all that a ratio would choose.
    pub fn is_sized(&self) -> bool {
        self.top_k.is_some() && (self.rank.is_some() || !self.name.keys().contains(&"r"))
    }

    /// Whether it states the value of a key.
    pub fn states(&self, key: &str) -> bool {
        let text = self.to_string();
        text.split(':').skip(1).any(|part| part.split_once('=').is_some_and(|(name, _)| name == key))
    }

    /// Reads several, separated by commas.
    ///
    /// # Errors
    /// As [`MethodSpec::parse`]; [`Error::MethodSpec`] for an empty list.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(Self::parse).collect()
    }

    /// Sets a key that the method takes; `None` for a value out of its range.
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let count = || value.parse::<usize>().ok();
        let positive = || count().filter(|&count| count > 0);
        match key {
            "r" => self.rank = Some(positive()?),
            "k" => self.top_k = Some(positive()?),
            "l" => self.local_window = Some(count()?),
            "i" => self.initial = Some(count()?),
            "page" => self.page = Some(positive()?),
            "min-k" => self.min_top_k = Some(positive()?),
            "dense-below" => self.dense_below = Some(count()?),
            "p" => self.mass = Some(value.parse().ok().filter(|mass: &f32| *mass > 0.0 && *mass <= 1.0)?),
            "index" => {
                self.index = Some(match value {
                    "cache" => IndexDtype::Cache,
                    "int8" => IndexDtype::Int8,
                    "int4" => IndexDtype::Int4,
                    _ => return None,
                });
            }
            "choice" => {
                self.choice = Some(match value {
                    "exact" => Choice::Exact,
                    "buckets" => Choice::Buckets,
                    _ => return None,
                });
            }
            "mean" => {
                self.mean_value = Some(match value {
                    "on" => true,
                    "off" => false,
                    _ => return None,
                });
            }
            "group" => {
                self.group_scores = Some(match value {
                    "logits" => GroupScores::ScaledLogits,
                    "softmax" => GroupScores::Softmax,
                    _ => return None,
                });
            }
            _ => return None,
        }
        Some(())
    }
}

/// What a key's values are.
fn range(key: &str) -> &'static str {
    match key {
        "p" => "a number above 0 and at most 1 is",
        "mean" => "`on` and `off` are",
        "group" => "`logits` and `softmax` are",
        "index" => "`cache`, `int8` and `int4` are",
        "choice" => "`exact` and `buckets` are",
        "l" | "i" | "dense-below" => "a whole number is",
        _ => "a whole number of at least 1 is",
    }
}

impl fmt::Display for MethodSpec {
    /// The notation, keys in the order of the method's list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(ratio) = self.compression {
            write!(f, "@{ratio}")?;
        }
        let count = |value: Option<usize>| value.map(|value| value.to_string());
        for key in self.name.keys() {
            let value = match *key {
                "r" => count(self.rank),
                "k" => count(self.top_k),
                "l" => count(self.local_window),
                "i" => count(self.initial),
                "page" => count(self.page),
                "min-k" => count(self.min_top_k),
                "dense-below" => count(self.dense_below),
                "p" => self.mass.map(|mass| mass.to_string()),
                "mean" => self.mean_value.map(|on| if on { "on" } else { "off" }.to_owned()),
                "index" => self.index.map(|index| match index {
                    IndexDtype::Cache => "cache".to_owned(),
                    IndexDtype::Int8 => "int8".to_owned(),
                    IndexDtype::Int4 => "int4".to_owned(),
                }),
                "choice" => self.choice.map(|choice| match choice {
                    Choice::Exact => "exact".to_owned(),
                    Choice::Buckets => "buckets".to_owned(),
                }),
                "group" => self.group_scores.map(|group| match group {
                    GroupScores::ScaledLogits => "logits".to_owned(),
                    GroupScores::Softmax => "softmax".to_owned(),
                }),
                _ => None,
            };
            if let Some(value) = value {
                write!(f, ":{key}={value}")?;
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
