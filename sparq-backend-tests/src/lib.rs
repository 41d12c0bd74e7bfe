//! Conformance suite of SparQ-rs: what every backend must compute, as public functions over a
//! [`Device`](burn::tensor::Device).
//!
//! A function is a check: it returns where the backend does what it must and panics where it does
//! not. [`run_all`] runs them all and reports; [`conformance!`] makes a test binary of them:
//!
//! ```text
//! sparq_backend_tests::conformance!("flex");
//! ```
//!
//! - [`reference`](mod@reference): the vectors of the authors' published code, through the oracle and
//!   through the operations that the product runs;
//! - [`overrides`]: a backend's own operations against the oracle, in every dtype that it supports;
//! - [`quantized`]: the same for transposed keys in few bits, and what they cost in quality;
//! - [`properties`]: what must hold whatever the numbers are;
//! - [`windows`]: the same for sliding windows and soft caps;
//! - [`methods`]: the other decode methods;
//! - [`layout`]: views of other tensors, caches that grow, long ones and those that are too large;
//! - [`rollback`]: going back in a cache;
//! - [`rows`]: what a row of a step gives beside others, of every family and method;
//! - [`slots`]: sequences that come, go on, are copied and leave;
//! - [`some_slots`]: plans over some of them, against the definitions;
//! - [`streams`]: work that runs twice, or beside other work;
//! - [`kernels`]: which operations run as kernels, and which do not and why;
//! - [`memory`]: what a backend does with its memory;
//! - [`model`]: whole models against reference logits;
//! - [`families`]: every model family against the logits and greedy tokens of transformers.

pub mod buckets;
pub mod expected;
pub mod families;
pub mod harness;
pub mod kernels;
pub mod layout;
pub mod memory;
pub mod methods;
pub mod model;
pub mod overflow;
pub mod overrides;
pub mod problem;
pub mod properties;
pub mod quantized;
pub mod reference;
pub mod report;
pub mod rollback;
pub mod rows;
pub mod slots;
pub mod some_slots;
pub mod streams;
pub mod suite;
pub mod tolerance;
pub mod windows;

pub use suite::run_all;

/// Makes the `main` of a test binary (`harness = false`) that runs the suite on a device: the one of
/// a name (see [`sparq_core::device::parse`]), or the one that an expression of type
/// `Result<Device, String>` gives.
#[macro_export]
macro_rules! conformance {
    ($name:literal) => {
        $crate::conformance!($name, {
            let with_hint = |error: sparq_core::Error| match error.hint() {
                Some(hint) => format!("{error}: {hint}"),
                None => error.to_string(),
            };
            sparq_core::device::parse($name).map_err(with_hint)
        });
    };
    ($name:literal, $device:expr) => {
        fn main() -> std::process::ExitCode {
            $crate::harness::main($name, || $device)
        }
    };
}
