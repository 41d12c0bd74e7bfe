//! One module per subcommand.

pub(crate) mod chat;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod verify;
