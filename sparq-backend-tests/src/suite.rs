//! The list of checks, and how one is run.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

use burn::tensor::Device;
use sparq_core::device::{DeviceInfo, require_dtype};

use crate::{
    expected::{EXPECTED_FAILURES, ExpectedFailure},
    report::{Outcome, Report, Verdict},
    tolerance::{TOLERANCES, Tolerance},
};

/// How a check is called.
#[derive(Debug, Clone, Copy)]
enum Run {
    /// Once.
    Once(fn(&Device)),
    /// Once in a dtype, with its row of the table of tolerances.
    In(Tolerance, fn(&Device, Tolerance)),
}

/// A check of the suite, in one dtype where it runs in each.
#[derive(Debug, Clone)]
pub struct Check {
    /// `module::function`, with `/dtype` behind it where the check runs in each dtype.
    pub name: String,
    /// Whether it needs a process without others beside it: it measures memory, or counts what runs.
    pub(crate) alone: bool,
    run: Run,
}

macro_rules! checks {
    (
        alone: [$($a_module:ident::$a_check:ident)*]
        once: [$($module:ident::$check:ident)*]
        in_each_dtype: [$($d_module:ident::$d_check:ident)*]
    ) => {
        /// Every check of the suite, those of one dtype together.
        pub fn checks() -> Vec<Check> {
            let alone: &[(&str, fn(&Device))] = &[
                $((concat!(stringify!($a_module), "::", stringify!($a_check)), crate::$a_module::$a_check),)*
            ];
            let once: &[(&str, fn(&Device))] = &[
                $((concat!(stringify!($module), "::", stringify!($check)), crate::$module::$check),)*
            ];
            let in_each_dtype: &[(&str, fn(&Device, Tolerance))] = &[
                $((concat!(stringify!($d_module), "::", stringify!($d_check)), crate::$d_module::$d_check),)*
            ];
            let plain = |alone: bool| {
                move |(name, run): &(&str, fn(&Device))| {
                    Check { name: (*name).into(), alone, run: Run::Once(*run) }
                }
            };
            let typed = TOLERANCES.iter().flat_map(|row| {
                in_each_dtype.iter().map(move |(name, run)| Check {
                    name: format!("{name}/{}", row.name()),
                    alone: false,
                    run: Run::In(*row, *run),
                })
            });
            alone.iter().map(plain(true)).chain(once.iter().map(plain(false))).chain(typed).collect()
        }
    };
}

checks! {
    alone: [
        memory::an_append_writes_in_place
        memory::nothing_leaks_over_a_thousand_steps
        kernels::kernels_ran
    ]
    once: [
        properties::everything_kept_is_dense
        properties::left_padding_changes_nothing
        properties::a_ragged_batch_equals_one_by_one
        properties::poisoned_padding_leaves_outputs_finite
        properties::kept_positions_are_counted
        properties::selection_ignores_the_scale_of_the_query
        properties::chunked_prefill_equals_whole_prefill
        properties::decoding_continues_a_prefill
        properties::several_tokens_are_decoded_as_one_by_one
        properties::the_running_mean_is_the_mean
        properties::cutting_back_forgets
        properties::retained_mass_grows_with_k
        properties::order_of_the_cache_does_not_matter
        properties::only_what_is_counted_is_read
        properties::an_old_handle_keeps_its_values
        buckets::the_best_two_of_each_bucket
        buckets::agreement_on_the_reference_vectors
        quantized::decoding_continues_a_prefill
        quantized::linear
        quantized::quality_on_the_reference_vectors
        windows::a_window_beyond_the_text_changes_nothing
        windows::a_window_is_the_text_cut_to_it
        windows::decoding_continues_a_limited_prefill
        windows::a_soft_cap_keeps_the_choice_of_one_head
        windows::a_window_limits_what_is_counted
        methods::reference_vectors
        methods::budgets_are_kept
        methods::methods_that_keep_everything_are_dense
        methods::a_padded_batch_equals_one_by_one
        methods::going_back_forgets
        methods::methods_meet_at_their_limits
        methods::a_mass_of_one_is_sparq
        methods::a_mass_budget_is_met
        methods::the_oracle_is_a_bound
        methods::transfers_match_the_formulas
        methods::bad_sizes_are_refused
        overflow::scores_that_overflow_are_not_hidden
        overflow::one_score_that_overflows_is_not_hidden
        overflow::large_scores_are_no_overflow
        overflow::no_method_hides_an_overflow
        streams::two_streams_do_not_disturb_each_other
        layout::a_cache_beyond_the_limit_is_refused
        model::greedy_tokens_with_sparq
        model::weights_in_eight_bits
        model::a_ragged_model_batch_equals_one_by_one
        families::family_logits_with_the_prompt_in_chunks
        families::family_greedy_tokens
        families::family_logits_with_sparq_that_reads_everything
        families::family_logits_with_the_newer_configuration
        rows::a_row_beside_others_gives_what_it_gives_alone
        slots::slots_may_become_alike_again
    ]
    in_each_dtype: [
        reference::attention_through_the_oracle
        reference::attention_through_the_product
        overrides::appends
        overrides::dense_decode
        overrides::dense_decode_of_several_queries
        overrides::sparq_decode
        overrides::prefill
        overrides::linear
        buckets::sparq_decode
        quantized::appends
        quantized::sparq_decode
        overflow::what_does_not_fit_is_stored_as_nan
        rollback::one_sequence_goes_back_to_the_bit
        rollback::sums_are_kept_again_in_memory_that_grew_without
        slots::a_slot_holds_what_a_cache_of_its_own_holds
        slots::each_sequence_decodes_as_alone
        some_slots::some_slots_are_written_and_read
        streams::repeated_runs_give_the_same_result
        layout::views_of_other_tensors
        layout::a_cache_grows_without_changing_its_contents
        layout::a_cache_of_65_thousand
        layout::values_of_another_width
        model::llama_reference_logits
        model::mistral_reference_logits
        model::gemma_reference_logits
        model::gpt_neox_reference_logits
        families::family_logits
    ]
}

/// Runs every check on `device`, one after another, in this process.
///
/// A device that a failed check has left unusable fails the checks behind it; the test binaries
/// that [`crate::conformance!`] makes run the checks of a GPU in processes of their own instead.
pub fn run_all(device: &Device) -> Report {
    let info = DeviceInfo::of(device);
    let outcomes = checks().iter().map(|check| check.run(device, &info)).collect();
    Report::new(&info, outcomes)
}

impl Check {
    /// Runs the check; a panic is its failure.
    pub fn run(&self, device: &Device, info: &DeviceInfo) -> Outcome {
        let start = Instant::now();
        SLOW.set(info.software);
        let result = catch_unwind(AssertUnwindSafe(|| {
            match self.run {
                Run::Once(run) => run(device),
                Run::In(row, run) => match require_dtype(device, row.dtype) {
                    Ok(()) => run(device, row),
                    Err(error) => not_run(&error.to_string()),
                },
            }
            // A kernel that failed to compile says so here at the latest.
            if let Err(error) = device.sync() {
                panic!("the device reports: {error:?}");
            }
        }));
        let verdict = match result {
            Ok(()) => Verdict::Passed,
            Err(payload) => verdict(payload.as_ref()),
        };
        Outcome {
            check: self.name.clone(),
            verdict: self.expect(verdict, info),
            seconds: start.elapsed().as_secs_f64(),
        }
    }

    /// The verdict in the light of the table of expected failures.
    pub(crate) fn expect(&self, verdict: Verdict, info: &DeviceInfo) -> Verdict {
        let expected = EXPECTED_FAILURES.iter().find(|row| self.matches(row, info));
        weigh(verdict, expected)
    }

    fn matches(&self, row: &ExpectedFailure, info: &DeviceInfo) -> bool {
        let dtype = match self.run {
            Run::Once(_) => None,
            Run::In(tolerance, _) => Some(tolerance.dtype),
        };
        let described = format!("{} {}", info.name, info.runtime.as_deref().unwrap_or_default());
        row.backend == info.backend
            && row.device.is_none_or(|part| described.contains(part))
            && row.dtype == dtype
            && self.name.split('/').next() == Some(row.check)
    }
}

fn weigh(verdict: Verdict, expected: Option<&ExpectedFailure>) -> Verdict {
    match (verdict, expected) {
        (Verdict::Failed { message }, Some(row)) => {
            Verdict::ExpectedFailure { reason: format!("{} ({})", row.reason, row.link), message }
        }
        (Verdict::Passed, Some(row)) => Verdict::Failed {
            message: format!("passes, and is expected to fail ({}): remove it from the table", row.reason),
        },
        (verdict, _) => verdict,
    }
}

thread_local! {
    static SLOW: Cell<bool> = const { Cell::new(false) };
}

/// Whether the check that calls this runs on a software adapter: a hundred times slower, so
/// that fewer random problems must do.
pub(crate) fn is_slow() -> bool {
    SLOW.get()
}

/// Of problems that are much alike those that there is time for: all, or on a slow device every `n`th.
pub(crate) fn every<T>(n: usize, of: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    of.into_iter().step_by(if is_slow() { n } else { 1 })
}

/// Prints what a check measured, where `SPARQ_VERBOSE` is set.
pub(crate) fn note(text: &str) {
    if std::env::var_os("SPARQ_VERBOSE").is_some() {
        eprintln!("{text}");
    }
}

/// The reason why a check cannot run, on its way out of the check.
struct NotRun(String);

/// Leaves the check that calls this: the device or the machine cannot run it.
pub(crate) fn not_run(reason: &str) -> ! {
    resume_unwind(Box::new(NotRun(reason.into())))
}

fn verdict(payload: &(dyn Any + Send)) -> Verdict {
    if let Some(NotRun(reason)) = payload.downcast_ref() {
        return Verdict::NotRun { reason: reason.clone() };
    }
    let message = payload.downcast_ref::<String>().cloned();
    let message = message.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()));
    Verdict::Failed { message: message.unwrap_or_else(|| "a panic without a message".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ExpectedFailure {
        let (reason, link) = ("a kernel is missing", "https://example.org/1");
        ExpectedFailure { backend: "wgpu", device: None, dtype: None, check: "a::b", reason, link }
    }

    #[test]
    fn an_expected_failure_that_passes_is_a_failure() {
        let failed = Verdict::Failed { message: "off by one".into() };
        assert!(matches!(weigh(failed.clone(), Some(&row())), Verdict::ExpectedFailure { .. }));
        assert!(matches!(weigh(Verdict::Passed, Some(&row())), Verdict::Failed { .. }));
        assert_eq!(weigh(failed.clone(), None), failed);
        let not_run = Verdict::NotRun { reason: "no such dtype".into() };
        assert_eq!(weigh(not_run.clone(), Some(&row())), not_run);
    }

    #[test]
    fn a_row_of_the_table_matches_its_backend_device_and_check() {
        let info = DeviceInfo {
            backend: "wgpu".into(),
            name: "llvmpipe (LLVM 15)".into(),
            runtime: Some("wgpu<wgsl>".into()),
            software: true,
            memory: None,
            dtypes: vec![],
            limits: Default::default(),
        };
        let check = Check { name: "a::b".into(), alone: false, run: Run::Once(|_| {}) };
        assert!(check.matches(&row(), &info));
        assert!(check.matches(&ExpectedFailure { device: Some("llvmpipe"), ..row() }, &info));
        assert!(check.matches(&ExpectedFailure { device: Some("wgsl"), ..row() }, &info));
        assert!(!check.matches(&ExpectedFailure { device: Some("NVIDIA"), ..row() }, &info));
        assert!(!check.matches(&ExpectedFailure { backend: "cuda", ..row() }, &info));
        assert!(!check.matches(&ExpectedFailure { check: "a::c", ..row() }, &info));
    }

    #[test]
    fn panics_and_reasons_are_told_apart() {
        let payload = |run: fn()| catch_unwind(run).unwrap_err();
        assert_eq!(
            verdict(payload(|| not_run("too small")).as_ref()),
            Verdict::NotRun { reason: "too small".into() }
        );
        let failed = verdict(payload(|| panic!("{} of {}", 1, 2)).as_ref());
        assert_eq!(failed, Verdict::Failed { message: "1 of 2".into() });
    }

    #[test]
    fn the_page_on_backends_states_the_number_of_checks() {
        let page = include_str!("../../docs/adding-a-backend.md");
        let stated = format!("The suite has {} checks", checks().len());
        assert!(page.contains(&stated), "docs/adding-a-backend.md lacks: {stated}");
    }

    #[test]
    fn every_row_of_the_table_names_a_check() {
        let names: Vec<String> = checks().into_iter().map(|check| check.name).collect();
        for row in EXPECTED_FAILURES {
            let of_check = |name: &String| name.split('/').next() == Some(row.check);
            assert!(names.iter().any(of_check), "{}", row.check);
        }
    }
}
