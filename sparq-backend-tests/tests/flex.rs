//! The suite on Flex, the default CPU backend.
#![cfg(feature = "flex")]

sparq_backend_tests::conformance!("flex");
