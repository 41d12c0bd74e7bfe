//! What cannot be combined in one notation.

use super::MethodSpec;

/// How the ratio is called where keys are named.
pub const RATIO: &str = "@";

/// An option that has no effect beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clash {
    /// The option: a key, or [`RATIO`].
    pub option: &'static str,
    /// Those that leave it without effect together; of them, a method has those that it takes.
    pub beside: &'static [&'static str],
    /// The same in words.
    pub words: &'static str,
}

/// All that cannot be combined. Everything else that a method takes can.
pub const CLASHES: [Clash; 2] = [
    Clash { option: RATIO, beside: &["r", "k"], words: "all sizes" },
    Clash { option: "min-k", beside: &["k"], words: "k" },
];

impl Clash {
    /// Those of [`Clash::beside`] that a method of this notation takes.
    pub fn beside(&self, spec: &MethodSpec) -> impl Iterator<Item = &'static str> {
        self.beside.iter().copied().filter(|key| spec.takes(key))
    }

    fn holds(&self, spec: &MethodSpec) -> bool {
        spec.states(self.option) && self.beside(spec).all(|key| spec.states(key))
    }
}

impl MethodSpec {
    /// What it states in vain.
    pub fn clash(&self) -> Option<&'static Clash> {
        CLASHES.iter().find(|clash| clash.holds(self))
    }
}
