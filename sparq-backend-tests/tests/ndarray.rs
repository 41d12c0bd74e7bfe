//! The suite on NdArray.

sparq_backend_tests::conformance!("ndarray");
