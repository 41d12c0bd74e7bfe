//! Conformance suite of SparQ-rs: what every backend must compute, as public functions over a
//! [`Device`](burn::tensor::Device).
//!
//! A backend passes when every function returns. [`conformance!`] makes one test of each:
//!
//! ```text
//! sparq_backend_tests::conformance!("flex");
//! ```
//!
//! - [`reference`](mod@reference): the vectors of the authors' published code, through the oracle and through the
//!   operations that the product runs;
//! - [`overrides`]: a backend's own operations against the oracle, in every dtype that it supports;
//! - [`properties`]: what must hold whatever the numbers are;
//! - [`windows`]: the same for sliding windows and soft caps;
//! - [`model`]: whole models against reference logits.
//! - [`model`]: whole models against reference logits;
//! - [`families`]: every model family against the logits and greedy tokens of transformers.

pub mod families;
pub mod model;
pub mod overrides;
pub mod problem;
pub mod properties;
pub mod reference;
pub mod tolerance;
pub mod windows;

/// The device of this name.
///
/// # Panics
/// Where its backend is not compiled in.
pub fn device(name: &str) -> burn::tensor::Device {
    sparq_core::device::parse(name).unwrap_or_else(|error| panic!("{error}"))
}

/// Makes one `#[test]` of every function of the suite, for the device of this name
/// (see [`sparq_core::device::parse`]).
#[macro_export]
macro_rules! conformance {
    ($device:literal) => {
        $crate::conformance!(@tests $device;
            reference::attention_through_the_oracle
            reference::attention_through_the_product
            overrides::appends
            overrides::dense_decode
            overrides::sparq_decode
            overrides::prefill
            overrides::linear
            properties::everything_kept_is_dense
            properties::left_padding_changes_nothing
            properties::a_ragged_batch_equals_one_by_one
            properties::poisoned_padding_leaves_outputs_finite
            properties::kept_positions_are_counted
            properties::selection_ignores_the_scale_of_the_query
            properties::chunked_prefill_equals_whole_prefill
            properties::decoding_continues_a_prefill
            properties::the_running_mean_is_the_mean
            properties::retained_mass_grows_with_k
            properties::order_of_the_cache_does_not_matter
            properties::only_what_is_counted_is_read
            properties::an_old_handle_keeps_its_values
            windows::a_window_beyond_the_text_changes_nothing
            windows::a_window_is_the_text_cut_to_it
            windows::decoding_continues_a_limited_prefill
            windows::a_soft_cap_keeps_the_choice_of_one_head
            windows::a_window_limits_what_is_counted
            model::llama_reference_logits
            model::mistral_reference_logits
            model::gemma_reference_logits
            model::gpt_neox_reference_logits
            model::a_ragged_model_batch_equals_one_by_one
            families::family_logits
            families::family_logits_with_the_prompt_in_chunks
            families::family_greedy_tokens
            families::family_logits_with_sparq_that_reads_everything
            families::family_logits_with_the_newer_configuration
        );
    };
    (@tests $device:literal; $($module:ident::$test:ident)*) => {
        $(#[test]
        fn $test() {
            $crate::$module::$test(&$crate::device($device));
        })*
    };
}
