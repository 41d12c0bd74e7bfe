//! Loading weights tensor by tensor, with every mismatch reported at the end.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use sparq_core::{
    KtFormat,
    device::{Limits, require_kt},
    weight::QuantizedWeight,
};

use super::constants::is_constant;
use super::convert::{FloatFormat, Unloadable, convert};
use super::random;
use super::report::{Misshapen, Missing, NonFinite, Unreadable, Unsupported, WeightReport};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::weight::{LinearWeight, WeightFormat};

/// Puts the tensors of a checkpoint on a device, each once, in its final number format.
///
/// A model asks for its tensors one after another. A tensor that does not fit gives no error at
/// once but a placeholder of zeros with the shape that was asked for, and [`finish`](Self::finish)
/// names all problems together. From the first one on only headers are checked, so a checkpoint
/// of the wrong model fails quickly.
///
/// Weights on their way take the memory of one tensor besides those that are loaded.
pub struct Loader<'a> {
    weights: &'a Weights,
    device: Device,
    limits: Limits,
    dtype: DType,
    weight_format: WeightFormat,
    progress: &'a mut dyn FnMut(u64, u64),
    /// Names of the tensors that were asked for or are to be ignored.
    claimed: HashSet<&'a str>,
    loaded_bytes: u64,
    total_bytes: u64,
    report: WeightReport,
}

/// How the output projection lies beside the embedding table that the configuration ties it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    /// There is the table alone, or a copy of it as well.
    Shared,
    /// There is no table: the projection is both.
    HeadAlone,
    /// There are two that differ: the configuration is wrong.
    Different,
}

/// Elements of a placeholder that are shown under their axes: sizes that do not fit may be absurd.
const LARGEST_PLACEHOLDER: usize = 1 << 20;

impl<'a> Loader<'a> {
    pub(super) fn new(
        weights: &'a Weights,
        location: &Path,
        device: &Device,
        (dtype, weight_format): (DType, WeightFormat),
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        if weight_format == WeightFormat::Int8 {
            // Codes lie in words of 32 bits, as those of keys do.
            require_kt(device, KtFormat::Int8)?;
        }
        if !can_hold(device, dtype) {
            return Err(Error::UnsupportedDtype { dtype, device: sparq_core::device::describe(device) });
        }
        let mut loader = Self {
            weights,
            device: device.clone(),
            limits: Limits::of(device),
            dtype,
            weight_format,
            progress,
            claimed: HashSet::new(),
            loaded_bytes: 0,
            total_bytes: weights.iter().map(|tensor| tensor.bytes).sum(),
            report: WeightReport {
                location: location.to_owned(),
                unread_index: weights.unread_index().map(Path::to_owned),
                ..WeightReport::default()
            },
        };
        loader.ignore(is_constant);
        Ok(loader)
    }

    /// Takes other limits than those of the device.
    #[cfg(test)]
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The device that the tensors are put on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number format that tensors are loaded as, where no other is asked for.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether the checkpoint holds a tensor `name`. One with random weights holds what a model cannot
    /// do without, and nothing beside it.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.get(name).is_some()
    }

    /// Loads tensor `name` with axes `dims`.
    pub fn tensor<const D: usize>(&mut self, name: &str, dims: [usize; D]) -> Tensor<D> {
        self.tensor_as(name, dims, self.dtype)
    }

    /// Loads tensor `name` with axes `dims` as `dtype`: for tensors that stay in f32, such as norms.
    pub fn tensor_as<const D: usize>(&mut self, name: &str, dims: [usize; D], dtype: DType) -> Tensor<D> {
        match self.read(name, &dims, dtype) {
            Some(data) => Tensor::from_data(data, (&self.device, dtype)),
            None => self.placeholder(dims),
        }
    }

    /// Loads the weight `name` of a linear layer, `[outputs, inputs]`, in the format for those.
    pub fn linear_weight(&mut self, name: &str, dims: [usize; 2]) -> LinearWeight {
        if self.weight_format == WeightFormat::Dtype {
            return LinearWeight::Plain(self.tensor(name, dims));
        }
        let values = self.read(name, &dims, DType::F32).and_then(|data| data.try_into_vec_as::<f32>().ok());
        match values {
            Some(values) => LinearWeight::Int8(Box::new(QuantizedWeight::new(&values, dims, &self.device))),
            None => LinearWeight::Plain(self.placeholder(dims)),
        }
    }

    /// One zero seen through all axes: most backends hold it without memory.
    fn placeholder<const D: usize>(&self, dims: [usize; D]) -> Tensor<D> {
        let zero = Tensor::<D>::zeros([1; D], (&self.device, self.dtype));
        let elements = dims.iter().try_fold(1, |product: usize, &axis| product.checked_mul(axis));
        match elements {
            Some(0..=LARGEST_PLACEHOLDER) => zero.expand(dims),
            _ => zero,
        }
    }

    /// Whether every tensor so far fits, going by the headers.
    pub fn fits(&self) -> bool {
        !self.report.has_mismatch()
    }

    /// How many of `wanted` layers to load, whose tensors are called `{prefix}.{index}.…`: all of them,
    /// or the first where the checkpoint holds none, for a report of what is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the checkpoint holds fewer.
    pub fn layers(&self, prefix: &str, wanted: usize) -> Result<usize> {
        if self.weights.is_random() {
            return Ok(wanted);
        }
        let index = |name: &str| {
            let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
            rest.split('.').next()?.parse::<usize>().ok()
        };
        let stored = self.weights.iter().filter_map(|tensor| index(tensor.name)).max();
        match stored {
            Some(last) if wanted > last.saturating_add(1) => Err(Error::Config {
                path: self.report.location.join("config.json"),
                message: format!(
                    "num_hidden_layers = {wanted}, and the last layer of the weights is `{prefix}.{last}`: they \
                     seem to come from different models"
                ),
            }),
            Some(_) => Ok(wanted),
            None => Ok(wanted.min(1)),
        }
    }

    /// How the tensors `embedding` and `head` lie beside each other. A copy is not loaded.
    pub fn tie(&mut self, embedding: &str, head: &str) -> Tie {
        match (self.weights.get(embedding), self.weights.get(head)) {
            (None, Some(_)) => Tie::HeadAlone,
            (Some((_, table)), Some((_, output))) if !self.weights.are_equal(table, output) => Tie::Different,
            _ => {
                self.ignore(|tensor| tensor == head);
                Tie::Shared
            }
        }
    }

    /// Accepts tensors that the model does not use, such as `rotary_emb.inv_freq` of old files.
    pub fn ignore(&mut self, is_harmless: impl Fn(&str) -> bool) {
        for tensor in self.weights.iter().filter(|tensor| is_harmless(tensor.name)) {
            if self.claimed.insert(tensor.name) {
                self.total_bytes -= tensor.bytes;
            }
        }
    }

    /// Ends loading.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] with every tensor that was missing, misshapen, in an unsupported number
    /// format or not finite, and every tensor that was neither loaded nor ignored.
    pub fn finish(mut self) -> Result<()> {
        let names = self.weights.iter().map(|tensor| tensor.name);
        // What a shard holds beside its own, transformers leaves where the model has no use for it.
        let unused = names.filter(|name| !self.claimed.contains(name) && !self.weights.is_unlisted(name));
        self.report.unused = unused.map(str::to_owned).collect();
        if self.report.is_empty() {
            return Ok(());
        }
        self.report.suggest_names();
        Err(Error::Weights(Box::new(self.report)))
    }

    /// Checks and reads one tensor; nothing, if it does not fit or nothing is read any more.
    fn read(&mut self, name: &str, dims: &[usize], wanted: DType) -> Option<TensorData> {
        if self.weights.is_random()
            && let Some(format) = FloatFormat::of_tensor(wanted)
        {
            let data = random::tensor(name, dims, format);
            self.loaded_bytes += (data.num_elements() * self.dtype.size()) as u64;
            (self.progress)(self.loaded_bytes, self.loaded_bytes);
            return Some(data);
        }
        let Some((name, stored)) = self.weights.get(name) else {
            self.report.missing.push(Missing { name: name.to_owned(), closest: None });
            return None;
        };
        let is_first_use = self.claimed.insert(name);
        if stored.shape != dims {
            self.report.misshapen.push(Misshapen {
                name: name.to_owned(),
                found: stored.shape.clone(),
                expected: dims.to_vec(),
            });
        }
        let from = FloatFormat::of_stored(stored.dtype);
        let to = FloatFormat::of_tensor(wanted).filter(|_| can_hold(&self.device, wanted));
        let (Some(from), Some(to)) = (from, to) else {
            let device = from.is_some().then(|| sparq_core::device::describe(&self.device));
            let (name, stored) = (name.to_owned(), stored.dtype);
            self.report.unsupported.push(Unsupported { name, stored, wanted, device });
            return None;
        };
        if let Err(error) = self.limits.check(name, dims, wanted) {
            self.report.too_large.push(error);
        }
        if self.report.has_mismatch() {
            return None;
        }
        // A tensor that is used twice counts once, so that progress ends at the total.
        let mut progress = |bytes: u64| {
            if is_first_use {
                self.loaded_bytes += bytes;
            }
            (self.progress)(self.loaded_bytes, self.total_bytes);
        };
        let bytes = self.weights.bytes(stored).map_err(Unloadable::Unreadable);
        match bytes.and_then(|bytes| convert(from, &bytes, dims, to, &mut progress)) {
            Ok(data) => Some(data),
            Err(Unloadable::NonFinite(element)) => {
                let (name, stored) = (name.to_owned(), stored.dtype);
                self.report.non_finite.push(NonFinite { name, element, stored, wanted });
                None
            }
            Err(Unloadable::Unreadable(error)) => {
                self.report.unreadable.push(Unreadable { name: name.to_owned(), message: describe(&error) });
                None
            }
        }
    }
}

/// What reading a file says; an end that comes too soon in words for users.
fn describe(error: &io::Error) -> String {
    match (error.kind(), error.get_ref()) {
        (io::ErrorKind::UnexpectedEof, None) => "the file was cut short while it was read".to_owned(),
        _ => error.to_string(),
    }
}

/// Whether weights can be loaded as `dtype` on `device`.
fn can_hold(device: &Device, dtype: DType) -> bool {
    FloatFormat::of_tensor(dtype).is_some() && device.supports_dtype(dtype)
}

impl fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("device", &self.device)
            .field("dtype", &self.dtype)
            .field("loaded_bytes", &self.loaded_bytes)
            .field("total_bytes", &self.total_bytes)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
