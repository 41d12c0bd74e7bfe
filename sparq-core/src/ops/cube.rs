//! The GPU backends of CubeCL: wgpu and CUDA.

use burn_cubecl::CubeBackend;

use super::SparqOps;

impl SparqOps for CubeBackend {}
