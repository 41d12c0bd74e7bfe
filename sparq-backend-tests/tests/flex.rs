//! The suite on Flex, the default CPU backend.

sparq_backend_tests::conformance!("flex");
