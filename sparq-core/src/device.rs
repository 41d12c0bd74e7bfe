//! Names of devices, and what they can compute in.
//!
//! This is the one place of the library that names Burn's backends.

use burn::tensor::{DType, Device};

use crate::error::{Error, Result};

/// Device names that this build answers to, the default first.
pub const AVAILABLE: &[&str] = &[
    #[cfg(feature = "flex")]
    "cpu",
    #[cfg(feature = "flex")]
    "flex",
    #[cfg(feature = "ndarray")]
    "ndarray",
];

/// Backends of the design that a build may leave out.
const KNOWN: &[&str] = &["cpu", "flex", "ndarray", "wgpu", "libtorch", "cuda"];

/// The device that `name` stands for: `cpu` (the default CPU backend), `flex` or `ndarray`.
///
/// # Errors
/// [`Error::Device`] for an unknown name or a backend that is not compiled in.
pub fn parse(name: &str) -> Result<Device> {
    match name {
        #[cfg(feature = "flex")]
        "cpu" | "flex" => Ok(Device::flex()),
        #[cfg(all(feature = "ndarray", not(feature = "flex")))]
        "cpu" => Ok(ndarray()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(ndarray()),
        _ => {
            let base = name.split(':').next().unwrap_or(name);
            let problem = match KNOWN.contains(&base) {
                true => "not compiled in",
                false => "not known",
            };
            Err(Error::Device { name: name.into(), problem, available: AVAILABLE.to_vec() })
        }
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // Supported on purpose for as long as Burn ships it.
fn ndarray() -> Device {
    Device::ndarray()
}

/// What to call `device` in a message: the name of its backend in lower case.
pub fn describe(device: &Device) -> String {
    // Burn prints `Device<Flex(..)>`.
    let text = format!("{device:?}");
    let name = text.trim_start_matches("Device<").split(['(', '>']).next().unwrap_or(&text);
    name.to_lowercase()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_missing_backends_read_differently() {
        let message = |name| parse(name).unwrap_err().to_string();
        assert_eq!(message("tpu"), "device `tpu` is not known");
        assert_eq!(message("cuda:0"), "device `cuda:0` is not compiled in");
        assert_eq!(describe(&parse("cpu").unwrap()), AVAILABLE[1]);
    }
}
