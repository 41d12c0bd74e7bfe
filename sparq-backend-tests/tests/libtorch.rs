//! The suite on LibTorch on the CPU.

sparq_backend_tests::conformance!("libtorch");
