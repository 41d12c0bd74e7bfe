//! Weight files: safetensors or PyTorch's, one file or the shards of an index.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use rayon::prelude::*;
use safetensors::Dtype;

use super::convert::FloatFormat;
use super::error::FileError;
use super::index::Index;
use super::names::{self, Format, Layout};
use super::source::{Source, TensorBytes};
use super::{header, pytorch};
use crate::error::{Error, Result};

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
    sources: Vec<Source>,
    tensors: BTreeMap<String, Stored>,
    /// Tensors of shards that their index does not list.
    unlisted: HashSet<String>,
    /// An index that lies beside a single file and is not read.
    unread_index: Option<PathBuf>,
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
    /// In a file of `Weights::sources`, at this range.
    Source { source: usize, range: Range<u64> },
    /// In a PyTorch file, which is read when the content is asked for.
    Pytorch(pytorch_reader::Tensor),
}

impl Weights {
    /// No weights.
    pub(super) fn none() -> Self {
        Self {
            sources: Vec::new(),
            tensors: BTreeMap::new(),
            unlisted: HashSet::new(),
            unread_index: None,
            random: false,
        }
    }

    /// Opens the weight files of folder `dir`; safetensors where there are both kinds.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut weights = Self::none();
        let files = files(dir);
        let (name, layout) = names::choose(&files).map_err(|lack| no_weights(dir, lack))?;
        let path = dir.join(&name);
        match layout {
            Layout::Single(format) => {
                weights.tensors = weights.add_file(&path, format)?;
                let index = dir.join(format!("{name}.index.json"));
                weights.unread_index = index.is_file().then_some(index);
            }
            Layout::Sharded => weights.add_shards(dir, &Index::read(&path)?)?,
        }
        Ok(weights)
    }

    /// Takes over the content of one weight file; `path` is for messages.
    pub(super) fn from_static(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        let mut weights = Self::none();
        weights.tensors = weights.add_safetensors(path, Source::Static(bytes))?;
        Ok(weights)
    }

    /// Weights of any shape, made up when they are asked for.
    pub(super) fn random() -> Self {
        Self { random: true, ..Self::none() }
    }

    pub(super) fn is_random(&self) -> bool {
        self.random
    }

    /// Whether an index does not list the tensor `name`, which a shard holds beside its own.
    pub(super) fn is_unlisted(&self, name: &str) -> bool {
        self.unlisted.contains(name)
    }

    /// An index that lies beside the single weight file and is not read.
    pub(super) fn unread_index(&self) -> Option<&Path> {
        self.unread_index.as_deref()
    }

    /// Adds the shards that `index` names. As in transformers, all that they hold counts, and of a tensor
    /// that is stored twice the copy in the last shard.
    fn add_shards(&mut self, dir: &Path, index: &Index) -> Result<()> {
        index.check_files(dir)?;
        for (shard, format) in index.shards() {
            let mut tensors = self.add_file(&dir.join(shard), format)?;
            index.check_tensors(shard, |tensor| tensors.contains_key(tensor))?;
            self.unlisted.extend(tensors.keys().filter(|name| !index.lists(name)).cloned());
            self.tensors.append(&mut tensors);
        }
        Ok(())
    }

    /// Opens a file and returns its tensors.
    fn add_file(&mut self, path: &Path, format: Format) -> Result<BTreeMap<String, Stored>> {
        match format {
            Format::Safetensors => {
                let failed = |source| Error::Io { path: path.to_owned(), source };
                self.add_safetensors(path, Source::open(path).map_err(failed)?)
            }
            Format::Pytorch => pytorch::read(path),
        }
    }

    fn add_safetensors(&mut self, path: &Path, source: Source) -> Result<BTreeMap<String, Stored>> {
        let header::Header { metadata, data } = header::read(path, &source)?;
        let number = self.sources.len();
        self.sources.push(source);
        let stored = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (start, end) = info.data_offsets;
            let range = data + start as u64..data + end as u64;
            let location = Location::Source { source: number, range };
            (name, Stored { shape: info.shape.clone(), dtype: info.dtype, location })
        };
        Ok(metadata.tensors().into_iter().map(stored).collect())
    }

    /// Gives tensors other names; one whose new name is taken keeps its own.
    pub(super) fn rename(&mut self, renamed: impl Fn(&str) -> Option<String>) {
        let names: Vec<(String, String)> =
            self.tensors.keys().filter_map(|name| Some((name.clone(), renamed(name)?))).collect();
        for (old, new) in names {
            if self.tensors.contains_key(&new) {
                continue;
            }
            if self.unlisted.remove(&old) {
                self.unlisted.insert(new.clone());
            }
            if let Some(stored) = self.tensors.remove(&old) {
                self.tensors.insert(new, stored);
            }
        }
    }

    /// The stored tensor `name` under the name's own lifetime, if there is one.
    pub(super) fn get(&self, name: &str) -> Option<(&str, &Stored)> {
        let (name, stored) = self.tensors.get_key_value(name)?;
        Some((name, stored))
    }

    /// The content of a tensor of these weights, row-major.
    pub(super) fn bytes(&self, stored: &Stored) -> io::Result<TensorBytes<'_>> {
        match &stored.location {
            Location::Source { source, range } => {
                Ok(TensorBytes::Stored { source: &self.sources[*source], range: range.clone() })
            }
            Location::Pytorch(tensor) => tensor.read().map(TensorBytes::Read),
        }
    }

    /// Whether two tensors hold the same bytes. Ends at the first difference.
    pub(super) fn are_equal(&self, left: &Stored, right: &Stored) -> bool {
        /// Bytes that one thread compares at a time.
        const PART: usize = 1 << 20;
        if (&left.shape, left.dtype) != (&right.shape, right.dtype) {
            return false;
        }
        let (Ok(left), Ok(right)) = (self.bytes(left), self.bytes(right)) else { return false };
        let length = left.len();
        let is_equal = |start: usize| {
            let mut parts = [vec![0; PART.min(length - start)], vec![0; PART.min(length - start)]];
            let [a, b] = &mut parts;
            left.read(start, a).is_ok() && right.read(start, b).is_ok() && a == b
        };
        (0..length.div_ceil(PART)).into_par_iter().all(|part| is_equal(part * PART))
    }

    /// Description of the tensor `name`, if there is one.
    pub(super) fn info(&self, name: &str) -> Option<TensorInfo<'_>> {
        self.get(name).map(|(name, stored)| stored.info(name))
    }

    /// Descriptions of all tensors, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = TensorInfo<'_>> + Clone {
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
            Location::Source { range, .. } => (range.end - range.start) as usize,
            Location::Pytorch(tensor) => tensor.byte_len(),
        } as u64;
        TensorInfo { name, shape: &self.shape, dtype: self.dtype, bytes }
    }
}

/// The names of the files in `dir`, sorted; links count as what they lead to.
pub(super) fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| dir.join(name).is_file()).collect();
    names.sort_unstable();
    names
}

/// Why there are no weights in `dir`: what is there, or what lies in the place of a weight file.
fn no_weights(dir: &Path, lack: names::Lack) -> Error {
    let in_the_way = |name: &str| {
        let path = dir.join(name);
        if path.is_dir() {
            Some(FileError::Folder { path })
        } else {
            path.is_symlink().then_some(FileError::BrokenLink { path })
        }
    };
    let error = names::known().find_map(in_the_way);
    error.unwrap_or(FileError::NoWeights { folder: dir.to_owned(), lack }).into()
}
