//! Which model, where, and in which dtype.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use clap::{Args, ValueEnum};
use sparq_core::device;
use sparq_models::{checkpoint::Checkpoint, weight::WeightFormat};

use crate::{demo, hub, output::Progress};

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Folder of a Hugging Face checkpoint, or its name on the hub: ORG/NAME or ORG/NAME@REVISION
    /// [default: the small model inside this program]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// Use the hub's cache only, as with HF_HUB_OFFLINE=1
    #[arg(long)]
    pub(crate) offline: bool,

    /// Device to compute on: cpu, flex, ndarray, wgpu, libtorch, libtorch-cuda or cuda, GPUs also as NAME:N;
    /// `sparq doctor` lists them
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,

    /// Storage dtype of weights and KV cache; auto keeps the checkpoint's where the device can
    #[arg(long, value_enum, default_value_t = DtypeArg::Auto)]
    pub(crate) dtype: DtypeArg,

    /// Linear-layer weights: as --dtype, or quantised to int8 at load (half the memory and traffic of 16-bit)
    #[arg(long, value_enum, default_value_t = WeightsArg::Auto)]
    pub(crate) weights: WeightsArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsArg {
    /// As --dtype says
    Auto,
    /// Eight bits, a scale per output
    Int8,
}

impl WeightsArg {
    pub(crate) fn format(self) -> WeightFormat {
        match self {
            Self::Auto => WeightFormat::Dtype,
            Self::Int8 => WeightFormat::Int8,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeArg {
    Auto,
    F32,
    F16,
    Bf16,
}

impl DtypeArg {
    /// The dtype itself; f32 for auto, where no checkpoint says another.
    pub(crate) fn or_f32(self) -> DType {
        match self {
            Self::Auto | Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The dtype to load in.
    pub(crate) fn resolve(self, checkpoint: &Checkpoint, device: &Device) -> anyhow::Result<DType> {
        let stored = checkpoint.stored_dtype();
        if self == Self::Auto && device::require_dtype(device, stored).is_ok() {
            return Ok(stored);
        }
        device::require_dtype(device, self.or_f32())?;
        Ok(self.or_f32())
    }

    /// What `auto` came to and why, and weights in another format, in one line; `None` where a dtype was
    /// asked for and holds for all.
    pub(crate) fn note(self, checkpoint: &Checkpoint, device: &Device, dtype: DType) -> Option<String> {
        let stored = checkpoint.stored_dtype();
        let (name, device) = (dtype.name(), device::describe(device));
        let note = match stored == dtype {
            true => format!("dtype      {name}, as the checkpoint stores it"),
            false => format!(
                "dtype      {name}: the checkpoint stores {}, which {device} does not support",
                stored.name()
            ),
        };
        match checkpoint.weight_format() {
            WeightFormat::Int8 if self == Self::Auto => Some(note + "; linear layers in int8"),
            WeightFormat::Int8 => Some(format!("dtype      {name}; linear layers in int8")),
            WeightFormat::Dtype => (self == Self::Auto).then_some(note),
        }
    }
}

/// The checkpoint at a path or of a name, or the one inside this program.
pub(crate) fn open(
    model: Option<&Path>,
    offline: bool,
    progress: &mut Progress,
) -> sparq_models::Result<Checkpoint> {
    match model {
        Some(model) => Checkpoint::open(hub::folder(model, offline, progress)?),
        None => demo::checkpoint(),
    }
}

/// As [`open`], for its texts alone: a folder need not hold weights.
pub(crate) fn open_without_weights(
    model: Option<&Path>,
    offline: bool,
    progress: &mut Progress,
) -> sparq_models::Result<Checkpoint> {
    match model {
        Some(model) => Checkpoint::open_without_weights(hub::folder(model, offline, progress)?),
        None => demo::checkpoint(),
    }
}

impl ModelArgs {
    /// True for the model inside the program.
    pub(crate) fn is_demo(&self) -> bool {
        self.model.is_none()
    }

    /// Opens the checkpoint, fetched where it must be, and finds the device and dtype.
    pub(crate) fn resolve(&self, progress: &mut Progress) -> anyhow::Result<(Checkpoint, Device, DType)> {
        let device = device::parse(&self.device)?;
        let checkpoint = open(self.model.as_deref(), self.offline, progress)?;
        let checkpoint = checkpoint.with_weight_format(self.weights.format());
        let dtype = self.dtype.resolve(&checkpoint, &device)?;
        Ok((checkpoint, device, dtype))
    }
}
