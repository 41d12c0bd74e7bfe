//! How far results may lie apart, per storage dtype, in one table.

use burn::tensor::DType;

/// Absolute tolerances for values of order one.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Storage dtype of cache and weights; arithmetic is f32 throughout.
    pub dtype: DType,
    /// Attention outputs against the reference vectors, which are f32: includes the rounding of the
    /// stored keys and values. Kept positions are compared in f32 only.
    pub reference: f32,
    /// An override against the oracle on the same stored values: order of summation, and for the
    /// half types one rounding of an output where a backend multiplies in them.
    pub oracle: f32,
    /// Logits of a whole model against reference logits.
    pub logits: f32,
}

/// The table.
pub const TOLERANCES: [Tolerance; 3] = [
    Tolerance { dtype: DType::F32, reference: 1e-4, oracle: 2e-5, logits: 1e-3 },
    Tolerance { dtype: DType::F16, reference: 4e-3, oracle: 2e-3, logits: 5e-2 },
    Tolerance { dtype: DType::BF16, reference: 3e-2, oracle: 1.6e-2, logits: 4e-1 },
];

/// Logits of a reference model with linear layers in eight bits against its reference logits: what the
/// rounding of weights costs models of a few layers with random weights.
pub const INT8_WEIGHTS_LOGITS: f32 = 2e-1;

impl Tolerance {
    /// The dtype's name in reports: `f32`, `f16` or `bf16`.
    pub fn name(&self) -> String {
        format!("{:?}", self.dtype).to_lowercase()
    }
}

/// The row for f32.
pub fn f32() -> Tolerance {
    TOLERANCES[0]
}

/// Panics where two slices differ in length, hold a number that is not finite, or lie further apart
/// than `tolerance` somewhere.
#[track_caller]
pub fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        // Written so that a NaN fails.
        assert!((a - e).abs() <= tolerance, "{what}: element {i} is {a}, expected {e} ± {tolerance}");
    }
}
