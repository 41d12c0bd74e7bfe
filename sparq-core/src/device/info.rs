//! What a device says about itself: name, memory, dtypes, limits.

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use super::{describe, require_dtype};
use crate::error::{Error, Result};

/// Environment variable that lowers [`Limits::largest_tensor`], in bytes: for a GPU that others use
/// too, and for tests.
pub const LARGEST_TENSOR: &str = "SPARQ_LARGEST_TENSOR";

/// The sizes that a device refuses to exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the largest tensor: what one buffer may hold and one kernel may bind. `None` where
    /// only the memory is the limit.
    pub largest_tensor: Option<u64>,
}

impl Limits {
    /// The limits of `device`. Opens a GPU.
    pub fn of(device: &Device) -> Self {
        let own = own_limit(device);
        let lowered = std::env::var(LARGEST_TENSOR).ok().and_then(|bytes| bytes.parse().ok());
        Self { largest_tensor: own.into_iter().chain(lowered).min() }
    }

    /// Checks that a tensor fits.
    ///
    /// # Errors
    /// [`Error::TooLarge`] with its name, its size and the limit.
    pub fn check(&self, tensor: &str, shape: &[usize], dtype: DType) -> Result<()> {
        let bytes = shape.iter().fold(dtype.size() as u64, |bytes, &size| bytes.saturating_mul(size as u64));
        // No memory of any computer is larger, and sizes beyond wrap around.
        let limit = self.largest_tensor.unwrap_or(u64::MAX).min(isize::MAX as u64);
        match bytes > limit {
            true => Err(Error::TooLarge { tensor: tensor.into(), shape: shape.to_vec(), bytes, limit }),
            false => Ok(()),
        }
    }
}

/// Bytes of the largest tensor by what the device says itself. CPU backends and torch hold whatever
/// fits into memory.
#[cfg_attr(not(feature = "cube"), allow(unused_variables))]
fn own_limit(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    #[allow(irrefutable_let_patterns)] // Where no other backend is compiled in.
    if let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() {
        return Some(device.client().properties().memory.max_page_size);
    }
    None
}

/// A device as it describes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Name of its backend, as [`super::parse`] takes it.
    pub backend: String,
    /// The part: what the driver calls it.
    pub name: String,
    /// What its kernels are compiled from, where that is a choice: `wgpu<wgsl>`, `wgpu<spirv>`, `cuda`.
    pub runtime: Option<String>,
    /// True for software adapters such as lavapipe: correct but slow.
    pub software: bool,
    /// Bytes of memory that it may be asked to hold, where it says so.
    pub memory: Option<u64>,
    /// Storage dtypes of weights and caches that it computes in.
    pub dtypes: Vec<String>,
    /// What it refuses.
    pub limits: Limits,
}

impl DeviceInfo {
    /// Asks `device`. Opens a GPU, and panics where its driver fails to.
    pub fn of(device: &Device) -> Self {
        let dtypes = [DType::F32, DType::F16, DType::BF16];
        let dtypes = dtypes.into_iter().filter(|&dtype| require_dtype(device, dtype).is_ok());
        let mut info = Self {
            backend: describe(device),
            name: "the CPU".into(),
            runtime: None,
            software: false,
            memory: None,
            dtypes: dtypes.map(|dtype| format!("{dtype:?}").to_lowercase()).collect(),
            limits: Limits::of(device),
        };
        info.fill(device);
        info
    }

    #[cfg_attr(
        not(any(feature = "cube", feature = "libtorch")),
        allow(clippy::unused_self, unused_variables)
    )]
    #[allow(deprecated)] // LibTorch is supported on purpose for as long as Burn ships it.
    fn fill(&mut self, device: &Device) {
        #[cfg(feature = "cube")]
        #[allow(irrefutable_let_patterns)] // Where no other backend is compiled in.
        if let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() {
            let client = device.client();
            let properties = client.properties();
            self.name = properties.identity.name.clone();
            self.runtime = Some(client.name().to_lowercase());
            self.software = super::is_software(device);
            self.memory = properties.memory.max_memory();
        }
        #[cfg(feature = "libtorch")]
        if let burn::backend::DispatchDevice::LibTorch(burn::backend::LibTorchDevice::Cuda(index)) =
            device.as_dispatch()
        {
            self.name = format!("CUDA device {index}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_beyond_the_limit_is_named_with_its_size() {
        let limits = Limits { largest_tensor: Some(1 << 20) };
        assert_eq!(limits.check("k", &[1, 2, 1024, 128], DType::F32), Ok(()));
        let error = limits.check("model.embed_tokens.weight", &[1025, 512], DType::F16).unwrap_err();
        assert_eq!(
            error.to_string(),
            "model.embed_tokens.weight [1025, 512] takes 1049600 bytes, and this device holds at most \
             1048576 bytes in one tensor"
        );
        assert_eq!(Limits::default().check("k", &[usize::MAX / 8], DType::F32), Ok(()));
    }
}
