//! What `sparq doctor` prints.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sparq_core::device::DeviceInfo;

/// Everything that the subcommand finds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: &'static str,
    pub(crate) platform: String,
    /// Bytes of memory of the machine.
    pub(crate) host_memory: u64,
    pub(crate) backends: Vec<BackendReport>,
}

/// A backend, compiled in or not.
#[derive(Debug, Serialize)]
pub(crate) struct BackendReport {
    pub(crate) name: &'static str,
    pub(crate) feature: &'static str,
    pub(crate) compiled: bool,
    pub(crate) devices: Vec<DeviceReport>,
    /// What is missing where there is no device.
    pub(crate) hint: Option<String>,
}

/// A device that was found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceReport {
    /// What `--device` calls it.
    pub(crate) name: String,
    /// What it says about itself; nothing where it could not be opened.
    pub(crate) info: Option<DeviceInfo>,
    pub(crate) test: Test,
    /// How each operation ran.
    pub(crate) ops: Vec<OpReport>,
}

/// How an operation ran on a device.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpReport {
    pub(crate) op: String,
    /// Why no kernel ran; nothing where one did.
    pub(crate) reason: Option<String>,
}

/// A small SparQ step against the definition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Test {
    pub(crate) passed: bool,
    pub(crate) result: String,
}

/// The report for people.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |row: String| writeln!(text, "{row}").unwrap_or_default(); // a String takes everything
    line(format!("sparq {} on {}, {} of memory", report.version, report.platform, gib(report.host_memory)));
    for backend in &report.backends {
        let compiled = if backend.compiled { "compiled in" } else { "not compiled in" };
        line(format!("\n{} ({compiled})", backend.name));
        for DeviceReport { name, info, test, ops } in &backend.devices {
            if let Some(info) = info {
                let software = if info.software { ", software" } else { "" };
                let runtime = info.runtime.as_ref().map_or(String::new(), |runtime| format!(", {runtime}"));
                line(format!("  {name}: {}{software}{runtime}", info.name));
                line(format!("    dtypes          {}", info.dtypes.join(", ")));
                if let Some(memory) = info.memory {
                    line(format!("    memory          {}", gib(memory)));
                }
                if let Some(limit) = info.limits.largest_tensor {
                    line(format!("    largest tensor  {}", gib(limit)));
                }
            } else {
                line(format!("  {name}"));
            }
            let verdict = if test.passed { "ok" } else { "FAILED" };
            line(format!("    SparQ step      {verdict}: {}", test.result));
            let kernels: Vec<&str> =
                ops.iter().filter(|op| op.reason.is_none()).map(|op| op.op.as_str()).collect();
            if !ops.is_empty() {
                line(format!("    kernels         {}", kernels.join(", ")));
            }
            for OpReport { op, reason } in ops {
                if let Some(reason) = reason {
                    line(format!("    no kernel       {op}: {reason}"));
                }
            }
        }
        if let Some(hint) = &backend.hint {
            line(format!("  hint: {hint}"));
        }
    }
    text
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}
