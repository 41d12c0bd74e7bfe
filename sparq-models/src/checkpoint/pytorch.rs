//! PyTorch weight files: what `torch.save` writes for a state dict.
//!
//! `pytorch-reader` interprets the pickle as data: names that a pickle wants to call are looked up
//! in a table of tensor constructors and are never run, so a hostile file can at worst be refused.
//! Opening reads the pickle alone; the content of a tensor is read from the file when it is asked
//! for, strided and shared storages included.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pytorch_reader::{DType, PytorchReader, Tensor};
use safetensors::Dtype;

use super::weights::{LFS_POINTER, Location, Stored};
use crate::error::{Error, Result};

/// Where training scripts put the state dict when they save more than it.
const NESTED_UNDER: [&str; 2] = ["state_dict", "model_state_dict"];

/// The tensors of the file at `path`.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Stored>> {
    let mut start = [0; LFS_POINTER.len()];
    let mut file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    if file.read_exact(&mut start).is_ok() && start == LFS_POINTER {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    let fail = |source| Error::Pytorch { path: path.to_owned(), source: Box::new(source) };
    let tensors = PytorchReader::new(path).map_err(fail)?.into_tensors();
    let tensors = unnest(tensors).into_iter().map(|(name, tensor)| {
        let (shape, dtype) = (tensor.shape().to_vec(), dtype(tensor.dtype()));
        (name, Stored { shape, dtype, location: Location::Pytorch(tensor) })
    });
    Ok(tensors.collect())
}

/// Takes the state dict out of a checkpoint that nests it.
fn unnest(tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let inner = |key: &&str| {
        let prefix = format!("{key}.");
        let inner = tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(prefix.as_str())?.to_owned(), tensor.clone()))
        });
        let inner: HashMap<_, _> = inner.collect();
        (!inner.is_empty()).then_some(inner)
    };
    NESTED_UNDER.iter().find_map(inner).unwrap_or(tensors)
}

/// The same number format under the name that safetensors have for it.
fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
