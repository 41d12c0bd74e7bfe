//! The suite on LibTorch on the first NVIDIA GPU.

sparq_backend_tests::conformance!("libtorch-cuda");
