//! `sparq doctor`.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use sparq_core::{
    device::{self, BACKENDS, BackendInfo, DeviceInfo, smoke_test},
    ops::ran::By,
};

use crate::{
    args::DoctorArgs,
    output::{
        self,
        doctor::{BackendReport, DeviceReport, OpReport, Report, Test, table},
    },
};

/// Runs the subcommand: what is compiled in, what is there, and whether it computes right. Exit code
/// 1 where a device that is there does not.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.only {
        let report = examine(name)?;
        output::print(&(serde_json::to_string(&report)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        platform: format!("{} {}", env::consts::OS, env::consts::ARCH),
        host_memory: host_memory(),
        backends: BACKENDS.iter().map(backend).collect(),
    };
    output::print(&match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => table(&report),
    })?;
    let failed =
        report.backends.iter().flat_map(|backend| &backend.devices).any(|device| !device.test.passed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn backend(info: &BackendInfo) -> BackendReport {
    let count = match info.compiled {
        true => device::enumerate(info.name).len(),
        false => 0,
    };
    let names = (0..count).map(|index| match info.indexed {
        true => format!("{}:{index}", info.name),
        false => info.name.to_owned(),
    });
    let hint = match (info.compiled, count) {
        (false, _) => Some(format!("rebuild with `--features {}`; it needs {}", info.feature, info.needs)),
        (true, 0) => Some(format!("no device was found; it needs {}", info.needs)),
        (true, _) => None,
    };
    BackendReport {
        name: info.name,
        feature: info.feature,
        compiled: info.compiled,
        devices: names.map(|name| examine_apart(&name)).collect(),
        hint,
    }
}

/// Examines a device in a process of its own: a driver that crashes takes only that along.
fn examine_apart(name: &str) -> DeviceReport {
    let child = env::current_exe().and_then(|program| {
        Command::new(program).args(["doctor", "--only", name]).stderr(Stdio::piped()).output()
    });
    let problem = match child {
        Ok(output) => match serde_json::from_slice(&output.stdout) {
            Ok(report) => return report,
            Err(_) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
                format!("it ended with {} and said: {last}", output.status)
            }
        },
        Err(error) => error.to_string(),
    };
    DeviceReport { name: name.into(), info: None, test: Test { passed: false, result: problem }, ops: vec![] }
}

fn examine(name: &str) -> anyhow::Result<DeviceReport> {
    let device = device::parse(name)?;
    let info = DeviceInfo::of(&device);
    let processor = device::parse("cpu").unwrap_or_else(|_| device.clone());
    let test = match smoke_test(&device, &processor) {
        Ok(smoke) => {
            let positions = if smoke.same_positions { "same positions" } else { "OTHER positions" };
            let result = format!("{positions}, largest difference {:.0e}", smoke.difference);
            Test { passed: smoke.passes(), result }
        }
        Err(error) => Test { passed: false, result: error.to_string() },
    };
    // The test has said what is wrong where this fails.
    let ops = device::kernels(&device).unwrap_or_default().into_iter().map(|ran| OpReport {
        op: ran.op.name().to_owned(),
        reason: match ran.by {
            By::Kernel => None,
            By::Definition(reason) => Some(reason.to_owned()),
        },
    });
    Ok(DeviceReport { name: name.into(), info: Some(info), test, ops: ops.collect() })
}

fn host_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    system.total_memory()
}
