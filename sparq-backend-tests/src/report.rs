//! What a run of the suite found, for people and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed {
        /// What was found.
        message: String,
    },
    /// It does not, and [`crate::expected::EXPECTED_FAILURES`] says so.
    ExpectedFailure {
        /// Why, and where that is described.
        reason: String,
        /// What was found.
        message: String,
    },
    /// This device or this machine cannot run it.
    NotRun {
        /// What it lacks.
        reason: String,
    },
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `module::function`, with `/dtype` behind it where the check runs in each dtype.
    pub check: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

/// How many checks ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Checks that hold.
    pub passed: usize,
    /// Checks that do not.
    pub failed: usize,
    /// Known failures of others.
    pub expected_failures: usize,
    /// Checks that this device or machine cannot run.
    pub not_run: usize,
}

/// A run of the suite on one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the backend.
    pub backend: String,
    /// Name of the device, as its driver gives it.
    pub device: String,
    /// What its kernels are compiled from, where that is a choice.
    pub runtime: Option<String>,
    /// Version of this suite.
    pub version: String,
    /// Operating system and processor family of the program.
    pub platform: String,
    /// Cargo features of the program that change what runs.
    pub features: Vec<String>,
    /// How many checks ended how.
    pub counts: Counts,
    /// How long all of them took together.
    pub seconds: f64,
    /// Each check.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// A report on `device` of the checks that have run.
    pub fn new(device: &sparq_core::device::DeviceInfo, outcomes: Vec<Outcome>) -> Self {
        let mut counts = Counts::default();
        for outcome in &outcomes {
            *match outcome.verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Failed { .. } => &mut counts.failed,
                Verdict::ExpectedFailure { .. } => &mut counts.expected_failures,
                Verdict::NotRun { .. } => &mut counts.not_run,
            } += 1;
        }
        let features = [("fusion", cfg!(feature = "fusion")), ("vulkan", cfg!(feature = "vulkan"))];
        Self {
            backend: device.backend.clone(),
            device: device.name.clone(),
            runtime: device.runtime.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            features: features.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).into()).collect(),
            counts,
            seconds: outcomes.iter().map(|outcome| outcome.seconds).sum(),
            outcomes,
        }
    }

    /// Whether nothing failed that should not.
    pub fn is_success(&self) -> bool {
        self.counts.failed == 0
    }
}

/// The counts, and each check that did not pass with its reason.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reason_before = None;
        for Outcome { check, verdict, .. } in &self.outcomes {
            match verdict {
                // Once for all checks in a dtype or on a device that is not there.
                Verdict::NotRun { reason } if reason_before == Some(reason) => {}
                Verdict::Passed => {}
                Verdict::Failed { message } => writeln!(f, "failed    {check}: {message}")?,
                Verdict::ExpectedFailure { reason, .. } => writeln!(f, "expected  {check}: {reason}")?,
                Verdict::NotRun { reason } => {
                    reason_before = Some(reason);
                    writeln!(f, "not run   {check}: {reason}")?;
                }
            }
        }
        let Counts { passed, failed, expected_failures, not_run } = self.counts;
        write!(
            f,
            "conformance of {} on {}: {passed} passed, {failed} failed, {expected_failures} expected to fail, \
             {not_run} not run, {:.0} s",
            self.backend, self.device, self.seconds
        )
    }
}
