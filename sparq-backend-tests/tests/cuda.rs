//! The suite on Burn's CUDA backend, on the first GPU.

sparq_backend_tests::conformance!("cuda");
