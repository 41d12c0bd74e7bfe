//! Which operations ran as kernels, which as their definitions, and why: what is slow says so.

use std::{
    any::type_name,
    fmt,
    sync::{Mutex, PoisonError},
};

use burn::backend::{Backend, DeviceId, DeviceOps};
use serde::Serialize;

#[cfg(any(feature = "cube", feature = "libtorch"))]
use crate::spans::AppendPlan;

/// An operation of [`SparqOps`](super::SparqOps).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// [`SparqOps::append_rows`](super::SparqOps::append_rows)
    AppendRows,
    /// [`SparqOps::append_columns`](super::SparqOps::append_columns)
    AppendColumns,
    /// [`SparqOps::accumulate`](super::SparqOps::accumulate)
    Accumulate,
    /// [`SparqOps::append`](super::SparqOps::append), where a backend has it in one
    Append,
    /// [`SparqOps::append_with_kt`](super::SparqOps::append_with_kt), where a backend has it in one
    AppendWithKt,
    /// [`SparqOps::append_quantized`](super::SparqOps::append_quantized)
    AppendQuantized,
    /// [`SparqOps::prefill`](super::SparqOps::prefill)
    Prefill,
    /// [`SparqOps::decode_dense`](super::SparqOps::decode_dense)
    DecodeDense,
    /// [`SparqOps::decode_sparq`](super::SparqOps::decode_sparq)
    DecodeSparq,
    /// [`SparqOps::decode_sparq_quantized`](super::SparqOps::decode_sparq_quantized)
    DecodeSparqQuantized,
    /// [`SparqOps::linear`](super::SparqOps::linear)
    Linear,
    /// [`SparqOps::linear_quantized`](super::SparqOps::linear_quantized)
    LinearQuantized,
}

impl Op {
    /// Name of the operation, as the function has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppendRows => "append_rows",
            Self::AppendColumns => "append_columns",
            Self::Accumulate => "accumulate",
            Self::Append => "append",
            Self::AppendWithKt => "append_with_kt",
            Self::AppendQuantized => "append_quantized",
            Self::Prefill => "prefill",
            Self::DecodeDense => "decode_dense",
            Self::DecodeSparq => "decode_sparq",
            Self::DecodeSparqQuantized => "decode_sparq_quantized",
            Self::Linear => "linear",
            Self::LinearQuantized => "linear_quantized",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why no kernel ran.
pub type Reason = &'static str;

/// The backend has no kernel for the operation.
pub const NO_KERNEL: Reason = "this backend has no kernel for it";
/// A tensor cannot be borrowed as a slice.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch"))]
pub(super) const NO_SLICE: Reason =
    "a tensor is not one contiguous piece of this process's memory, or of another dtype";
/// A tensor that is to be written cannot be borrowed.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch"))]
pub(super) const SHARED: Reason = "a tensor that is written in place is shared, or not one contiguous piece";
/// A storage dtype without kernels.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "libtorch"))]
pub(super) const STORAGE: Reason = "the kernels store f32, f16 and bf16";
/// Queries and rows of another dtype.
#[cfg(any(feature = "cube", feature = "libtorch"))]
pub(super) const QUERIES: Reason = "the kernels take f32 queries";
/// A device that is too small.
#[cfg(feature = "cube")]
pub(super) const DEVICE: Reason = "the device has too few units, bindings or too little shared memory";
/// A shape that does not fit a kernel.
#[cfg(any(feature = "cube", feature = "libtorch"))]
pub(super) const SHAPE: Reason = "the kernels do not take this head_dim or number of heads";
/// Values that are wider or narrower than keys.
const WIDTHS: Reason = "the kernels take values as wide as keys";
/// A sequence without a token.
#[cfg(feature = "cube")]
pub(super) const EMPTY: Reason = "a sequence has no live position";
/// Memory without an axis of slots.
#[cfg(any(feature = "cube", feature = "libtorch"))]
const PLACES: Reason = "the slots of the cache have not the same room each";
/// The choice by buckets, where it is not written.
#[cfg(any(feature = "cube", feature = "libtorch"))]
pub(super) const BUCKETS: Reason = "the kernels have no choice by buckets";

/// The reason where kernels, which take keys and values of one width, cannot take these widths.
pub(super) fn of_one_width(keys: usize, values: usize) -> Result<(), Reason> {
    (keys == values).then_some(()).ok_or(WIDTHS)
}

/// The reason where kernels that find a sequence by its slot, one of `slots` with the same room each, cannot take
/// a plan.
#[cfg(any(feature = "cube", feature = "libtorch"))]
pub(super) fn in_slots(plan: &AppendPlan, slots: usize) -> Result<(), Reason> {
    plan.is_of_slots(slots).then_some(()).ok_or(PLACES)
}

/// How an operation ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A kernel.
    Kernel,
    /// The definition, made of Burn's operations, for this reason.
    Definition(Reason),
}

/// How often an operation ran in one way on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ran {
    /// The operation.
    pub op: Op,
    /// The device, as its backend calls it.
    pub device: String,
    /// How it ran.
    pub by: By,
    /// How often.
    pub count: u64,
}

struct Entry {
    backend: &'static str,
    device: DeviceId,
    ran: Ran,
}

/// A few dozen entries at most: they are found by looking at each.
static RAN: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// What has run in this process since its start or the last [`reset`], in the order of first use.
pub fn ran() -> Vec<Ran> {
    RAN.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|entry| entry.ran.clone()).collect()
}

/// Begins to count anew.
pub fn reset() {
    RAN.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Counts one run; the first of its kind is a line of the log.
pub(super) fn note<B: Backend>(op: Op, device: &B::Device, by: By) {
    let (backend, id) = (type_name::<B>(), device.id());
    let mut all = RAN.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |entry: &&mut Entry| {
        entry.ran.op == op && entry.ran.by == by && entry.device == id && entry.backend == backend
    };
    if let Some(entry) = all.iter_mut().find(same) {
        entry.ran.count += 1;
        return;
    }
    let device = B::name(device);
    match by {
        By::Kernel => tracing::debug!(%op, device, "runs as a kernel"),
        By::Definition(reason) => tracing::debug!(%op, device, reason, "runs as its definition"),
    }
    all.push(Entry { backend, device: id, ran: Ran { op, device, by, count: 1 } });
}

/// The one place where a kernel gives way to the definition: `$kernel` is a `Result<_, Reason>`; where it
/// is `Ok`, the result is `$value`, else `$definition`.
macro_rules! kernel_or {
    ($op:ident on $device:expr, $kernel:expr, $done:pat => $value:expr, $definition:expr) => {{
        use $crate::ops::ran::{By, Op, note};
        let kernel = $kernel;
        let by = kernel.as_ref().map_or_else(|reason| By::Definition(reason), |_| By::Kernel);
        note::<Self>(Op::$op, &$device, by);
        match kernel {
            Ok($done) => $value,
            Err(_) => $definition,
        }
    }};
}
pub(super) use kernel_or;
