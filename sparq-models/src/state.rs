//! What a model remembers of a batch of sequences: one cache and decode method per layer.

use burn::tensor::DType;
use sparq_core::{
    AppendPlan, AttentionLayer, CacheConfig, DecodeMethod, LayerMark, LayerState, Method, NewTokens, Traffic,
};

use crate::{error::Result, models::CausalModel};

/// Sizes of a [`ModelState`].
#[derive(Debug, Clone, Copy)]
pub struct StateConfig {
    /// Sequences in the batch.
    pub batch: usize,
    /// The most tokens that any sequence may hold.
    pub max_len: usize,
    /// Storage dtype of keys and values.
    pub dtype: DType,
}

/// Caches and decode methods of all layers.
#[derive(Debug)]
pub struct ModelState {
    layers: Vec<LayerState>,
    max_len: usize,
    /// The least length of the texts that are being fed, as far as it is known beforehand.
    text_len: usize,
    /// Transfers before the state began again.
    earlier: Traffic,
}

/// A point that a [`ModelState`] can go back to.
#[derive(Debug)]
pub struct StateMark(Vec<LayerMark>);

impl ModelState {
    /// An empty state for `model`, decoding with one method for each layer, as
    /// [`crate::attention::AttentionPlan::methods`] gives them.
    ///
    /// # Errors
    /// [`crate::Error::ProfileLayers`] for another number of methods than layers,
    /// [`crate::Error::Core`] for hyper-parameters that do not fit the model.
    pub fn new(model: &dyn CausalModel, config: &StateConfig, methods: &[Method]) -> Result<Self> {
        let layers = model.attention_layers().len();
        if methods.len() != layers {
            return Err(crate::Error::ProfileLayers { profile: methods.len(), model: layers });
        }
        Self::with_methods(model, config, |index, _, layer| Ok(methods[index].for_layer(&layer.shape)?))
    }

    /// An empty state for `model`, decoding with `method` in every layer.
    ///
    /// # Errors
    /// [`crate::Error::Core`] for hyper-parameters that do not fit the model.
    pub fn uniform(model: &dyn CausalModel, config: &StateConfig, method: &Method) -> Result<Self> {
        Self::with_methods(model, config, |_, _, layer| Ok(method.for_layer(&layer.shape)?))
    }

    /// An empty state for `model`, decoding with methods of the caller's own, each made from the layer's index, the
    /// slot of the sequence and the layer's shape.
    ///
    /// # Errors
    /// Those of `method`, and [`crate::Error::Core`] for hyper-parameters that do not fit the model.
    pub fn with_methods(
        model: &dyn CausalModel,
        config: &StateConfig,
        mut method: impl FnMut(usize, usize, &AttentionLayer) -> sparq_core::Result<Box<dyn DecodeMethod>>,
    ) -> Result<Self> {
        let StateConfig { batch, max_len, dtype } = *config;
        let state = |(index, layer): (usize, AttentionLayer)| {
            let config = CacheConfig { layer, batch, max_len, dtype };
            Ok(LayerState::with_methods(&config, |slot| method(index, slot, &layer), model.device())?)
        };
        let layers: Result<_> = model.attention_layers().into_iter().enumerate().map(state).collect();
        Ok(Self { layers: layers?, max_len, text_len: 0, earlier: Traffic::default() })
    }

    /// The layers' states, in order.
    pub fn layers(&self) -> &[LayerState] {
        &self.layers
    }

    /// The layers' states, in order, for a forward pass.
    pub fn layers_mut(&mut self) -> &mut [LayerState] {
        &mut self.layers
    }

    /// The most tokens that any sequence may hold.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Tokens that each sequence holds.
    pub fn lens(&self) -> &[usize] {
        self.layers.first().map_or(&[], |layer| layer.cache().lens())
    }

    /// Says that the texts, of which what is fed next may be a part, have at least `len` tokens. What
    /// depends on the length of a text is the same for all of its parts then.
    pub fn expect(&mut self, len: usize) {
        self.text_len = len;
    }

    /// The length of each text once `plan` is appended, or what was said to be expected.
    pub fn text_lens(&self, plan: &AppendPlan) -> Vec<usize> {
        plan.lens_after().into_iter().map(|len| len.max(self.text_len)).collect()
    }

    /// Whether a text of `len` tokens may go on from what is cached: LongRoPE rotates the keys of long
    /// texts otherwise.
    pub fn suits(&self, model: &dyn CausalModel, len: usize) -> bool {
        let held = self.lens().iter().copied().max().unwrap_or(0);
        let is_long = |border: usize| (held.max(self.text_len) > border) == (len > border);
        held == 0 || model.longest_with_short_factors().is_none_or(is_long)
    }

    /// Forgets everything, whatever the methods; transfers so far still count.
    ///
    /// # Errors
    /// As [`ModelState::new`].
    pub fn begin_again(&mut self, model: &dyn CausalModel, methods: &[Method]) -> Result<()> {
        self.earlier = self.traffic();
        for (layer, method) in self.layers.iter_mut().zip(methods) {
            let config = *layer.cache().config();
            *layer = LayerState::new(&config, method, model.device())?;
        }
        Ok(())
    }

    /// Plans an append of `new` tokens behind what is there.
    ///
    /// # Errors
    /// [`crate::Error::Core`] for another batch size or past the maximum.
    pub fn plan(&self, new: &NewTokens) -> Result<AppendPlan> {
        match self.layers.first() {
            Some(layer) => Ok(layer.cache().plan(new)?),
            None => Ok(AppendPlan::new(new, &vec![0; new.batch()])),
        }
    }

    /// Makes room for `len` tokens per sequence in all layers.
    ///
    /// # Errors
    /// [`crate::Error::Core`] past the maximum.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.reserve(len))?;
        Ok(())
    }

    /// Decodes with one method for each layer from now on, on what is cached. `false` where a layer
    /// cannot ([`LayerState::set_method`]); the state is of no use then.
    ///
    /// # Errors
    /// [`crate::Error::Core`] for hyper-parameters that do not fit the model.
    pub fn set_methods(&mut self, methods: &[Method]) -> Result<bool> {
        for (layer, method) in self.layers.iter_mut().zip(methods) {
            if !layer.set_method(method)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The point that all layers are at; `None` where a method cannot be copied.
    pub fn mark(&self) -> Option<StateMark> {
        Some(StateMark(self.layers.iter().map(LayerState::mark).collect::<Option<_>>()?))
    }

    /// Goes back to a mark of this state, as often as wanted, while the tokens before it stay.
    ///
    /// # Errors
    /// [`crate::Error::Core`] as [`LayerState::go_back`].
    pub fn go_back(&mut self, mark: &StateMark) -> Result<()> {
        self.layers.iter_mut().zip(&mark.0).try_for_each(|(layer, mark)| layer.go_back(mark))?;
        Ok(())
    }

    /// Forgets what each sequence holds from position `len` on, in all layers.
    ///
    /// # Errors
    /// [`crate::Error::Core`] where a method cannot go back, as [`LayerState::truncate`]; the state is of
    /// no use then.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.truncate(len))?;
        Ok(())
    }

    /// Transfers of all decode steps so far, over all layers.
    pub fn traffic(&self) -> Traffic {
        let mut sum = self.earlier;
        self.layers.iter().for_each(|layer| sum += layer.traffic());
        sum
    }

    /// Begins to count transfers anew.
    pub fn reset_traffic(&mut self) {
        self.earlier = Traffic::default();
        self.layers.iter_mut().for_each(LayerState::reset_traffic);
    }

    /// Bytes that the caches hold on the device.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.cache().bytes()).sum()
    }
}
