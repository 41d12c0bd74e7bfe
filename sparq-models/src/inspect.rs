//! What a checkpoint holds and what it needs, from `config.json` and the headers of its weight files.
//!
//! No weight is read, so that it takes no time for any size, and the architecture need not be one
//! that can be loaded: sizes that its configuration does not state in a known field are absent.
//!
//! ```no_run
//! use burn::tensor::DType;
//! use sparq_models::{checkpoint::Checkpoint, inspect::Inspection};
//!
//! # fn main() -> sparq_models::Result<()> {
//! let inspection = Inspection::new(&Checkpoint::open("path/to/model")?)?;
//! let memory = inspection.memory(DType::BF16, 32768);
//! println!("{} parameters, {} bytes of weights", inspection.parameters, memory.weight_bytes);
//! # Ok(())
//! # }
//! ```

mod generation;
mod memory;
mod rope;
mod sizes;
mod template;
mod tokenizer;

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::Serialize;

pub use generation::GenerationSummary;
pub use memory::{CacheMemory, Formats, Memory};
pub use rope::RopeSummary;
pub use sizes::Sizes;
pub use template::TemplateSummary;
pub use tokenizer::{TokenizerSummary, Vocabulary};

use crate::{
    checkpoint::{Checkpoint, Quantisation, TensorInfo, is_constant},
    error::{Error, Result},
    models::{self, Architecture},
};

/// Description of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The architecture that `config.json` names.
    pub architecture: String,
    /// Whether it can be loaded with this configuration.
    pub supported: bool,
    /// What in the configuration keeps a known architecture from being loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Sizes that the configuration states.
    #[serde(flatten)]
    pub sizes: Sizes,
    /// Rotary embeddings: one, or one per type of layer; none where the configuration states none.
    pub rope: Vec<RopeSummary>,
    /// Stored tensors.
    pub tensors: usize,
    /// Trained numbers, from the shapes of the stored tensors. Masks and frequencies that old files
    /// carry do not count, nor does the copy of an embedding that the output layer shares.
    pub parameters: u64,
    /// Parameters in tensors of one axis: norms and biases, which stay in f32 when loaded.
    pub vector_parameters: u64,
    /// Parameters of linear layers: what [`crate::weight::WeightFormat`] is about.
    #[serde(skip)]
    pub linear_parameters: u64,
    /// Outputs of all linear layers together.
    #[serde(skip)]
    pub linear_outputs: u64,
    /// Bytes of the stored tensors.
    pub stored_bytes: u64,
    /// The stored tensors by number format, by name.
    pub stored: Vec<StoredFormat>,
    /// How the weights are quantised, if they are: such a checkpoint is not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
    /// Chat templates by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chat_templates: Vec<TemplateSummary>,
}

/// The tensors that are stored in one number format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredFormat {
    /// Its name in the files, in lower case.
    pub dtype: String,
    /// Tensors in it.
    pub tensors: usize,
    /// Numbers in them.
    pub elements: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Inspection {
    /// Whether the weights can be loaded as they are stored: else their memory is not known.
    pub fn is_loadable(&self) -> bool {
        self.supported && self.quantisation.is_none()
    }

    /// Describes `checkpoint`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a `config.json` that names no architecture.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let fields = checkpoint.config_fields()?;
        let architecture = models::architecture_name(&fields)?;
        let config = Architecture::of(&fields).and_then(|known| known.config(&fields));
        let tied = match &config {
            Ok(config) => config.tied,
            Err(_) => fields.optional("tie_word_embeddings").ok().flatten().unwrap_or(false),
        };
        let copy = if tied { checkpoint.head_that_repeats_the_embedding() } else { None };
        let trained = |tensor: &TensorInfo<'_>| is_trained(tensor) && Some(tensor.name) != copy;
        let count = |is_counted: &dyn Fn(&TensorInfo<'_>) -> bool| -> u64 {
            let counted = checkpoint.tensors().filter(trained).filter(is_counted);
            counted.map(|tensor| elements(&tensor)).sum()
        };
        let linear = || checkpoint.tensors().filter(trained).filter(is_linear);
        Ok(Self {
            architecture: architecture.to_owned(),
            supported: config.is_ok(),
            problem: match &config {
                Err(error @ Error::Config { .. }) => Some(error.to_string()),
                _ => None,
            },
            sizes: config.as_ref().map_or_else(|_| Sizes::read(&fields), Sizes::of),
            rope: config.map_or_else(|_| rope::read(&fields), |config| RopeSummary::all(&config.ropes)),
            tensors: checkpoint.tensors().count(),
            parameters: count(&|_| true),
            vector_parameters: count(&|tensor| tensor.shape.len() == 1),
            linear_parameters: linear().map(|tensor| elements(&tensor)).sum(),
            linear_outputs: linear().map(|tensor| tensor.shape[0] as u64).sum(),
            stored_bytes: checkpoint.weight_bytes(),
            stored: stored(checkpoint),
            quantisation: checkpoint.quantisation(),
            chat_templates: template::templates(checkpoint),
        })
    }
}

fn elements(tensor: &TensorInfo<'_>) -> u64 {
    tensor.shape.iter().map(|&axis| axis as u64).product()
}

/// Whether a tensor holds numbers of its own that training made.
fn is_trained(tensor: &TensorInfo<'_>) -> bool {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    let is_float = !matches!(tensor.dtype, BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64);
    is_float && !is_constant(tensor.name)
}

/// Whether a tensor is the weight of a linear layer: embeddings have two axes too.
fn is_linear(tensor: &TensorInfo<'_>) -> bool {
    let is_embedding =
        ["embed_tokens.weight", "embed_in.weight"].iter().any(|end| tensor.name.ends_with(end));
    tensor.shape.len() == 2 && !is_embedding
}

fn stored(checkpoint: &Checkpoint) -> Vec<StoredFormat> {
    let mut formats = BTreeMap::<String, StoredFormat>::new();
    for tensor in checkpoint.tensors() {
        let dtype = tensor.dtype.to_string().to_lowercase();
        let format = formats.entry(dtype.clone()).or_insert_with(|| StoredFormat {
            dtype,
            tensors: 0,
            elements: 0,
            bytes: 0,
        });
        format.tensors += 1;
        format.elements += elements(&tensor);
        format.bytes += tensor.bytes;
    }
    formats.into_values().collect()
}

#[cfg(test)]
mod tests;
