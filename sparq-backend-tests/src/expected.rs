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
    /// Where it is described: upstream, or a page of this repository where nobody has reported it.
    pub link: &'static str,
}

/// The table. A check that is listed here and passes fails the suite, so that the table stays true.
pub const EXPECTED_FAILURES: &[ExpectedFailure] = &[LONG_ON_LAVAPIPE, LONG_ON_LAVAPIPE_IN_F16];

const LONG_ON_LAVAPIPE: ExpectedFailure = ExpectedFailure {
    backend: "wgpu",
    device: Some("llvmpipe"),
    dtype: Some(DType::F32),
    check: "layout::a_cache_of_65_thousand",
    reason: "the oracle, made of Burn's operations, is wrong there; the kernels agree with the processor",
    link: "docs/backends/wgpu.md#without-a-gpu",
};

const LONG_ON_LAVAPIPE_IN_F16: ExpectedFailure =
    ExpectedFailure { dtype: Some(DType::F16), ..LONG_ON_LAVAPIPE };
