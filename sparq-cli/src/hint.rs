//! From an error to the next step.

use std::{error::Error, fmt};

use burn::tensor::DType;

/// An error of this program itself that knows the next step.
#[derive(Debug)]
pub(crate) struct Advice {
    message: String,
    hint: String,
}

impl Advice {
    /// What is wrong, and what to do about it.
    pub(crate) fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: hint.into() }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Advice {}

/// What the user can do about an error, where one of its causes knows. The libraries say it in their own terms;
/// how this program is told to do it stands behind, in parentheses.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let (hint, means) = if let Some(advice) = cause.downcast_ref::<Advice>() {
            (Some(advice.hint.clone()), None)
        } else if let Some(error) = cause.downcast_ref::<sparq_models::Error>() {
            (error.hint(), means(error))
        } else if let Some(error) = cause.downcast_ref::<sparq_core::Error>() {
            (error.hint(), means_of_core(error))
        } else {
            (None, None)
        };
        match (hint, means) {
            (Some(hint), Some(means)) => Some(format!("{hint} ({means})")),
            (hint, means) => hint.or_else(|| means.map(str::to_owned)),
        }
    })
}

/// The flags and commands that a hint of the models is carried out with.
fn means(error: &sparq_models::Error) -> Option<&'static str> {
    use sparq_models::{Error, checkpoint::FileError, core::Error as Core, eval::EvalError};
    Some(match error {
        Error::Core(error) => return means_of_core(error),
        Error::InFile { source, .. } => return means(source),
        Error::ProfileLayers { .. } => "`sparq tune`",
        Error::UnsupportedDtype { .. } => "--dtype",
        Error::Overflow(overflow) if overflow.dtype == DType::F16 => "--dtype f32",
        Error::NoTokenLeft { .. } => "--ignore-generation-config",
        Error::PromptTooLong { .. } => "--max-seq-len",
        Error::Template { .. } => "--no-chat-template, --chat-template FILE",
        Error::File(FileError::Quantised { .. }) => "--weights int8",
        Error::Weights(report) => match report.too_large.first() {
            _ if report.unsupported.iter().any(|tensor| tensor.device.is_some()) => "--dtype f32",
            Some(error @ Core::TooLarge { .. }) => return means_of_core(error),
            _ if report.non_finite.iter().any(|tensor| tensor.is_overflow_likely()) => "--dtype",
            _ => return None,
        },
        #[cfg(feature = "hub")]
        Error::Hub(sparq_models::hub::HubError::Connection { .. }) => "--offline",
        Error::Eval(EvalError::UnknownTask { .. }) => "`sparq eval list` shows all tasks",
        Error::Eval(EvalError::Room { .. }) => "--lengths",
        Error::Eval(EvalError::OtherResults { .. }) => "-o, --force",
        _ => return None,
    })
}

/// The same for the attention layer.
fn means_of_core(error: &sparq_core::Error) -> Option<&'static str> {
    use sparq_core::Error;
    Some(match error {
        Error::CacheFull { .. } => "--max-seq-len",
        Error::UnsupportedKt { .. } => "without `kt=` in --attention; --device",
        Error::UnsupportedDtype { .. } => "--dtype, --device",
        Error::TooLarge { .. } => "--dtype f16, --max-seq-len, --device; `sparq doctor` lists limits",
        Error::Device { .. } => "`sparq doctor` lists devices",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_names_the_flags_of_what_the_libraries_advise() {
        let core = sparq_core::Error::CacheFull { needed: 9, max: 8 };
        let of_core = hint(&core.clone().into()).unwrap();
        assert_eq!(of_core, format!("{} (--max-seq-len)", core.hint().unwrap()));
        assert_eq!(hint(&sparq_models::Error::Core(core).into()).unwrap(), of_core);
        let advice = hint(&Advice::new("wrong".to_owned(), "right").into());
        assert_eq!(advice.as_deref(), Some("right"));
        assert_eq!(hint(&anyhow::anyhow!("no idea")), None);
    }

    #[test]
    fn the_libraries_name_no_flags() {
        let errors = [
            sparq_core::Error::CacheFull { needed: 9, max: 8 },
            sparq_core::Error::UnsupportedKt { device: "libtorch".to_owned() },
            sparq_core::Error::UnsupportedDtype { device: "ndarray".to_owned(), dtype: DType::F16 },
        ];
        for error in errors {
            assert!(!error.hint().unwrap().contains("--"), "{error}");
            assert!(hint(&error.into()).unwrap().contains("--"));
        }
    }
}
