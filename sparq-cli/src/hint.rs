//! From an error to the next step.

/// What the user can do about an error, where one of its causes knows.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let of_models = cause.downcast_ref::<sparq_models::Error>().and_then(|error| error.hint());
        of_models.or_else(|| cause.downcast_ref::<sparq_core::Error>().and_then(|error| error.hint()))
    })
}
