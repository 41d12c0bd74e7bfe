//! What a model remembers of some sequences: for each layer a cache, and for each sequence in it a decode method.

use burn::tensor::DType;
use sparq_core::{
    AppendPlan, AttentionLayer, CacheConfig, DecodeMethod, LayerMark, LayerState, Method, NewTokens,
    SequenceMark, Traffic, spans::Append,
};

use crate::{error::Result, models::CausalModel};

/// Sizes of a [`ModelState`].
#[derive(Debug, Clone, Copy)]
pub struct StateConfig {
    /// Slots: the most sequences at a time.
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
    /// The least length of the text that each slot is being fed, as far as it is known beforehand.
    text_lens: Vec<usize>,
    /// Transfers before the state began again.
    earlier: Traffic,
}

/// A point that a [`ModelState`] can go back to.
#[derive(Debug)]
pub struct StateMark(Vec<LayerMark>);

/// A point that one slot of a [`ModelState`] can go back to.
#[derive(Debug)]
pub struct SlotMark(Vec<SequenceMark>);

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
        Self::with_methods(model, config, |index, _, layer| methods[index].for_layer(&layer.shape))
    }

    /// An empty state for `model`, decoding with `method` in every layer.
    ///
    /// # Errors
    /// [`crate::Error::Core`] for hyper-parameters that do not fit the model.
    pub fn uniform(model: &dyn CausalModel, config: &StateConfig, method: &Method) -> Result<Self> {
        Self::with_methods(model, config, |_, _, layer| method.for_layer(&layer.shape))
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
        Ok(Self { layers: layers?, max_len, text_lens: vec![0; batch], earlier: Traffic::default() })
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
        self.text_lens.fill(len);
    }

    /// [`ModelState::expect`] for the text of one slot.
    pub fn expect_in(&mut self, slot: usize, len: usize) {
        if let Some(expected) = self.text_lens.get_mut(slot) {
            *expected = len;
        }
    }

    /// The length of each text once `plan` is appended, or what was said to be expected.
    pub fn text_lens(&self, plan: &AppendPlan) -> Vec<usize> {
        let expected = |append: &Append| self.text_lens.get(append.slot).copied().unwrap_or(0);
        plan.as_slice().iter().zip(plan.lens_after()).map(|(append, len)| len.max(expected(append))).collect()
    }

    /// Whether a text of `len` tokens may go on from what a slot has cached: LongRoPE rotates the keys of long
    /// texts otherwise.
    pub fn suits(&self, model: &dyn CausalModel, slot: usize, len: usize) -> bool {
        let held = self.lens().get(slot).copied().unwrap_or(0);
        let expected = self.text_lens.get(slot).copied().unwrap_or(0);
        let is_long = |border: usize| (held.max(expected) > border) == (len > border);
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
    /// [`crate::Error::Core`] for a slot that is not there or past the maximum.
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

    /// Forgets what one slot holds from position `len` on, in all layers.
    ///
    /// # Errors
    /// As [`ModelState::truncate`], and for a slot that is not there.
    pub fn truncate_sequence(&mut self, slot: usize, len: usize) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.truncate_sequence(slot, len))?;
        Ok(())
    }

    /// Forgets what one slot holds, its traffic too, and lets others have its memory. Its methods stay, and begin
    /// anew.
    ///
    /// # Errors
    /// As [`ModelState::truncate_sequence`].
    pub fn release(&mut self, slot: usize) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.release(slot))?;
        self.expect_in(slot, 0);
        Ok(())
    }

    /// Makes slot `to` hold the first `len` tokens of slot `from` and decode with its methods, in the place of
    /// what it held: what both have in common goes through the model once.
    ///
    /// # Errors
    /// [`crate::Error::Core`] as [`LayerState::copy`].
    pub fn copy(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.copy(from, to, len))?;
        self.expect_in(to, self.text_lens.get(from).copied().unwrap_or(0));
        Ok(())
    }

    /// The point that one slot is at in all layers; `None` where a method cannot be copied.
    ///
    /// # Errors
    /// [`crate::Error::Core`] for a slot that is not there.
    pub fn snapshot(&self, slot: usize) -> Result<Option<SlotMark>> {
        let marks = self.layers.iter().map(|layer| layer.snapshot(slot));
        Ok(marks.collect::<sparq_core::Result<Option<Vec<_>>>>()?.map(SlotMark))
    }

    /// Brings one slot back to a mark of it, as often as wanted, while the tokens before it stay.
    ///
    /// # Errors
    /// [`crate::Error::Core`] as [`LayerState::restore`].
    pub fn restore(&mut self, slot: usize, mark: &SlotMark) -> Result<()> {
        self.layers.iter_mut().zip(&mark.0).try_for_each(|(layer, mark)| layer.restore(slot, mark))?;
        Ok(())
    }

    /// Decodes one slot with one method for each layer from now on, as [`ModelState::set_methods`].
    ///
    /// # Errors
    /// As [`ModelState::set_methods`], and for a slot that is not there.
    pub fn set_methods_of(&mut self, slot: usize, methods: &[Method]) -> Result<bool> {
        for (layer, method) in self.layers.iter_mut().zip(methods) {
            if !layer.set_method_of(slot, method)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Transfers of one slot's decode steps since it was released, over all layers.
    pub fn traffic_of(&self, slot: usize) -> Traffic {
        let mut sum = Traffic::default();
        self.layers.iter().for_each(|layer| sum += layer.sequences().traffic_of(slot));
        sum
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
