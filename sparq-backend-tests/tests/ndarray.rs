//! The suite on NdArray.
#![cfg(feature = "ndarray")]

sparq_backend_tests::conformance!("ndarray");
