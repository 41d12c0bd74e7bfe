//! Names of devices, which of them are there, and what they can compute in.
//!
//! Burn's backends are named here and in [`crate::ops`].

mod info;
mod smoke;

use burn::tensor::{DType, Device};

pub use info::{DeviceInfo, LARGEST_TENSOR, Limits};
pub use smoke::{Smoke, kernels, smoke_test};

use crate::{
    error::{Error, Result},
    k_t::KtFormat,
};

/// A backend of this library: a name on the command line and a cargo feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendInfo {
    /// What [`parse`] calls its devices, before `:N`.
    pub name: &'static str,
    /// The cargo feature that compiles it in.
    pub feature: &'static str,
    /// Whether this build has it.
    pub compiled: bool,
    /// Whether `:N` picks one of several devices.
    pub indexed: bool,
    /// What a machine must have where no device of it is found.
    pub needs: &'static str,
}

/// Every backend, the default first.
pub const BACKENDS: &[BackendInfo] = &[
    BackendInfo {
        name: "flex",
        feature: "flex",
        compiled: cfg!(feature = "flex"),
        indexed: false,
        needs: "nothing",
    },
    BackendInfo {
        name: "ndarray",
        feature: "ndarray",
        compiled: cfg!(feature = "ndarray"),
        indexed: false,
        needs: "nothing",
    },
    BackendInfo {
        name: "wgpu",
        feature: "wgpu",
        compiled: cfg!(feature = "wgpu"),
        indexed: true,
        needs: "a Vulkan loader and driver (Debian: libvulkan1 and the vendor's driver, or \
                mesa-vulkan-drivers), or Metal",
    },
    BackendInfo {
        name: "libtorch",
        feature: "libtorch",
        compiled: cfg!(feature = "libtorch"),
        indexed: false,
        needs: "LibTorch 2.9 in LIBTORCH when building and in LD_LIBRARY_PATH when running",
    },
    BackendInfo {
        name: "libtorch-cuda",
        feature: "libtorch",
        compiled: cfg!(feature = "libtorch"),
        indexed: true,
        needs: "an NVIDIA driver, and a LibTorch with CUDA in LIBTORCH when building and in \
                LD_LIBRARY_PATH when running",
    },
    BackendInfo {
        name: "cuda",
        feature: "cuda",
        compiled: cfg!(feature = "cuda"),
        indexed: true,
        needs: "an NVIDIA driver (libcuda.so.1), and a CUDA toolkit in CUDA_PATH when running",
    },
];

/// Names of the backends that compute on the CPU, the first choice first.
const CPU_BACKENDS: [&str; 3] = ["flex", "ndarray", "libtorch"];

/// The device that `name` stands for: `cpu` (the default CPU backend), `flex`, `ndarray`,
/// `wgpu[:N]`, `libtorch`, `libtorch-cuda[:N]` or `cuda[:N]`. `N` counts the devices of
/// [`enumerate`] and is 0 where it is left out.
///
/// # Errors
/// [`Error::Device`] for an unknown name, a backend that is not compiled in, or a device that is
/// not there; its hint names the feature or what the machine lacks.
pub fn parse(name: &str) -> Result<Device> {
    let error =
        |problem: &str, hint: String| Err(Error::Device { name: name.into(), problem: problem.into(), hint });
    let (base, index) = match name.split_once(':') {
        Some((base, index)) => (base, Some(index)),
        None => (name, None),
    };
    let base = match base {
        "cpu" => default_cpu(),
        _ => base,
    };
    let Some(backend) = BACKENDS.iter().find(|backend| backend.name == base) else {
        let known: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
        return error("not known", format!("devices are: cpu, {}", known.join(", ")));
    };
    if !backend.compiled {
        let compiled = available().join(", ");
        let hint = format!("compiled in: {compiled}; rebuild with `--features {}`", backend.feature);
        return error("not compiled in", hint);
    }
    let index = match index.map(str::parse::<usize>) {
        None => 0,
        Some(Ok(index)) if backend.indexed => index,
        Some(_) => return error("not known", format!("`{base}` takes {}", index_syntax(backend))),
    };
    let found = enumerate(backend.name);
    match found.len() {
        0 => error("not there: none was found", format!("`{base}` needs {}", backend.needs)),
        count => match found.into_iter().nth(index) {
            Some(device) => Ok(device),
            None => error(
                &format!("not there: {count} found, counted from 0"),
                format!("name one of `{base}:0` to `{base}:{}`", count - 1),
            ),
        },
    }
}

fn index_syntax(backend: &BackendInfo) -> &'static str {
    match backend.indexed {
        true => "a number after the colon",
        false => "no number: there is one device",
    }
}

/// The first CPU backend that is compiled in.
fn default_cpu() -> &'static str {
    let compiled = available();
    CPU_BACKENDS.iter().find(|name| compiled.contains(name)).unwrap_or(&CPU_BACKENDS[0])
}

/// Names of the backends that this build has, the default first.
pub fn available() -> Vec<&'static str> {
    BACKENDS.iter().filter(|backend| backend.compiled).map(|backend| backend.name).collect()
}

/// The devices of a backend of [`BACKENDS`] that are there; none where it is not compiled in.
///
/// GPUs come before software adapters, and nothing is initialised: that happens at first use.
#[allow(deprecated)] // NdArray and LibTorch are supported on purpose for as long as Burn ships them.
pub fn enumerate(backend: &str) -> Vec<Device> {
    match backend {
        #[cfg(feature = "flex")]
        "flex" => vec![Device::flex()],
        #[cfg(feature = "ndarray")]
        "ndarray" => vec![Device::ndarray()],
        #[cfg(feature = "wgpu")]
        "wgpu" => {
            let mut devices = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
            devices.sort_by_key(wgpu_rank);
            devices
        }
        #[cfg(feature = "libtorch")]
        "libtorch" => vec![Device::libtorch()],
        #[cfg(feature = "libtorch")]
        "libtorch-cuda" => Device::enumerate(burn::tensor::DeviceType::LibTorch).into_vec(),
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
        _ => Vec::new(),
    }
}

/// Order of adapters: discrete, integrated and virtual GPUs, what cannot tell, software.
#[cfg(feature = "wgpu")]
fn wgpu_rank(device: &Device) -> (u8, usize) {
    use burn::backend::{CubeDevice, DispatchDevice, WgpuDeviceKind};
    match device.as_dispatch() {
        DispatchDevice::Cube(CubeDevice::Wgpu(device)) => match device.kind {
            WgpuDeviceKind::DiscreteGpu(index) => (0, index),
            WgpuDeviceKind::IntegratedGpu(index) => (1, index),
            WgpuDeviceKind::VirtualGpu(index) => (2, index),
            WgpuDeviceKind::Cpu => (4, 0),
            _ => (3, 0),
        },
        _ => (5, 0),
    }
}

/// True for software adapters such as lavapipe: correct but slow.
#[cfg(feature = "cube")]
pub(crate) fn is_software(device: &burn::backend::CubeDevice) -> bool {
    #[cfg(feature = "wgpu")]
    if let burn::backend::CubeDevice::Wgpu(device) = device {
        return device.kind == burn::backend::WgpuDeviceKind::Cpu;
    }
    let _ = device;
    false
}

/// What to call `device` in a message: the name of its backend, as [`parse`] takes it.
#[allow(deprecated)] // NdArray and LibTorch are supported on purpose for as long as Burn ships them.
pub fn describe(device: &Device) -> String {
    use burn::backend::DispatchDevice;
    let name: &str = match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => "flex",
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => "ndarray",
        #[cfg(feature = "libtorch")]
        DispatchDevice::LibTorch(burn::backend::LibTorchDevice::Cuda(_)) => "libtorch-cuda",
        #[cfg(feature = "libtorch")]
        DispatchDevice::LibTorch(_) => "libtorch",
        #[cfg(feature = "cuda")]
        DispatchDevice::Cube(burn::backend::CubeDevice::Cuda(_)) => "cuda",
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => "wgpu",
        // A backend that another crate of the build has turned on.
        #[allow(unreachable_patterns)]
        _ => return format!("{device:?}"),
    };
    name.into()
}

/// What computes on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The CPU, on tensors in this process's memory.
    Cpu,
    /// A GPU, with memory of its own.
    Gpu,
    /// A software adapter, which gives a CPU the interface of a GPU: correct but slow.
    SoftwareGpu,
}

/// What computes on `device`. A backend that another crate has brought counts as a GPU: nothing is assumed of
/// where its memory lies.
#[allow(deprecated)] // NdArray and LibTorch are supported on purpose for as long as Burn ships them.
pub fn kind(device: &Device) -> Kind {
    use burn::backend::DispatchDevice;
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => Kind::Cpu,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => Kind::Cpu,
        #[cfg(feature = "libtorch")]
        DispatchDevice::LibTorch(burn::backend::LibTorchDevice::Cpu) => Kind::Cpu,
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(device) if is_software(device) => Kind::SoftwareGpu,
        // All else where all of these are compiled in.
        #[allow(unreachable_patterns)]
        _ => Kind::Gpu,
    }
}

/// Checks that `device` computes in `dtype`.
///
/// # Errors
/// [`Error::UnsupportedDtype`] that names both.
pub fn require_dtype(device: &Device, dtype: DType) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && device.supports_dtype(dtype) {
        return Ok(());
    }
    Err(Error::UnsupportedDtype { device: describe(device), dtype })
}

/// Checks that `device` can store transposed keys in this form. LibTorch, as Burn knows it, has integers
/// of 64 bits alone.
///
/// # Errors
/// [`Error::UnsupportedKt`] that names the device.
pub fn require_kt(device: &Device, index: KtFormat) -> Result<()> {
    match index.bits() {
        Some(_) if !device.supports_dtype(DType::I32) => {
            Err(Error::UnsupportedKt { device: describe(device) })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_name_says_what_is_wrong_with_it() {
        let error = |name: &str| parse(name).unwrap_err();
        assert_eq!(error("tpu").to_string(), "device `tpu` is not known");
        assert!(error("tpu").hint().unwrap().contains("libtorch-cuda"));
        assert_eq!(error("cpu:1").to_string(), "device `cpu:1` is not known");
        for backend in BACKENDS {
            match (backend.compiled, backend.indexed) {
                (false, _) => {
                    let error = error(backend.name);
                    assert_eq!(error.to_string(), format!("device `{}` is not compiled in", backend.name));
                    assert!(error.hint().unwrap().contains(&format!("--features {}", backend.feature)));
                }
                (true, true) => {
                    let name = format!("{}:77", backend.name);
                    let message = error(&name).to_string();
                    assert!(message.starts_with(&format!("device `{name}` is not there")), "{message}");
                    assert!(error(&format!("{}:x", backend.name)).to_string().ends_with("is not known"));
                }
                (true, false) => assert_eq!(describe(&parse(backend.name).unwrap()), backend.name),
            }
        }
    }

    #[test]
    fn cpu_is_the_first_backend_on_the_cpu() {
        let compiled = available();
        match CPU_BACKENDS.iter().find(|name| compiled.contains(name)) {
            Some(first) => assert_eq!(describe(&parse("cpu").unwrap()), *first),
            None => assert!(parse("cpu").unwrap_err().hint().unwrap().contains("--features flex")),
        }
    }
}
