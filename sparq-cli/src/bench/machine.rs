//! Where a measurement ran.

use burn::tensor::Device;
use serde::Serialize;
use sparq_core::device::describe;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// The release of Burn, whose backends compute.
const BURN: &str = "0.22.1";

/// Part of every record.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) build_version: &'static str,
    pub(super) cpu_info: String,
    /// Of Burn, whose backend computes.
    pub(super) backend_version: &'static str,
    pub(super) backends: String,
    /// As it was asked for.
    pub(super) device: String,
    pub(super) n_threads: usize,
}

impl Machine {
    /// This machine with `device`, called `name` on the command line.
    pub(super) fn new(name: &str, device: &Device) -> Self {
        let kind = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(kind);
        let cpu = system.cpus().first().map_or("unknown", |cpu| cpu.brand()).trim().to_owned();
        Self {
            build_version: env!("CARGO_PKG_VERSION"),
            cpu_info: cpu,
            backend_version: BURN,
            backends: describe(device),
            device: name.to_owned(),
            n_threads: rayon::current_num_threads(),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_release_of_burn_is_the_one_that_is_built() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("burn = {{ version = \"={}\"", super::BURN)));
    }
}
