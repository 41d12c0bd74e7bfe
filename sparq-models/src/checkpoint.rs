//! A model folder as Hugging Face lays it out: configuration, tokenizer and weights.
//!
//! Opening reads the small files and the headers of the weight files, so that it is quick for any
//! size. The weights are read tensor by tensor and go to the device in their final number format,
//! through a [`Loader`].

mod base;
mod constants;
mod content;
mod convert;
mod error;
mod header;
pub(crate) mod index;
pub(crate) mod json;
mod loader;
pub(crate) mod names;
mod pytorch;
mod quantisation;
mod random;
mod report;
mod source;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use serde::Serialize;
use serde_json::Value;

use base::Base;
pub(crate) use constants::is_constant;
pub use content::Content;
pub use error::{Damage, FileError, IndexProblem};
pub use loader::{Loader, Tie};
pub use names::{Kind, Lack};
pub use quantisation::Quantisation;
pub use report::{Misshapen, Missing, NonFinite, Unreadable, Unsupported, WeightReport};
pub use weights::TensorInfo;

use crate::config::{self, ConfigFields, GenerationConfig};
use crate::error::{Error, Result};
use crate::models::{self, Architecture};
use crate::tokenizer::{Tokenizer, TokenizerConfig, TokenizerFiles};
use crate::weight::WeightFormat;
pub(crate) use error::model_name;
pub(crate) use json::{parse as parse_json, parse_as as parse_json_as, read_if_exists};
use weights::Weights;

/// An opened model: its configuration is read, its weights are found and not yet loaded.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder, or a name for embedded files, for messages.
    location: PathBuf,
    config_path: PathBuf,
    config: Value,
    generation: GenerationConfig,
    tokenizer: TokenizerSource,
    weights: Weights,
    weight_format: WeightFormat,
}

/// The files of a model that is part of the program, for [`Checkpoint::from_static`].
#[derive(Debug, Clone, Copy)]
pub struct StaticFiles {
    /// `config.json`.
    pub config: &'static [u8],
    /// `generation_config.json`, if the model has one.
    pub generation_config: Option<&'static [u8]>,
    /// `tokenizer.json`, if the model has one.
    pub tokenizer: Option<&'static [u8]>,
    /// `model.safetensors`.
    pub weights: &'static [u8],
}

/// A token that ends a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndToken {
    /// Its id.
    pub id: u32,
    /// Its spelling, where a tokenizer knows it.
    pub piece: Option<String>,
    /// What names it: `config.json`, `generation_config.json`, `tokenizer`.
    pub named_by: Vec<&'static str>,
}

#[derive(Debug)]
enum TokenizerSource {
    File(PathBuf),
    Static(Option<&'static [u8]>),
}

impl Checkpoint {
    /// Opens the model in folder `dir`: `config.json`, the weights, and `generation_config.json` if
    /// it is there.
    ///
    /// The weights are `model.safetensors` or the shards that `model.safetensors.index.json` names.
    /// Where there are neither, they are PyTorch's `pytorch_model.bin`, the shards of
    /// `pytorch_model.bin.index.json`, or `pytorch_model.pt`, `model.pt` or `model.pth`, or the only
    /// weight file of another name.
    ///
    /// Tensors of a checkpoint of the base model, without the output layer, are known by the names that they
    /// have within the whole model.
    ///
    /// Weights that are cut short while they are loaded end in an error.
    ///
    /// # Errors
    ///
    /// Files that are missing, damaged or at odds with each other.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut checkpoint = Self::open_without_weights(dir)?;
        checkpoint.weights = Weights::open(dir)?;
        if let Ok(architecture) = Architecture::of(&checkpoint.config_fields()?) {
            let base = Base::of(architecture.model_type);
            checkpoint.weights.rename(|name| base.renamed(name));
        }
        Ok(checkpoint)
    }

    /// Opens the model in folder `dir` for its texts: weights need not be there, and it has none.
    ///
    /// # Errors
    ///
    /// A folder or `config.json` that is missing, and files that are damaged.
    pub fn open_without_weights(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            return Err(Error::FolderNotFound { path: dir.to_owned() });
        }
        let config_path = dir.join("config.json");
        let Some(config) = read_if_exists(&config_path)? else {
            return Err(no_config(config_path, dir));
        };
        let generation_path = dir.join("generation_config.json");
        let generation = read_if_exists(&generation_path)?;
        let config = parse_json(&config_path, &config)?;
        let generation = read_generation(&generation_path, generation.as_deref(), (&config_path, &config))?;
        Ok(Self {
            location: dir.to_owned(),
            config,
            config_path,
            generation,
            tokenizer: TokenizerSource::File(dir.join("tokenizer.json")),
            weights: Weights::none(),
            weight_format: WeightFormat::default(),
        })
    }

    /// Opens a model whose files were embedded with [`include_bytes!`].
    ///
    /// # Errors
    ///
    /// Files that are damaged.
    pub fn from_static(files: StaticFiles) -> Result<Self> {
        let location = PathBuf::from("embedded model");
        let config_path = location.join("config.json");
        let generation_path = location.join("generation_config.json");
        let config = parse_json(&config_path, files.config)?;
        let generation = read_generation(&generation_path, files.generation_config, (&config_path, &config))?;
        Ok(Self {
            config,
            config_path,
            generation,
            tokenizer: TokenizerSource::Static(files.tokenizer),
            weights: Weights::from_static(&location.join("model.safetensors"), files.weights)?,
            weight_format: WeightFormat::default(),
            location,
        })
    }

    /// A model of the shape that `config` states, in the form of `config.json`, with random weights and
    /// no tokenizer: for measuring speed without a download. `name` is for messages.
    pub fn with_random_weights(name: &str, config: Value) -> Self {
        let location = PathBuf::from(name);
        Self {
            config_path: location.join("config.json"),
            location,
            config,
            generation: GenerationConfig::default(),
            tokenizer: TokenizerSource::Static(None),
            weights: Weights::random(),
            weight_format: WeightFormat::default(),
        }
    }

    /// Loads the weights of linear layers in another format than the rest.
    pub fn with_weight_format(self, weight_format: WeightFormat) -> Self {
        Self { weight_format, ..self }
    }

    /// How the weights of linear layers are loaded.
    pub fn weight_format(&self) -> WeightFormat {
        self.weight_format
    }

    /// The architecture that `config.json` names, such as `LlamaForCausalLM`; its `model_type`,
    /// such as `llama`, if it names none.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the file has neither.
    pub fn architecture(&self) -> Result<&str> {
        models::architecture_name(&self.config_fields()?)
    }

    /// `config.json` as it is.
    pub fn config_json(&self) -> &Value {
        &self.config
    }

    /// The fields of `config.json`, for reading them with errors that name file and field.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the file holds no JSON object.
    pub fn config_fields(&self) -> Result<ConfigFields<'_>> {
        ConfigFields::new(&self.config_path, &self.config)
    }

    /// What `generation_config.json` says; all fields absent if there is no such file.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Every token that ends a text: those that `config.json`, `generation_config.json` and the tokenizer
    /// name, ascending. Without a tokenizer their spelling is not known.
    pub fn ends(&self, tokenizer: Option<&Tokenizer>) -> Vec<EndToken> {
        let by_tokenizer = tokenizer.map(Tokenizer::end_ids).unwrap_or_default();
        let sources = [
            ("config.json", &self.generation.config_eos_token_ids),
            ("generation_config.json", &self.generation.eos_token_ids),
            ("tokenizer", &by_tokenizer),
        ];
        let mut ends = BTreeMap::<u32, Vec<&'static str>>::new();
        for (source, ids) in sources {
            for &id in ids {
                let named_by = ends.entry(id).or_default();
                if !named_by.contains(&source) {
                    named_by.push(source);
                }
            }
        }
        let piece = |id| tokenizer.and_then(|tokenizer| tokenizer.id_to_token(id));
        ends.into_iter().map(|(id, named_by)| EndToken { id, piece: piece(id), named_by }).collect()
    }

    /// Reads `tokenizer.json`, which a checkpoint may lack until text is needed, and what the files beside it
    /// say about tokens.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if there is none, [`Error::Tokenizer`] if it is damaged, and those of
    /// [`tokenizer_config`](Self::tokenizer_config).
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let path = match &self.tokenizer {
            TokenizerSource::File(path) => path.clone(),
            TokenizerSource::Static(_) => self.location.join("tokenizer.json"),
        };
        let bytes = match &self.tokenizer {
            TokenizerSource::File(path) => read_if_exists(path)?,
            TokenizerSource::Static(bytes) => bytes.map(<[u8]>::to_vec),
        };
        match bytes {
            Some(bytes) => {
                let config = self.tokenizer_config_beside(&|| is_byte_level(&bytes))?;
                Tokenizer::with_config(&path, &bytes, &config)
            }
            None => {
                let found = names::OTHER_TOKENIZERS.iter().filter(|name| path.with_file_name(name).exists());
                Err(Error::NoTokenizer { found: found.map(|&name| name.to_owned()).collect(), path })
            }
        }
    }

    /// What the folder says about its tokenizer beside `tokenizer.json`: special tokens by role and
    /// chat templates. Empty for embedded files.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Config`] for files that are damaged.
    pub fn tokenizer_config(&self) -> Result<TokenizerConfig> {
        self.tokenizer_config_beside(&|| match &self.tokenizer {
            TokenizerSource::File(path) => fs::read(path).is_ok_and(|bytes| is_byte_level(&bytes)),
            TokenizerSource::Static(_) => false,
        })
    }

    fn tokenizer_config_beside(&self, is_byte_level: &dyn Fn() -> bool) -> Result<TokenizerConfig> {
        if !matches!(self.tokenizer, TokenizerSource::File(_)) {
            return Ok(TokenizerConfig::default());
        }
        let read = |name| -> Result<_> {
            let path = self.location.join(name);
            let Some(bytes) = read_if_exists(&path)? else { return Ok(Default::default()) };
            let order = parse_json_as(&path, &bytes)?;
            Ok((Some(parse_json(&path, &bytes)?), order))
        };
        let (config, order) = read("tokenizer_config.json")?;
        let ((map, map_order), (added, _)) = match TokenizerConfig::reads_map(config.as_ref()) {
            true => (read("special_tokens_map.json")?, read("added_tokens.json")?),
            false => Default::default(),
        };
        let files = TokenizerFiles {
            model: Some(&self.config),
            config: config.as_ref(),
            special_tokens_map: map.as_ref(),
            added_tokens: added.as_ref(),
            orders: [&order, &map_order],
            is_byte_level,
        };
        TokenizerConfig::new(&self.location, &files)
    }

    /// The number format of most bytes of the weights: f32, f16 or bf16; f32 if there are none of
    /// these. For random weights, the one that the configuration names.
    pub fn stored_dtype(&self) -> DType {
        match self.weights.is_random() {
            true => self.config_fields().ok().and_then(|fields| config::stored_dtype(&fields).ok()?),
            false => Some(self.weights.stored_dtype()),
        }
        .unwrap_or(DType::F32)
    }

    /// How the weights are quantised, if they are: such weights are not loaded.
    pub fn quantisation(&self) -> Option<Quantisation> {
        Quantisation::of_config(&self.config).or_else(|| Quantisation::of_tensors(self.weights.iter()))
    }

    /// Size of all weights in bytes, as they are stored.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Name, shape and format of every stored tensor, by name, from the headers alone.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.weights.iter()
    }

    /// Shape and format of the stored tensor `name`, if there is one.
    pub fn tensor_info(&self, name: &str) -> Option<TensorInfo<'_>> {
        self.weights.info(name)
    }

    /// The output projection in the file, where it is a copy of the embedding table. Both are read.
    pub(crate) fn head_that_repeats_the_embedding(&self) -> Option<&str> {
        let find = |names: [&str; 2]| names.into_iter().find_map(|name| self.weights.get(name));
        let (_, table) = find(["model.embed_tokens.weight", "gpt_neox.embed_in.weight"])?;
        let (name, head) = find(["lm_head.weight", "embed_out.weight"])?;
        self.weights.are_equal(table, head).then_some(name)
    }

    /// Starts loading the weights onto `device` as `dtype`: f32, f16 or bf16.
    ///
    /// `progress` is called with the bytes loaded so far and the bytes to load in all, as stored.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedDtype`] if the device cannot hold `dtype`, or it is another format;
    /// [`FileError::Quantised`].
    pub fn loader<'a>(
        &'a self,
        device: &Device,
        dtype: DType,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Loader<'a>> {
        if let Some(scheme) = self.quantisation().filter(|_| !self.weights.is_random()) {
            return Err(FileError::Quantised { folder: self.location.clone(), scheme }.into());
        }
        Loader::new(&self.weights, &self.location, device, (dtype, self.weight_format), progress)
    }
}

/// Whether a `tokenizer.json` has a byte-level part, as transformers looks for it.
fn is_byte_level(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains("\"ByteLevel\"")
}

/// Why there is no `config.json` in `dir`: an adapter has none, nor has a GGUF file, nor the folder of a model
/// in the cache of the hub.
fn no_config(path: PathBuf, dir: &Path) -> Error {
    if let Some(model) = error::cached_model(dir) {
        return FileError::CacheFolder { folder: dir.to_owned(), model }.into();
    }
    match names::choose(&weights::files(dir)) {
        Err(lack @ Lack::Other { .. }) => FileError::NoWeights { folder: dir.to_owned(), lack }.into(),
        _ => Error::FileNotFound { path },
    }
}

/// The settings of `generation_config.json`, or of `config.json` where there is no such file, and the ends
/// of both.
fn read_generation(path: &Path, bytes: Option<&[u8]>, config: (&Path, &Value)) -> Result<GenerationConfig> {
    let config = ConfigFields::new(config.0, config.1)?;
    let generation = match bytes {
        Some(bytes) => {
            let json = parse_json(path, bytes)?;
            GenerationConfig::from_fields(&ConfigFields::new(path, &json)?)
        }
        None => GenerationConfig::from_model_config(&config),
    };
    Ok(generation.with_config_ends(&config))
}

#[cfg(test)]
mod tests;
