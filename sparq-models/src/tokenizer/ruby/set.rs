//! Sets of characters.

use super::Flags;

/// What `\w` is, in a class.
pub(super) const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";

/// What `\w` is besides where it stands alone.
pub(super) const WORD_ALONE: &str = "²³¹¼½¾";

/// A set of characters: `\p{L}`, `\w`, `[:alpha:]`.
pub(super) struct Set {
    /// What stands for it in a class.
    pub(super) items: String,
    /// Whether it is all that `items` is not.
    pub(super) negated: bool,
    /// Whether it has every character's other case.
    pub(super) is_caseless: bool,
}

impl Set {
    pub(super) fn new(items: impl Into<String>, negated: bool) -> Self {
        Self { items: items.into(), negated, is_caseless: false }
    }

    pub(super) fn caseless(self) -> Self {
        Self { is_caseless: true, ..self }
    }

    /// The set as an item of a class.
    pub(super) fn in_class(&self) -> String {
        if self.negated { format!("[^{}]", self.items) } else { self.items.clone() }
    }

    /// The set alone.
    pub(super) fn alone(&self, flags: Flags) -> String {
        let Self { items, negated, .. } = self;
        let is_one = items.starts_with('\\') && !items[1..].contains(['\\', '[']);
        let text = match negated {
            true => format!("[^{items}]"),
            false if is_one => items.clone(),
            false => format!("[{items}]"),
        };
        // Case is ignored in classes in brackets alone.
        if flags.ignore_case && !self.is_caseless { format!("(?-i:{text})") } else { text }
    }
}
