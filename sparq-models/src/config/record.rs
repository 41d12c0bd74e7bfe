//! Which fields are read, for the tests that compare them with the lists of [`super::Keys`].

use std::{cell::RefCell, collections::BTreeSet};

thread_local! {
    static READ: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Notes that a field was read.
pub(super) fn note(prefix: &str, name: &str) {
    if prefix.is_empty() {
        READ.with_borrow_mut(|read| read.insert(name.to_owned()));
    }
}

/// Names of the top-level fields that `reading` reads.
pub(crate) fn names_read(reading: impl FnOnce()) -> BTreeSet<String> {
    READ.take();
    reading();
    READ.take()
}
