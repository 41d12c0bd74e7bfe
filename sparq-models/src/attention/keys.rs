//! The keys of the notation: a row for each. Reading, writing, `--help` and the tables of `docs/methods.md`
//! follow from it.

use sparq_core::{GroupScores, KtFormat, Method, MethodKind, SparqConfig, TopkRule};

use super::value::{DenseBelow, LENGTH, PART, POSITIVE, Range, Value, WHOLE};
use MethodKind::{DoubleSparsity, ExactTopk, H2o, Local, OracleTopk, Quest, Sparq, SparqMass};

/// What a notation states; a key that is `None` is filled in. [`KEYS`] says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)] // Each has its row below.
pub struct SpecKeys {
    pub rank: Option<usize>,
    pub top_k: Option<usize>,
    pub local_window: Option<usize>,
    pub mean_value: Option<bool>,
    pub group_scores: Option<GroupScores>,
    pub min_top_k: Option<usize>,
    pub dense_below: Option<DenseBelow>,
    pub kt_format: Option<KtFormat>,
    pub topk: Option<TopkRule>,
    pub mass: Option<f32>,
    pub initial: Option<usize>,
    pub page: Option<usize>,
}

/// All keys, in the order in which they are written.
pub static KEYS: [&dyn SpecKey; 12] = [
    &Row {
        name: "r",
        phrase: "rank r =",
        doc: "rank: components that choose positions",
        methods: &[Sparq, SparqMass, DoubleSparsity],
        range: POSITIVE,
        stated: |keys| &mut keys.rank,
        held: |method, value| match method {
            Method::DoubleSparsity(config) => exchange(&mut config.rank, value),
            _ => exchange(&mut sparq(method)?.rank, value),
        },
        usual: None,
    },
    &Row {
        name: "k",
        phrase: "top-k =",
        doc: "positions that are read, the current one included",
        methods: &[Sparq, SparqMass, ExactTopk, OracleTopk, Local, H2o, Quest, DoubleSparsity],
        range: POSITIVE,
        stated: |keys| &mut keys.top_k,
        held: |method, value| match method {
            Method::ExactTopk(config) | Method::OracleTopk(config) => exchange(&mut config.top_k, value),
            Method::Local(config) => exchange(&mut config.top_k, value),
            Method::H2o(config) => exchange(&mut config.top_k, value),
            Method::Quest(config) => exchange(&mut config.top_k, value),
            Method::DoubleSparsity(config) => exchange(&mut config.top_k, value),
            _ => exchange(&mut sparq(method)?.top_k, value),
        },
        usual: None,
    },
    &Row {
        name: "l",
        phrase: "local window =",
        doc: "most recent positions that are always read; a quarter of k by default, 1 for `double-sparsity`",
        methods: &[Sparq, SparqMass, H2o, DoubleSparsity],
        range: WHOLE,
        stated: |keys| &mut keys.local_window,
        held: |method, value| match method {
            Method::H2o(config) => exchange(&mut config.local_window, value),
            Method::DoubleSparsity(config) => exchange(&mut config.local_window, value),
            _ => exchange(&mut sparq(method)?.local_window, value),
        },
        usual: None,
    },
    &Row {
        name: "mean",
        phrase: "mean value",
        doc: "the mean value stands in for positions that are not read; off by default for grouped queries",
        methods: &[Sparq, SparqMass],
        range: Range::WORDS,
        stated: |keys| &mut keys.mean_value,
        held: |method, value| exchange(&mut sparq(method)?.mean_value, value),
        usual: None,
    },
    &Row {
        name: "group",
        phrase: "group scores",
        doc: "what a group of heads sums to choose together; logits by default",
        methods: &[Sparq, SparqMass],
        range: Range::WORDS,
        stated: |keys| &mut keys.group_scores,
        held: |method, value| exchange(&mut sparq(method)?.group_scores, value),
        usual: Some(GroupScores::ScaledLogits),
    },
    &Row {
        name: "min-k",
        phrase: "smallest k",
        doc: "smallest k that a ratio may choose",
        methods: &[Sparq, SparqMass],
        range: POSITIVE,
        stated: |keys| &mut keys.min_top_k,
        held: |_, _| None,
        usual: None,
    },
    &Row {
        name: "dense-below",
        phrase: "dense below",
        doc: "contexts shorter than this are attended densely; by default it is measured for `sparq` where a \
              text is written, and 0 elsewhere",
        methods: &[Sparq, SparqMass],
        range: LENGTH,
        stated: |keys| &mut keys.dense_below,
        held: |method, value| {
            let tokens = match value {
                Some(DenseBelow::Tokens(tokens)) => Some(tokens),
                Some(DenseBelow::Auto) | None => None,
            };
            exchange(&mut sparq(method)?.dense_below, tokens).map(DenseBelow::Tokens)
        },
        usual: Some(DenseBelow::Tokens(0)),
    },
    &Row {
        name: "kt",
        phrase: "transposed keys in",
        doc: "how the copy of the keys is stored: in the dtype of the cache, or in few bits; cache by default",
        methods: &[Sparq, SparqMass],
        range: Range::WORDS,
        stated: |keys| &mut keys.kt_format,
        held: |method, value| exchange(&mut sparq(method)?.kt_format, value),
        usual: Some(KtFormat::Cache),
    },
    &Row {
        name: "topk",
        phrase: "chosen from",
        doc: "the best positions, or the best two of each interleaved bucket, which takes less time and misses \
              some; exact by default",
        methods: &[Sparq],
        range: Range::WORDS,
        stated: |keys| &mut keys.topk,
        held: |method, value| exchange(&mut sparq(method)?.topk_rule, value),
        usual: Some(TopkRule::Exact),
    },
    &Row {
        name: "p",
        phrase: "mass",
        doc: "attention mass to reach; 0.9 by default",
        methods: &[SparqMass],
        range: PART,
        stated: |keys| &mut keys.mass,
        held: |method, value| match method {
            Method::SparqMass(config) => exchange(&mut config.mass, value),
            _ => None,
        },
        usual: None,
    },
    &Row {
        name: "i",
        phrase: "first positions",
        doc: "first positions; 16 by default",
        methods: &[Local],
        range: WHOLE,
        stated: |keys| &mut keys.initial,
        held: |method, value| match method {
            Method::Local(config) => exchange(&mut config.initial, value),
            _ => None,
        },
        usual: None,
    },
    &Row {
        name: "page",
        phrase: "page",
        doc: "positions per page; 16 by default",
        methods: &[Quest],
        range: POSITIVE,
        stated: |keys| &mut keys.page,
        held: |method, value| match method {
            Method::Quest(config) => exchange(&mut config.page, value),
            _ => None,
        },
        usual: None,
    },
];

/// Names that keys had before, and the names that they have: read for one release more, and not written.
const FORMER: [(&str, &str); 2] = [("index", "kt"), ("choice", "topk")];

/// A key by name.
pub fn key(name: &str) -> Option<&'static dyn SpecKey> {
    let name = FORMER.iter().find(|(former, _)| *former == name).map_or(name, |(_, name)| name);
    KEYS.into_iter().find(|key| key.name() == name)
}

/// SparQ's part of a method.
fn sparq(method: &mut Method) -> Option<&mut SparqConfig> {
    match method {
        Method::Sparq(config) => Some(config),
        Method::SparqMass(config) => Some(&mut config.sparq),
        _ => None,
    }
}

/// Sets a value where one is given, and says which holds.
fn exchange<T: Copy>(place: &mut T, value: Option<T>) -> Option<T> {
    *place = value.unwrap_or(*place);
    Some(*place)
}

/// A key of the notation.
pub trait SpecKey: Sync {
    /// As it is written: `min-k`.
    fn name(&self) -> &'static str;

    /// What it means, in Markdown, and its default.
    fn doc(&self) -> &'static str;

    /// The methods that take it.
    fn methods(&self) -> &'static [MethodKind];

    /// What its values are, in Markdown.
    fn values(&self) -> String;

    /// The words that it takes; none where values are numbers.
    fn words(&self) -> Vec<&'static str>;

    /// States a value; `false` for one out of its range.
    fn read(&self, text: &str, keys: &mut SpecKeys) -> bool;

    /// The value that is stated.
    fn written(&self, keys: &SpecKeys) -> Option<String>;

    /// The value that is stated, as part of a sentence: `local window = 8`.
    fn said(&self, keys: &SpecKeys) -> Option<String>;

    /// Gives the stated value to a method that has it.
    fn apply(&self, keys: &SpecKeys, method: &mut Method);

    /// States the value of a method, unless it goes without saying.
    fn state(&self, method: &Method, keys: &mut SpecKeys);
}

struct Row<T: 'static> {
    name: &'static str,
    doc: &'static str,
    /// The name in a sentence.
    phrase: &'static str,
    methods: &'static [MethodKind],
    range: Range<T>,
    /// Its place in the notation.
    stated: fn(&mut SpecKeys) -> &mut Option<T>,
    /// Sets it in a method where a value is given; the value that the method then has.
    held: fn(&mut Method, Option<T>) -> Option<T>,
    /// The value that goes without saying.
    usual: Option<T>,
}

impl<T: Value> SpecKey for Row<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn methods(&self) -> &'static [MethodKind] {
        self.methods
    }

    fn values(&self) -> String {
        match self.words()[..] {
            [] => self.range.text.to_owned(),
            [ref others @ .., last] => {
                let others: Vec<String> = others.iter().map(|word| format!("`{word}`")).collect();
                format!("{} or `{last}`", others.join(", "))
            }
        }
    }

    fn words(&self) -> Vec<&'static str> {
        T::WORDS.iter().map(|(word, _)| *word).collect()
    }

    fn read(&self, text: &str, keys: &mut SpecKeys) -> bool {
        let value = T::read(text).filter(|value| (self.range.holds)(*value));
        *(self.stated)(keys) = value;
        value.is_some()
    }

    fn written(&self, keys: &SpecKeys) -> Option<String> {
        (self.stated)(&mut { *keys }).map(T::written)
    }

    fn said(&self, keys: &SpecKeys) -> Option<String> {
        Some(format!("{} {}", self.phrase, self.written(keys)?))
    }

    fn apply(&self, keys: &SpecKeys, method: &mut Method) {
        let value = *(self.stated)(&mut { *keys });
        (self.held)(method, value);
    }

    fn state(&self, method: &Method, keys: &mut SpecKeys) {
        let value = (self.held)(&mut method.clone(), None);
        *(self.stated)(keys) = value.filter(|value| self.usual != Some(*value));
    }
}
