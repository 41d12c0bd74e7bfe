//! Failures that are known and not ours, in one table.

use burn::tensor::DType;

/// A check that is known to fail on a backend.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedFailure {
    /// Name of the backend, as [`sparq_core::device::parse`] takes it.
    pub backend: &'static str,
    /// A part of the device's name or runtime, where only some of its devices fail: `llvmpipe`, `wgpu<spirv>`.
    pub device: Option<&'static str>,
    /// The dtype, for checks that run in each.
    pub dtype: Option<DType>,
    /// The check, `module::function`.
    pub check: &'static str,
    /// What goes wrong.
    pub reason: &'static str,
    /// Where it is described upstream.
    pub link: &'static str,
}

/// The table. A check that is listed here and passes fails the suite, so that the table stays true.
pub const EXPECTED_FAILURES: &[ExpectedFailure] = &[];
