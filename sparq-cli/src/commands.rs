//! One module per subcommand.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod pull;
pub(crate) mod tokenize;
pub(crate) mod tune;
pub(crate) mod verify;
