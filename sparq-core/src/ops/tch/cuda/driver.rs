//! The driver and the run-time compiler, loaded when first needed; nothing of CUDA is linked.
#![allow(unsafe_code)] // Foreign functions. Each block says why it is sound.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_char, c_void},
    io::Write,
    sync::{Mutex, Once, OnceLock, PoisonError},
    thread,
};

use cudarc::{
    driver::{result, sys},
    nvrtc,
};
use tch::{Device, Kind, Tensor};

/// The CUDA sources: one program, of which each module compiles one kernel.
const SOURCE: &str = concat!(
    include_str!("common.cu"),
    include_str!("score.cu"),
    include_str!("attend.cu"),
    include_str!("shortlist.cu"),
    include_str!("top_k.cu"),
    include_str!("short.cu"),
    include_str!("append.cu"),
);

/// Counters that blocks count themselves off with: as many head tiles as one launch may have.
pub(super) const COUNTERS: usize = 1 << 16;

/// What went wrong, in words.
pub(super) type Failure = String;

/// A kernel of [`SOURCE`], by the name that it has there; the number is that of the macro `KERNEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Append = 0,
    ScoreSum = 1,
    ScoreStats = 2,
    ScoreHeads = 3,
    SumSoftmax = 4,
    AttendDense = 5,
    AttendSelected = 6,
    AttendSelectedMass = 7,
    SparqShort = 8,
    SparqShortMass = 9,
}

impl Kernel {
    fn name(self) -> &'static CStr {
        match self {
            Self::Append => c"append",
            Self::ScoreSum => c"score_sum",
            Self::ScoreStats => c"score_stats",
            Self::ScoreHeads => c"score_heads",
            Self::SumSoftmax => c"sum_softmax",
            Self::AttendDense => c"attend_dense",
            Self::AttendSelected => c"attend_selected",
            Self::AttendSelectedMass => c"attend_selected_mass",
            Self::SparqShort => c"sparq_short",
            Self::SparqShortMass => c"sparq_short_mass",
        }
    }
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub(super) kernel: Kernel,
    /// 0 for f32, 1 for f16, 2 for bf16.
    pub(super) scalar: u8,
    pub(super) head_dim: usize,
    pub(super) group: usize,
    /// Queries per sequence, which the group counts each for a head.
    pub(super) width: usize,
    /// Threads of the kernels that attend; the others ignore it.
    pub(super) threads: u32,
}

/// A kernel loaded on a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function(sys::CUfunction);

// SAFETY: a handle of the driver's, which any thread may use.
unsafe impl Send for Function {}

/// One device: its primary context, which torch uses too, and the kernels compiled for it.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) multiprocessors: usize,
    /// Zero between launches, see `AttendArgs::done` in the source.
    pub(super) counters: Tensor,
    /// What a step leaves between its launches lies here; see `Scratch`.
    pub(super) scratch: Mutex<Tensor>,
    /// Stands in for the masses where nobody asked for them.
    pub(super) no_masses: Mutex<Tensor>,
    /// The device as torch names it.
    pub(super) device: Device,
    ordinal: usize,
    context: sys::CUcontext,
    capability: (i32, i32),
    /// `None` for one that failed, so that it is tried and reported once.
    functions: Mutex<HashMap<Variant, Option<Function>>>,
    warned: Once,
}

// SAFETY: the context is a handle that any thread may make current; `counters` is only ever read for
// its address.
unsafe impl Send for Gpu {}
// SAFETY: as above; what changes is behind a mutex.
unsafe impl Sync for Gpu {}

/// Devices that are told apart: more than any machine has.
const DEVICES: usize = 64;

/// Device `ordinal`, as torch counts them, where the driver and the compiler can be loaded.
pub(super) fn gpu(ordinal: usize) -> Option<&'static Gpu> {
    // Kept for good: kernels stay loaded.
    static GPUS: [OnceLock<Option<Gpu>>; DEVICES] = [const { OnceLock::new() }; DEVICES];
    let open = || Gpu::open(ordinal).map_err(|why| warn(ordinal, &why)).ok();
    GPUS.get(ordinal)?.get_or_init(open).as_ref()
}

fn warn(ordinal: usize, why: &str) {
    // A warning that cannot be written is dropped.
    let _ = writeln!(
        std::io::stderr(),
        "warning: libtorch-cuda:{ordinal}: no kernels of our own ({why}); torch's operations are used, \
         which are slower. Put libcuda.so.1 and libnvrtc.so where the dynamic loader finds them."
    );
}

impl Gpu {
    fn open(ordinal: usize) -> Result<Self, Failure> {
        // SAFETY: only looks whether the libraries load; torch has loaded the same driver.
        if !unsafe { sys::is_culib_present() } {
            return Err("the CUDA driver cannot be loaded".into());
        }
        // SAFETY: as above.
        if !unsafe { nvrtc::sys::is_culib_present() } {
            return Err("NVRTC cannot be loaded".into());
        }
        let words = |error: result::DriverError| format!("{error:?}");
        result::init().map_err(words)?;
        let device = result::device::get(ordinal as i32).map_err(words)?;
        let attribute = |attribute| {
            // SAFETY: `device` is one that the driver just gave.
            unsafe { result::device::get_attribute(device, attribute) }.map_err(words)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        // SAFETY: as above. The primary context is what torch's CUDA runtime works in, so its
        // addresses are valid there; it is retained for the life of the process.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(words)?;
        let torch_device = Device::Cuda(ordinal);
        Ok(Self {
            multiprocessors,
            counters: Tensor::zeros([COUNTERS as i64], (Kind::Int, torch_device)),
            scratch: Mutex::new(Tensor::empty([0], (Kind::Uint8, torch_device))),
            no_masses: Mutex::new(Tensor::empty([0, 0, 0], (Kind::Float, torch_device))),
            device: torch_device,
            ordinal,
            context,
            capability,
            functions: Mutex::default(),
            warned: Once::new(),
        })
    }

    /// Unwraps a result; the first failure of the device is said on stderr.
    pub(super) fn report<T>(&self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|why| self.warned.call_once(|| warn(self.ordinal, &why))).ok()
    }

    /// The kernels, compiled when first asked for: all that are missing at the same time, since one
    /// takes seconds.
    pub(super) fn functions<const N: usize>(&self, variants: [Variant; N]) -> Result<[Function; N], Failure> {
        let mut known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<_> = variants.iter().filter(|variant| !known.contains_key(variant)).collect();
        if !missing.is_empty() {
            let compiled: Vec<_> = thread::scope(|scope| {
                let compile = |variant: &&Variant| {
                    let variant = **variant;
                    scope.spawn(move || compile(variant, self.capability))
                };
                let running: Vec<_> = missing.iter().map(compile).collect();
                let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                    thread.join().unwrap_or_else(|_| Err("the compiler panicked".into()))
                };
                running.into_iter().map(join).collect()
            });
            let missing: Vec<_> = missing.into_iter().copied().collect();
            let mut failure = None;
            for (variant, image) in missing.into_iter().zip(compiled) {
                let function = image.and_then(|image| self.load(variant, &image));
                known.insert(variant, function.as_ref().ok().copied());
                failure = failure.or(function.err());
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        let found: Option<Vec<Function>> =
            variants.iter().map(|variant| known.get(variant).copied().flatten()).collect();
        found
            .and_then(|found| found.try_into().ok())
            .ok_or_else(|| "a kernel could not be compiled before".into())
    }

    fn load(&self, variant: Variant, image: &[u8]) -> Result<Function, Failure> {
        let name = CString::from(variant.kernel.name());
        self.in_context(|| {
            // SAFETY: `image` is a whole module that NVRTC made for this device. It is never unloaded,
            // so the function lives as long as the process.
            unsafe {
                let module = result::module::load_data(image.as_ptr().cast::<c_void>())?;
                result::module::get_function(module, name)
            }
        })
        .map(Function)
        .map_err(|error| format!("{:?} does not load: {error:?}", variant.kernel))
    }

    /// Launches `function` on torch's current stream.
    ///
    /// tch has no way to choose a stream, so torch's current stream is its default one, the legacy
    /// default stream, which this launches on: work runs in the order of the calls.
    ///
    /// # Safety
    /// `arguments` point to values of the types that the kernel declares, in order, and every address
    /// in them is valid for what the kernel reads and writes until it ends. Memory of torch's allocator
    /// may be released right after: it is handed out again to later work of the same stream only.
    pub(super) unsafe fn launch(
        &self,
        function: Function,
        grid: [usize; 3],
        threads: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Failure> {
        // SAFETY: plain data of a C interface, for which all zero is a valid value.
        let (mut attribute, mut config) = unsafe {
            (std::mem::zeroed::<sys::CUlaunchAttribute>(), std::mem::zeroed::<sys::CUlaunchConfig>())
        };
        // From Hopper on, blocks may start while the kernel before still ends; ours wait for its
        // results where they need them (`wait_for_previous` in the source).
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
        [config.gridDimX, config.gridDimY, config.gridDimZ] = grid.map(|blocks| blocks as u32);
        [config.blockDimX, config.blockDimY, config.blockDimZ] = [threads, 1, 1];
        config.attrs = &raw mut attribute;
        config.numAttrs = u32::from(self.capability.0 >= 9);
        self.in_context(|| {
            // SAFETY: the caller vouches for the arguments; `config` outlives the call, which copies
            // everything it needs.
            unsafe {
                sys::cuLaunchKernelEx(
                    &raw const config,
                    function.0,
                    arguments.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            }
            .result()
        })
        .map_err(|error| format!("a kernel does not start: {error:?}"))
    }

    /// Runs `work` with this device's context current, and puts back the one before. It mostly is current:
    /// torch leaves it so on every thread that it works on.
    fn in_context<T>(
        &self,
        work: impl FnOnce() -> Result<T, result::DriverError>,
    ) -> Result<T, result::DriverError> {
        let mut current = std::ptr::null_mut();
        // SAFETY: writes one handle.
        if unsafe { sys::cuCtxGetCurrent(&raw mut current) }.result().is_ok() && current == self.context {
            return work();
        }
        // SAFETY: `context` is retained for the life of the process; the pop undoes this push.
        unsafe { sys::cuCtxPushCurrent_v2(self.context) }.result()?;
        let done = work();
        let mut popped = std::ptr::null_mut();
        // SAFETY: as above.
        unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped) }.result()?;
        done
    }
}

/// Compiles one kernel to machine code of a device.
fn compile(variant: Variant, (major, minor): (i32, i32)) -> Result<Vec<u8>, Failure> {
    let Variant { kernel, scalar, head_dim, group, width, threads } = variant;
    let options = [
        format!("--gpu-architecture=sm_{major}{minor}"),
        "--std=c++17".to_owned(),
        format!("-DKERNEL={}", kernel as i32),
        format!("-DSCALAR={scalar}"),
        format!("-DHEAD_DIM={head_dim}"),
        format!("-DGROUP={group}"),
        format!("-DWIDTH={width}"),
        format!("-DATTEND_THREADS={threads}"),
    ];
    let words = |error: nvrtc::result::NvrtcError| format!("NVRTC: {error:?}");
    let source = CString::new(SOURCE).map_err(|error| error.to_string())?;
    let program = nvrtc::result::create_program(&source, Some(c"sparq.cu")).map_err(words)?;
    let image = || {
        // SAFETY: `program` is valid until it is destroyed below, and `source` outlives it.
        unsafe { nvrtc::result::compile_program(program, &options) }.map_err(|error| {
            // SAFETY: as above.
            let log = unsafe { nvrtc::result::get_program_log(program) }.unwrap_or_default();
            format!("{}: {}", words(error), text(&log))
        })?;
        let mut size = 0;
        // SAFETY: as above; the compiler writes one number.
        unsafe { nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size) }.result().map_err(words)?;
        let mut image = vec![0u8; size];
        // SAFETY: as above; the compiler writes `size` bytes.
        unsafe { nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()) }.result().map_err(words)?;
        Ok(image)
    };
    let image = image();
    // SAFETY: created above, destroyed once.
    unsafe { nvrtc::result::destroy_program(program) }.map_err(words)?;
    image
}

fn text(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
