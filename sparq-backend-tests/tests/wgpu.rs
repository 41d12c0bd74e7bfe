//! The suite on the first adapter of wgpu.

sparq_backend_tests::conformance!("wgpu");
