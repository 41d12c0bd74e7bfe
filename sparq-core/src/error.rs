//! What can go wrong in the attention layer.

use burn::tensor::DType;

/// An error of the attention layer: what is wrong, where, and the values that show it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration value is outside of its range.
    #[error("{field} = {value} is out of range: {reason}")]
    InvalidConfig {
        /// Name of the field, as in the configuration struct.
        field: &'static str,
        /// The offending value.
        value: String,
        /// The range, with the limits that apply here.
        reason: String,
    },
    /// A tensor does not have the shape that its place demands.
    #[error("{tensor} has shape {found:?}, expected {expected:?} {axes}")]
    Shape {
        /// Name of the tensor.
        tensor: &'static str,
        /// The names of the axes.
        axes: &'static str,
        /// The shape that was passed.
        found: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// Queries, keys or values of new tokens in another dtype than the operations take.
    #[error("queries are {found:?}, the attention operations take F32")]
    QueryDtype {
        /// The dtype that was passed.
        found: DType,
    },
    /// The cache would grow past its maximum.
    #[error("the KV cache holds at most {max} tokens per sequence, {needed} are needed")]
    CacheFull {
        /// Tokens of the longest sequence after the append.
        needed: usize,
        /// The maximum that the cache was created with.
        max: usize,
    },
    /// A method was asked to go back to fewer tokens, and what it remembers cannot.
    #[error(
        "the method `{method}` cannot go back to fewer tokens: it remembers what it saw of those that go"
    )]
    CannotGoBack {
        /// Name of the method.
        method: &'static str,
    },
    /// A method that gives no copy of itself.
    #[error("the method `{method}` cannot be copied")]
    CannotCopy {
        /// Name of the method.
        method: &'static str,
    },
    /// A sequence with fewer tokens than it is asked for.
    #[error("slot {slot} holds {held} tokens, and {asked} are asked for")]
    Tokens {
        /// The sequence's slot.
        slot: usize,
        /// Tokens that it holds.
        held: usize,
        /// Tokens that are asked for.
        asked: usize,
    },
    /// A plan that was made before the sequence went on, or back.
    #[error("the plan appends to slot {slot} at position {at}, and the sequence has {held} tokens")]
    StalePlan {
        /// The sequence's slot.
        slot: usize,
        /// Where the plan appends.
        at: usize,
        /// Tokens that the sequence has.
        held: usize,
    },
    /// A slot that a cache does not have.
    #[error("there is no slot {slot}: the cache has {slots}, counted from 0")]
    Slot {
        /// The slot that was asked for.
        slot: usize,
        /// Slots of the cache.
        slots: usize,
    },
    /// A decode step asks for something that the cache does not keep.
    #[error("the cache does not hold {missing}")]
    MissingInCache {
        /// The missing part.
        missing: &'static str,
    },
    /// A device did not hand out values.
    #[error("a result could not be read back from the device: {message}")]
    ReadBack {
        /// What the backend reports.
        message: String,
    },
    /// A device has no integers of 32 bits, which transposed keys in few bits are packed into.
    #[error("device `{device}` cannot store keys in few bits: it has no integers of 32 bits")]
    UnsupportedKt {
        /// Name of the device, as [`crate::device::parse`] takes it.
        device: String,
    },
    /// A device cannot compute in a dtype.
    #[error("device `{device}` does not support {dtype:?}")]
    UnsupportedDtype {
        /// Name of the device, as [`crate::device::parse`] takes it.
        device: String,
        /// The dtype that was asked for.
        dtype: DType,
    },
    /// A tensor is larger than what the device holds in one piece.
    #[error(
        "{tensor} {shape:?} takes {bytes} bytes, and this device holds at most {limit} bytes in one tensor"
    )]
    TooLarge {
        /// Name of the tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its size.
        bytes: u64,
        /// The largest size that the device takes.
        limit: u64,
    },
    /// A device name that stands for nothing on this machine and in this build.
    #[error("device `{name}` is {problem}")]
    Device {
        /// The name that was given.
        name: String,
        /// Why it cannot be used.
        problem: String,
        /// What can be used instead, or what is missing.
        hint: String,
    },
}

impl Error {
    /// The next step that a user can take, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::CacheFull { .. } => {
                Some("shorten the prompt, ask for fewer tokens, or allow a longer context".into())
            }
            Self::QueryDtype { .. } => Some("cast them: `q.cast(DType::F32)`".into()),
            Self::CannotCopy { .. } => Some("write `DecodeMethod::fork` for it".into()),
            Self::StalePlan { .. } => Some("make the plan anew, behind each step".into()),
            Self::CannotGoBack { .. } => Some("go back to a mark, or begin with an empty cache".into()),
            Self::UnsupportedKt { .. } => {
                Some("store them as the cache stores keys, or use another device".into())
            }
            Self::UnsupportedDtype { .. } => Some("use f32, or another device".into()),
            Self::Device { hint, .. } => Some(hint.clone()),
            Self::TooLarge { .. } => Some(
                "store it in fewer bytes, shorten what grows with the text, or use another device".into(),
            ),
            _ => None,
        }
    }
}

/// Result with the attention layer's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
