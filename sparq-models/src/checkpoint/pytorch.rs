//! PyTorch weight files: what `torch.save` writes for a state dict.
//!
//! `pytorch-reader` interprets the pickle as data: names that a pickle wants to call are looked up
//! in a table of tensor constructors and are never run, so a hostile file can at worst be refused.
//! Opening reads the pickle alone; the content of a tensor is read from the file when it is asked
//! for, strided and shared storages included.

mod calls;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pytorch_reader::{DType, FileFormat, PickleError, PickleValue, PytorchError, PytorchReader, Tensor};
use safetensors::Dtype;

use self::calls::Unread;
use super::content::{Content, NEEDED};
use super::error::{Damage, FileError, PYTORCH};
use super::source::Source;
use super::weights::{Location, Stored};
use crate::error::{Error, Result, shown};

/// Where training scripts put the state dict when they save more than it.
const NESTED_UNDER: [&str; 2] = ["state_dict", "model_state_dict"];

/// The tensors of the file at `path`.
///
/// # Errors
///
/// [`FileError::Pickle`] where the pickle names something that `torch.load` with `weights_only` refuses as
/// well: nothing of it would be run, and a file that asks for it is not what it claims to be.
/// [`FileError::Tensor`] for a tensor whose numbers are not those of the file.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Stored>> {
    let source = Source::open(path).and_then(|source| source.start(NEEDED));
    let start = source.map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let damaged = |damage| Error::from(FileError::Damaged { path: path.to_owned(), form: PYTORCH, damage });
    match Content::of(&start) {
        None | Some(Content::Zip | Content::Pickle) => {}
        Some(content) => return Err(damaged(Damage::Is(content))),
    }
    let failed = |error: PytorchError| match error {
        PytorchError::Pickle(PickleError::UnsupportedType(name)) if !is_of_state_dict(&name) => {
            FileError::Pickle { path: path.to_owned(), name }.into()
        }
        error => damaged(damage(&error)),
    };
    let read = PytorchReader::new(path);
    let unread = match &read {
        Ok(reader) if matches!(reader.metadata().format_type, FileFormat::Tar) => Ok(None),
        Ok(_) => calls::unread(path, None),
        Err(PytorchError::Pickle(PickleError::UnsupportedType(name))) => {
            calls::unread(path, Some(name)).or(Ok(None))
        }
        Err(_) => Ok(None),
    };
    let unread = unread.map_err(|error| failed(error.into()))?;
    if let Some(Unread { tensor, form }) = unread {
        return Err(FileError::Tensor { path: path.to_owned(), tensor, form }.into());
    }
    let tensors = read.map_err(failed)?.into_tensors();
    let values = PytorchReader::read_pickle_data(path, None).map_err(failed)?;
    if let Some(name) = stranger(&values) {
        return Err(FileError::Pickle { path: path.to_owned(), name: name.to_owned() }.into());
    }
    let tensors = unnest(tensors).into_iter().map(|(name, tensor)| {
        let (shape, dtype) = (tensor.shape().to_vec(), dtype(tensor.dtype()));
        (name, Stored { shape, dtype, location: Location::Pytorch(tensor) })
    });
    Ok(tensors.collect())
}

/// What an error of the reader means.
fn damage(error: &PytorchError) -> Damage {
    let detail = shown(error);
    let says = |words: &[&str]| words.iter().any(|words| detail.contains(words));
    let is_short = match error {
        PytorchError::Io(error) | PytorchError::Tar(error) => {
            error.kind() == std::io::ErrorKind::UnexpectedEof
        }
        PytorchError::Zip(_) => says(&["EOCD", "end of central directory"]),
        _ => says(&["failed to fill whole buffer", "beyond the end of the file"]),
    };
    match error {
        _ if is_short => Damage::CutShort { detail },
        _ if says(&["Big-endian"]) => Damage::BigEndian,
        PytorchError::Pickle(PickleError::UnsupportedType(_)) => Damage::Tensors { detail },
        _ if says(&["at the root of"]) => Damage::Tensors { detail },
        _ => Damage::Syntax { detail },
    }
}

/// The first name in a pickle that is no part of a state dict.
fn stranger(value: &PickleValue) -> Option<&str> {
    match value {
        PickleValue::List(values) => values.iter().find_map(stranger),
        PickleValue::Dict(values) => {
            let mut found: Vec<&str> = values.values().filter_map(stranger).collect();
            found.sort_unstable();
            found.first().copied()
        }
        PickleValue::Unsupported(name) => (!is_of_state_dict(name)).then_some(name),
        _ => None,
    }
}

/// Whether `torch.load` with `weights_only` knows a name, or it is that of a value the reader has no form for.
fn is_of_state_dict(name: &str) -> bool {
    const KNOWN: [&str; 11] = [
        "int",
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "__builtin__.bytearray",
        "__builtin__.complex",
        "__builtin__.set",
        "torch.nn.parameter.Parameter",
    ];
    const OF_TORCH: [&str; 17] = [
        "int", "uint", "float", "bfloat", "double", "half", "long", "short", "bool", "complex", "bits",
        "quint", "qint", "cfloat", "device", "strided", "per_",
    ];
    let of_torch = |rest: &str| {
        let is_class = rest.starts_with(|first: char| first.is_ascii_uppercase());
        !rest.contains('.') && (is_class || OF_TORCH.iter().any(|known| rest.starts_with(known)))
    };
    KNOWN.contains(&name)
        || name.strip_prefix("torch.").is_some_and(of_torch)
        || name.strip_prefix("torch.storage.").is_some_and(of_torch)
        || name.starts_with("torch._utils._rebuild_")
        || name == "torch.serialization._get_layout"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_state_dict_needs() {
        for known in [
            "torch.Size",
            "torch.device",
            "torch.float8_e4m3fn",
            "torch.bits8",
            "torch.per_tensor_affine",
            "torch.FloatStorage",
            "torch.storage.UntypedStorage",
            "torch.Tensor",
            "torch.nn.parameter.Parameter",
            "torch._utils._rebuild_parameter",
            "collections.OrderedDict",
            "collections.Counter",
            "_codecs.encode",
            "builtins.complex",
            "int",
        ] {
            assert!(is_of_state_dict(known), "{known}");
        }
        for other in [
            "posix.system",
            "nt.system",
            "builtins.eval",
            "__builtin__.print",
            "numpy._core.multiarray.scalar",
            "argparse.Namespace",
            "torch.load",
            "torch.compile",
            "torch.hub.load",
            "torch.storage._load_from_bytes",
            "torch.nn.Linear",
            "torch.jit.Save",
        ] {
            assert!(!is_of_state_dict(other), "{other}");
        }
    }

    #[test]
    fn a_name_is_found_wherever_it_stands() {
        let call = || PickleValue::Unsupported("posix.system".to_owned());
        let dict = |value| PickleValue::Dict(HashMap::from([("a".to_owned(), value)]));
        assert_eq!(
            stranger(&dict(PickleValue::List(vec![PickleValue::Int(1), dict(call())]))),
            Some("posix.system")
        );
        assert_eq!(stranger(&dict(PickleValue::Unsupported("torch.Tensor".to_owned()))), None);
    }
}
