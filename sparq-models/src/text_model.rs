//! A model with its tokenizer: from a prompt to text.

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{DType, Device};
use sparq_core::device;

use crate::{
    checkpoint::Checkpoint,
    config::GenerationConfig,
    error::Result,
    generate::{Event, GenerateOptions, Generation},
    models::{Architecture, CausalModel},
    session::Session,
    tokenizer::Tokenizer,
};

/// A model with its tokenizer, ready to write.
#[derive(Debug)]
pub struct TextModel {
    model: Box<dyn CausalModel>,
    tokenizer: Tokenizer,
    eos_ids: Vec<u32>,
    dtype: DType,
    defaults: GenerationConfig,
}

impl TextModel {
    /// Loads the checkpoint in folder `dir` onto the CPU, in the dtype that it is stored in, or in f32 where the
    /// CPU backend has no such dtype.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`TextModel::load`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let device = device::parse("cpu")?;
        let checkpoint = Checkpoint::open(dir)?;
        let stored = checkpoint.stored_dtype();
        let dtype = device::require_dtype(&device, stored).map_or(DType::F32, |()| stored);
        Self::load(&checkpoint, &device, dtype, &mut |_, _| {})
    }

    /// Loads the weights of a checkpoint in `dtype` onto `device`. `progress` is called with bytes
    /// done and bytes in all.
    ///
    /// # Errors
    /// [`crate::Error`] for an unknown architecture, a bad configuration, weights that do not fit, or a
    /// missing tokenizer.
    pub fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        dtype: DType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let tokenizer = checkpoint.tokenizer()?;
        let model = load_model(checkpoint, device, dtype, progress)?;
        let eos_ids = checkpoint.ends(Some(&tokenizer)).into_iter().map(|end| end.id).collect();
        let defaults = checkpoint.generation_config().clone();
        Ok(Self { defaults, ..Self::new(model, tokenizer, eos_ids, dtype) })
    }

    /// Joins a model of any kind, one of another crate too, with its tokenizer.
    ///
    /// `eos_ids` are the tokens that end a text; caches are kept in `dtype`.
    pub fn new(model: Box<dyn CausalModel>, tokenizer: Tokenizer, eos_ids: Vec<u32>, dtype: DType) -> Self {
        let tokenizer = tokenizer.for_vocabulary(model.vocab_size());
        Self { model, tokenizer, eos_ids, dtype, defaults: GenerationConfig::default() }
    }

    /// The model.
    pub fn model(&self) -> &dyn CausalModel {
        self.model.as_ref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens that end a text: those of `config.json` and `generation_config.json`, and those that
    /// the tokenizer names.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Number format of weights and caches.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Continues `prompt` as the checkpoint's `generation_config.json` says, and else with the defaults of
    /// [`GenerateOptions`].
    ///
    /// # Errors
    /// As [`TextModel::generate`].
    pub fn complete(&self, prompt: &str) -> Result<Generation> {
        let ids = self.tokenizer.encode(prompt, true)?;
        self.generate_from(&ids, &self.recommended(ids.len()), &mut |_| ControlFlow::Continue(()))
    }

    /// What the checkpoint recommends for a prompt of `prompt_tokens` tokens.
    fn recommended(&self, prompt_tokens: usize) -> GenerateOptions {
        let own = &self.defaults;
        let behind_prompt = own.max_length.map(|all| all.saturating_sub(prompt_tokens));
        let built_in = GenerateOptions::default();
        GenerateOptions {
            max_new_tokens: own.max_new_tokens.or(behind_prompt).unwrap_or(built_in.max_new_tokens),
            sampler: own.sampler(),
            stop: own.stop_strings.clone(),
            max_time: own.max_time,
            ..built_in
        }
    }

    /// Continues `prompt`. `events` sees progress and text as they come and may end the run.
    ///
    /// # Errors
    /// [`crate::Error::PromptTooLong`] for a prompt that does not fit, [`crate::Error::EmptyPrompt`] for one
    /// without tokens, and errors of the options.
    pub fn generate(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        self.generate_from(&self.tokenizer.encode(prompt, true)?, options, events)
    }

    /// Continues the text of tokens `ids`, special tokens included.
    ///
    /// # Errors
    /// As [`TextModel::generate`].
    pub fn generate_from(
        &self,
        ids: &[u32],
        options: &GenerateOptions,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        Session::of_one_run(self, ids, options).generate(ids, options, events)
    }
}

/// Loads a checkpoint's model without its tokenizer.
///
/// # Errors
/// As [`TextModel::load`].
pub fn load_model(
    checkpoint: &Checkpoint,
    device: &Device,
    dtype: DType,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn CausalModel>> {
    let fields = checkpoint.config_fields()?;
    let architecture = Architecture::of(&fields)?;
    let config = architecture.config(&fields)?;
    let mut loader = checkpoint.loader(device, dtype, progress)?;
    let model = architecture.load(config, &mut loader)?;
    loader.finish()?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::eval::testing;

    #[test]
    fn a_completion_follows_the_checkpoint() {
        let defaults = GenerationConfig {
            max_length: Some(9),
            max_time: Some(Duration::from_secs(5)),
            stop_strings: vec!["THE END".into()],
            do_sample: Some(true),
            temperature: Some(0.5),
            ..GenerationConfig::default()
        };
        let model = TextModel { defaults, ..testing::model() };
        let options = model.recommended(4);
        assert_eq!((options.max_new_tokens, model.recommended(12).max_new_tokens), (5, 0));
        assert_eq!((options.sampler.temperature, options.stop), (0.5, vec!["THE END".to_owned()]));
        assert_eq!(options.max_time, Some(Duration::from_secs(5)));
        let built_in = GenerateOptions::default().max_new_tokens;
        assert_eq!(testing::model().recommended(4).max_new_tokens, built_in);

        let prompt = "Once upon a time";
        let tokens = model.tokenizer().encode(prompt, true).unwrap().len();
        let generation = model.complete(prompt).unwrap();
        assert_eq!((generation.stats.prompt_tokens, generation.tokens.len()), (tokens, 9 - tokens));
    }

    #[test]
    fn a_folder_is_opened_in_its_own_dtype() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-cli/demo");
        let stored = Checkpoint::open(&demo).unwrap().stored_dtype();
        let device = device::parse("cpu").unwrap();
        let expected = if device.supports_dtype(stored) { stored } else { DType::F32 };
        assert_eq!(TextModel::open(&demo).unwrap().dtype(), expected);
        let error = TextModel::open(demo.join("nowhere")).unwrap_err();
        assert!(error.to_string().contains("there is no model folder"), "{error}");
    }
}
