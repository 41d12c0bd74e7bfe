//! Measuring methods on a text, against dense attention.

use burn::tensor::DType;
use sparq_core::{
    Method, Traffic,
    method::{MassMeter, RetainedMass},
};

use crate::{
    error::{Error, Result},
    eval::metrics::{Divergence, log_softmax},
    forward::{self, Row, Want},
    models::CausalModel,
    state::{ModelState, StateConfig},
};

/// Prompt tokens that go through the model at once.
const PREFILL_CHUNK: usize = 512;

/// How a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window: prompt and decode steps.
    pub len: usize,
    /// Tokens at its end that are decoded one at a time.
    pub steps: usize,
    /// Windows at most.
    pub count: usize,
}

/// What methods did on the windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Mean Kullback-Leibler divergence of the next token's distribution from that of dense attention,
    /// in nats.
    pub kl: f64,
    /// Part of the steps where both hold the same token for the likeliest.
    pub agreement: f64,
    /// Mean part of the exact attention that the positions read hold, for each layer.
    pub mass: Vec<f64>,
    /// Transfers of all steps.
    pub traffic: Traffic,
}

impl Measurement {
    /// Mean retained mass over layers.
    pub fn mean_mass(&self) -> f64 {
        self.mass.iter().sum::<f64>() / self.mass.len().max(1) as f64
    }
}

/// A model, a text, and what dense attention predicts for it.
#[derive(Debug)]
pub struct Probe<'m> {
    model: &'m dyn CausalModel,
    dtype: DType,
    windows: Vec<Window>,
    steps: usize,
}

/// A part of the text, and the log probabilities after each decoded token.
#[derive(Debug)]
struct Window {
    ids: Vec<u32>,
    dense: Vec<Vec<f32>>,
}

impl<'m> Probe<'m> {
    /// Cuts `ids` into windows from its start and runs dense attention over them. `done` is told after
    /// each window.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a text that is shorter than one window, errors of the model.
    pub fn new(
        model: &'m dyn CausalModel,
        dtype: DType,
        ids: &[u32],
        windows: Windows,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let Windows { len, steps, count } = windows;
        if steps == 0 || steps >= len {
            let expected = "at least 1, and less than the tokens of a window";
            return Err(Error::InvalidOption { option: "steps", value: steps.to_string(), expected });
        }
        if count == 0 {
            let expected = "at least 1";
            return Err(Error::InvalidOption { option: "windows", value: "0".into(), expected });
        }
        let pieces: Vec<&[u32]> = ids.chunks_exact(len).take(count).collect();
        if pieces.is_empty() {
            let expected = "at least the tokens of one window";
            let value = format!("{} tokens", ids.len());
            return Err(Error::InvalidOption { option: "text", value, expected });
        }
        let mut probe = Self { model, dtype, windows: vec![], steps };
        let layers = model.attention_layers().len();
        for (index, piece) in pieces.iter().enumerate() {
            let mut dense = vec![];
            probe.decode(piece, &vec![Method::Dense; layers], None, &mut |logits| {
                dense.push(log_softmax(&logits));
            })?;
            probe.windows.push(Window { ids: piece.to_vec(), dense });
            done(index + 1, pieces.len());
        }
        Ok(probe)
    }

    /// The model.
    pub fn model(&self) -> &'m dyn CausalModel {
        self.model
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Tokens of a window.
    pub fn len(&self) -> usize {
        self.windows.first().map_or(0, |window| window.ids.len())
    }

    /// True where there is nothing to measure on.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Runs one method per layer over the windows of a range.
    ///
    /// # Errors
    /// [`Error::Core`] for sizes that do not fit, errors of the model.
    pub fn measure(&self, methods: &[Method], windows: std::ops::Range<usize>) -> Result<Measurement> {
        let records: Vec<RetainedMass> = methods.iter().map(|_| RetainedMass::default()).collect();
        let mut traffic = Traffic::default();
        let (mut kl, mut same, mut steps) = (0.0, 0, 0);
        for window in &self.windows[windows] {
            let mut expected = window.dense.iter();
            let mut compare = |logits: Vec<f32>| {
                if let Some(dense) = expected.next() {
                    let found = Divergence::between(dense, &log_softmax(&logits));
                    kl += found.kl;
                    same += usize::from(found.same_top);
                    steps += 1;
                }
            };
            traffic += self.decode(&window.ids, methods, Some(&records), &mut compare)?;
        }
        let heads = |layer: usize| self.model.attention_layers()[layer].shape.heads;
        let mass = |(layer, record): (usize, &RetainedMass)| -> Result<f64> {
            let per_head = record.per_head(heads(layer))?;
            Ok(per_head.iter().map(|&mass| f64::from(mass)).sum::<f64>() / per_head.len().max(1) as f64)
        };
        let mass: Result<Vec<f64>> = records.iter().enumerate().map(mass).collect();
        let steps = f64::from(u32::try_from(steps.max(1)).unwrap_or(u32::MAX));
        Ok(Measurement { kl: kl / steps, agreement: same as f64 / steps, mass: mass?, traffic })
    }

    /// Prefills a window but its last tokens and decodes those; `logits` sees what each step predicts.
    fn decode(
        &self,
        ids: &[u32],
        methods: &[Method],
        records: Option<&[RetainedMass]>,
        logits: &mut dyn FnMut(Vec<f32>),
    ) -> Result<Traffic> {
        let config = StateConfig { batch: 1, max_len: ids.len(), dtype: self.dtype };
        let mut state = ModelState::with_methods(self.model, &config, |index, _, layer| {
            let method = methods[index].for_layer(&layer.shape)?;
            Ok(match records {
                Some(records) => Box::new(MassMeter::new(method, records[index].clone())),
                None => method,
            })
        })?;
        state.reserve(ids.len())?;
        state.expect(ids.len());
        let (prompt, rest) = ids.split_at(ids.len() - self.steps);
        for chunk in prompt.chunks(PREFILL_CHUNK) {
            forward::step(self.model, &[Row::prompt(chunk)], &mut state, Want::Nothing)?;
        }
        for &id in rest {
            let row = forward::step(self.model, &[Row::decode(&[id])], &mut state, Want::Last)?;
            logits(forward::read_finite(row, &state)?);
        }
        Ok(state.traffic())
    }
}
