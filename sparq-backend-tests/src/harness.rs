//! The suite as a test binary, with the arguments of any other (`--list`, a filter, `--exact`, …).
//!
//! A check that fails can leave a GPU unusable for the rest of the process, and one that crashes a
//! driver takes the process along. So the checks of a GPU run in child processes of the same binary:
//! one child runs until a check fails, the next one goes on behind it.
//!
//! | variable | meaning |
//! |---|---|
//! | `SPARQ_REPORT` | folder into which the [`Report`] is written, as `BACKEND.json` |
//! | `SPARQ_VERBOSE` | checks print what they measured |
//! | `SPARQ_REQUIRE` | backends, separated by spaces, whose missing device is a failure |

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use burn::tensor::Device;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sparq_core::device::{DeviceInfo, Kind, kind};

use crate::{
    report::{Outcome, Report, Verdict},
    suite::{Check, checks},
};

/// Set in a child process: the file to which it writes outcomes, one JSON line each.
const CHILD: &str = "SPARQ_SUITE_CHILD";
/// Set in a child process: the checks to run, separated by spaces.
const CHILD_CHECKS: &str = "SPARQ_SUITE_CHECKS";

/// Outcomes in the order of the checks, as far as these have run.
type Outcomes = Arc<Mutex<Vec<Option<Outcome>>>>;

/// Runs the suite on the device that `open` gives: the body of `main` of a test binary.
///
/// Where there is no such device, every check counts as not run, with the reason.
pub fn main(backend: &str, open: impl FnOnce() -> Result<Device, String>) -> ExitCode {
    if let Some(file) = env::var_os(CHILD) {
        return match open() {
            Ok(device) => child(&device, Path::new(&file)),
            Err(_) => ExitCode::FAILURE,
        };
    }
    let args = Arguments::from_args();
    let wanted: Vec<Check> = checks().into_iter().filter(|check| is_wanted(&args, check)).collect();
    let outcomes: Outcomes = Arc::new(Mutex::new(vec![None; wanted.len()]));
    if args.list {
        return libtest_mimic::run(&args, trials(&wanted, &outcomes, None)).exit_code();
    }
    let device = open().inspect_err(|reason| {
        *lock(&outcomes) = wanted.iter().map(|check| Some(missing(backend, check, reason))).collect();
    });
    let open = device.as_ref().ok();
    if let Some(device) = open {
        let apart = |check: &&Check| check.alone || !is_processor(device);
        run_apart(&wanted.iter().filter(apart).collect::<Vec<_>>(), device, |outcome| {
            let place = wanted.iter().position(|check| check.name == outcome.check);
            if let Some(place) = place {
                lock(&outcomes)[place] = Some(outcome);
            }
        });
    }
    let info = open.map_or_else(|| absent(backend), DeviceInfo::of);
    let here = open.map(|device| (device.clone(), info.clone()));
    let conclusion = libtest_mimic::run(&args, trials(&wanted, &outcomes, here));
    let outcomes = lock(&outcomes).drain(..).flatten().collect();
    let report = Report::new(&info, outcomes);
    println!("{report}\n");
    match write(&report) {
        Ok(()) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("the report cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_wanted(args: &Arguments, check: &Check) -> bool {
    !args.is_filtered_out(&Trial::test(check.name.clone(), || Ok(())))
}

/// Whether the device is the processor, with the slice kernels; anything else may be a GPU.
pub(crate) fn is_processor(device: &Device) -> bool {
    kind(device) == Kind::Cpu
}

/// One trial per check: what is known of it already, else what it gives on the device.
fn trials(wanted: &[Check], outcomes: &Outcomes, here: Option<(Device, DeviceInfo)>) -> Vec<Trial> {
    let trial = |(place, check): (usize, &Check)| {
        let (check, outcomes, here) = (check.clone(), outcomes.clone(), here.clone());
        Trial::ignorable_test(check.name.clone(), move || {
            let known = lock(&outcomes)[place].clone();
            let outcome = match (known, here) {
                (Some(outcome), _) => outcome,
                (None, Some((device, info))) => check.run(&device, &info),
                (None, None) => return Err(Failed::from("there is no device")),
            };
            lock(&outcomes)[place] = Some(outcome.clone());
            match outcome.verdict {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Failed { message } => Err(message.into()),
                Verdict::ExpectedFailure { reason, .. } => {
                    Ok(Completion::ignored_with(format!("expected to fail: {reason}")))
                }
                Verdict::NotRun { reason } => Ok(Completion::ignored_with(format!("not run: {reason}"))),
            }
        })
    };
    wanted.iter().enumerate().map(trial).collect()
}

/// Runs checks in child processes; a new one goes on behind each check that failed.
fn run_apart(checks: &[&Check], device: &Device, mut done: impl FnMut(Outcome)) {
    // An expected failure is weighed here: a child that died could not.
    let mut info = None;
    let mut rest = checks;
    while let Some(first) = rest.first() {
        let start = Instant::now();
        let outcomes = match in_child(rest) {
            Ok((outcomes, _)) if !outcomes.is_empty() => outcomes,
            Ok((_, status)) => {
                let message = format!("its process ended without a result: {status}");
                let info = info.get_or_insert_with(|| DeviceInfo::of(device));
                let verdict = first.expect(Verdict::Failed { message }, info);
                vec![Outcome { check: first.name.clone(), verdict, seconds: start.elapsed().as_secs_f64() }]
            }
            Err(error) => {
                let verdict = Verdict::Failed { message: format!("no process for it: {error}") };
                vec![Outcome { check: first.name.clone(), verdict, seconds: 0.0 }]
            }
        };
        rest = &rest[outcomes.len().min(rest.len())..];
        outcomes.into_iter().for_each(&mut done);
    }
}

/// The outcomes of the first of these checks, as many as one child got through, and how it ended.
fn in_child(checks: &[&Check]) -> std::io::Result<(Vec<Outcome>, String)> {
    let file = tempfile::NamedTempFile::new()?;
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    let status = Command::new(env::current_exe()?)
        .env(CHILD, file.path())
        .env(CHILD_CHECKS, names.join(" "))
        .status()?;
    let lines = fs::read_to_string(file.path())?;
    Ok((lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(), status.to_string()))
}

/// The child's side of [`in_child`].
fn child(device: &Device, file: &Path) -> ExitCode {
    let wanted = env::var(CHILD_CHECKS).unwrap_or_default();
    let checks = checks();
    let mut lines = String::new();
    let info = DeviceInfo::of(device);
    for name in wanted.split(' ') {
        let Some(check) = checks.iter().find(|check| check.name == name) else {
            return ExitCode::FAILURE;
        };
        let outcome = check.run(device, &info);
        eprintln!("{name}: {:.1} s", outcome.seconds);
        let Ok(line) = serde_json::to_string(&outcome) else {
            return ExitCode::FAILURE;
        };
        lines += &format!("{line}\n");
        // After each check: whatever the next one does to this process, this is there.
        if fs::write(file, &lines).is_err() {
            return ExitCode::FAILURE;
        }
        let clean = matches!(outcome.verdict, Verdict::Passed | Verdict::NotRun { .. });
        if !clean || check.alone {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// The outcome of a check without its device.
fn missing(backend: &str, check: &Check, reason: &str) -> Outcome {
    let required = env::var("SPARQ_REQUIRE").unwrap_or_default();
    let reason = reason.to_owned();
    let verdict = match required.split_whitespace().any(|name| name == backend) {
        true => Verdict::Failed { message: reason },
        false => Verdict::NotRun { reason },
    };
    Outcome { check: check.name.clone(), verdict, seconds: 0.0 }
}

/// What is known of a device that is not there.
fn absent(backend: &str) -> DeviceInfo {
    DeviceInfo {
        backend: backend.into(),
        name: "no device".into(),
        runtime: None,
        software: false,
        memory: None,
        dtypes: vec![],
        limits: Default::default(),
    }
}

fn write(report: &Report) -> std::io::Result<()> {
    let Some(folder) = env::var_os("SPARQ_REPORT") else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(report)?;
    fs::create_dir_all(&folder)?;
    fs::write(Path::new(&folder).join(format!("{}.json", report.backend)), text + "\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
