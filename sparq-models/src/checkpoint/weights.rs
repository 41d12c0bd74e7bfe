//! Weight files: safetensors or PyTorch's, one file or the shards of an index.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use burn::tensor::DType;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::convert::FloatFormat;
use super::{map, parse_json, pytorch, read_if_exists};
use crate::config::ConfigFields;
use crate::error::{Error, Result};

/// Weight files in the order in which they are looked for: the first one that is there is read.
const CANDIDATES: &[(&str, Layout)] = &[
    ("model.safetensors", Layout::Single(Format::Safetensors)),
    ("model.safetensors.index.json", Layout::Sharded(Format::Safetensors)),
    ("pytorch_model.bin", Layout::Single(Format::Pytorch)),
    ("pytorch_model.bin.index.json", Layout::Sharded(Format::Pytorch)),
    ("pytorch_model.pt", Layout::Single(Format::Pytorch)),
    ("model.pt", Layout::Single(Format::Pytorch)),
    ("model.pth", Layout::Single(Format::Pytorch)),
];

#[derive(Debug, Clone, Copy)]
enum Layout {
    Single(Format),
    Sharded(Format),
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Safetensors,
    Pytorch,
}

/// Length in bytes of the field before the header that holds the header's length.
const HEADER_LENGTH_BYTES: usize = 8;

/// How a file begins that Git LFS left in place of the real one.
pub(super) const LFS_POINTER: [u8; 23] = *b"version https://git-lfs";

/// A stored tensor, as the header of its file describes it.
#[derive(Debug, Clone, Copy)]
pub struct TensorInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its axes, outermost first.
    pub shape: &'a [usize],
    /// The number format in which it is stored.
    pub dtype: Dtype,
    /// Its size in bytes.
    pub bytes: u64,
}

/// All tensors of a checkpoint, wherever they are stored.
#[derive(Debug)]
pub(super) struct Weights {
    files: Vec<FileBytes>,
    tensors: BTreeMap<String, Stored>,
    /// Any tensor that is asked for is made up.
    random: bool,
}

/// Where and how one tensor is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    pub(super) location: Location,
}

#[derive(Debug)]
pub(super) enum Location {
    /// In a file of `Weights::files`, at this range.
    Mapped { file: usize, range: Range<usize> },
    /// In a PyTorch file, which is read when the content is asked for.
    Pytorch(pytorch_reader::Tensor),
}

#[derive(Debug)]
enum FileBytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl FileBytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Static(bytes) => bytes,
        }
    }
}

impl Weights {
    /// Opens the weight files of folder `dir`; safetensors where there are both kinds.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new(), random: false };
        let Some((name, layout)) = CANDIDATES.iter().find(|(name, _)| dir.join(name).is_file()) else {
            let looked_for = CANDIDATES.iter().map(|&(name, _)| name).collect();
            return Err(Error::NoWeights {
                folder: dir.to_owned(),
                looked_for,
                found: weight_like_files(dir),
            });
        };
        let path = dir.join(name);
        match *layout {
            Layout::Single(format) => weights.tensors = weights.add_file(&path, format)?,
            Layout::Sharded(format) => {
                let json = parse_json(&path, &read_if_exists(&path)?.unwrap_or_default())?;
                let map = ConfigFields::new(&path, &json)?.required("weight_map")?;
                weights.add_shards(dir, &path, &map, format)?;
            }
        }
        Ok(weights)
    }

    /// Takes over the content of one weight file; `path` is for messages.
    pub(super) fn from_static(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        let tensors = read_header(path, bytes, 0)?;
        Ok(Self { files: vec![FileBytes::Static(bytes)], tensors, random: false })
    }

    /// Weights of any shape, made up when they are asked for.
    pub(super) fn random() -> Self {
        Self { files: Vec::new(), tensors: BTreeMap::new(), random: true }
    }

    pub(super) fn is_random(&self) -> bool {
        self.random
    }

    /// Adds the shards that `weight_map` (tensor → file name) names.
    fn add_shards(
        &mut self,
        dir: &Path,
        index: &Path,
        weight_map: &BTreeMap<String, String>,
        format: Format,
    ) -> Result<()> {
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        let missing = shards.iter().filter(|shard| !dir.join(shard).is_file());
        let missing: Vec<String> = missing.map(|&shard| shard.clone()).collect();
        if !missing.is_empty() {
            return Err(Error::ShardsMissing { index: index.to_owned(), shards: missing });
        }
        for &shard in &shards {
            let mut tensors = self.add_file(&dir.join(shard), format)?;
            let mut promised = weight_map.iter().filter(|&(_, file)| file == shard);
            if let Some((tensor, _)) = promised.find(|&(name, _)| !tensors.contains_key(name)) {
                return Err(Error::ShardLacksTensor {
                    index: index.to_owned(),
                    shard: shard.clone(),
                    tensor: tensor.clone(),
                });
            }
            // Of a tensor that is stored twice, the copy counts that the index names.
            tensors.retain(|name, _| weight_map.get(name).is_none_or(|file| file == shard));
            self.tensors.append(&mut tensors);
        }
        Ok(())
    }

    /// Opens a file and returns its tensors.
    fn add_file(&mut self, path: &Path, format: Format) -> Result<BTreeMap<String, Stored>> {
        match format {
            Format::Safetensors => {
                let bytes = map::map(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
                let tensors = read_header(path, &bytes, self.files.len())?;
                self.files.push(FileBytes::Mapped(bytes));
                Ok(tensors)
            }
            Format::Pytorch => pytorch::read(path),
        }
    }

    /// The stored tensor `name` under the name's own lifetime, if there is one.
    pub(super) fn get(&self, name: &str) -> Option<(&str, &Stored)> {
        let (name, stored) = self.tensors.get_key_value(name)?;
        Some((name, stored))
    }

    /// The content of a tensor of these weights, row-major. Mapped where the file allows it.
    pub(super) fn bytes(&self, stored: &Stored) -> std::io::Result<Cow<'_, [u8]>> {
        match &stored.location {
            Location::Mapped { file, range } => {
                Ok(Cow::Borrowed(&self.files[*file].as_slice()[range.clone()]))
            }
            Location::Pytorch(tensor) => tensor.read().map(Cow::Owned),
        }
    }

    /// Says that the content of a tensor is not needed for now.
    pub(super) fn release(&self, stored: &Stored) {
        if let Location::Mapped { file, range } = &stored.location
            && let FileBytes::Mapped(map) = &self.files[*file]
        {
            map::release(map, range);
        }
    }

    /// Description of the tensor `name`, if there is one.
    pub(super) fn info(&self, name: &str) -> Option<TensorInfo<'_>> {
        self.get(name).map(|(name, stored)| stored.info(name))
    }

    /// Descriptions of all tensors, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.tensors.iter().map(|(name, stored)| stored.info(name))
    }

    /// The float format of most bytes.
    pub(super) fn stored_dtype(&self) -> DType {
        let bytes_in = |format: FloatFormat| -> u64 {
            let tensors = self.iter();
            let same = tensors.filter(|tensor| FloatFormat::of_stored(tensor.dtype) == Some(format));
            same.map(|tensor| tensor.bytes).sum()
        };
        // The last of several maxima wins, so that f32 stands for "none of these".
        let formats = [FloatFormat::F16, FloatFormat::BF16, FloatFormat::F32];
        let most = formats.into_iter().max_by_key(|&format| bytes_in(format));
        most.map_or(DType::F32, FloatFormat::dtype)
    }
}

impl Stored {
    fn info<'a>(&'a self, name: &'a str) -> TensorInfo<'a> {
        let bytes = match &self.location {
            Location::Mapped { range, .. } => range.len(),
            Location::Pytorch(tensor) => tensor.byte_len(),
        } as u64;
        TensorInfo { name, shape: &self.shape, dtype: self.dtype, bytes }
    }
}

/// Reads the header of a weight file, which is file number `file`.
fn read_header(path: &Path, bytes: &[u8], file: usize) -> Result<BTreeMap<String, Stored>> {
    if bytes.starts_with(&LFS_POINTER) {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    let (header_length, header) = SafeTensors::read_metadata(bytes)
        .map_err(|source| Error::Safetensors { path: path.to_owned(), source })?;
    let data = HEADER_LENGTH_BYTES + header_length;
    let stored = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (start, end) = info.data_offsets;
        let range = data + start..data + end;
        let location = Location::Mapped { file, range };
        (name, Stored { shape: info.shape.clone(), dtype: info.dtype, location })
    };
    Ok(header.tensors().into_iter().map(stored).collect())
}

/// Names of the files in `dir` that look like weights of any kind, sorted.
pub(super) fn weight_like_files(dir: &Path) -> Vec<String> {
    let suffixes = [".safetensors", ".bin", ".pt", ".pth", ".gguf"];
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix))).collect();
    names.sort_unstable();
    names
}
