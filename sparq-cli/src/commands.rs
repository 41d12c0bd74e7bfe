//! One module per subcommand.

pub(crate) mod generate;
pub(crate) mod verify;
