//! Steps of a method, read back, and texts to decode.

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor};
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, DecodedBatch, DecodedGroup, LayerState, Method, NewTokens,
    Selection, Sequences, Transfer,
};

use crate::problem::{Problem, floats, ints, tensor};

/// What a step gave, read back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// `[batch, heads, d]`, row-major.
    pub(crate) output: Vec<f32>,
    /// Kept positions per sequence and KV head, ascending, fillers removed; all live ones where the
    /// step ran dense.
    pub(super) positions: Vec<Vec<usize>>,
    /// Sum of the weights per sequence and query head; 1 where the step ran dense.
    pub(super) weight: Vec<f32>,
    /// Retained mass per sequence and query head, where the method states it; 1 where it ran dense.
    pub(super) mass: Option<Vec<f32>>,
    pub(super) transfer: Transfer,
    pub(super) dense: bool,
}

/// One decode step over the keys and values of a problem, without a prefill that a method could watch.
pub(super) fn one_step(problem: &Problem, method: &Method, device: &Device) -> Step {
    let cache = problem.cache(DType::F32, device);
    let methods =
        cache.lens().iter().map(|_| method.for_layer(&problem.shape).expect("a valid configuration"));
    let mut sequences = Sequences::new(methods.collect());
    let queries = cache.attend_params(1).queries;
    let decoded = sequences.attend(problem.queries(device), &cache, &queries).expect("a step");
    read(decoded, cache.lens(), problem.layer())
}

/// What the groups of a batch report, by sequence.
pub(super) fn read(decoded: DecodedBatch, lens: &[usize], layer: AttentionLayer) -> Step {
    let (transfer, dense) =
        (decoded.transfer(), decoded.groups.iter().all(|group| group.selection.is_none()));
    let mut by_row: Vec<Option<Step>> = lens.iter().map(|_| None).collect();
    let AttentionShape { heads, kv_heads, .. } = layer.shape;
    for DecodedGroup { rows, selection, .. } in decoded.groups {
        let of_rows: Vec<usize> = rows.iter().map(|&row| lens[row]).collect();
        let step = read_group(selection, &of_rows, layer);
        for (i, row) in rows.into_iter().enumerate() {
            let of_heads = |all: &[f32]| all[i * heads..(i + 1) * heads].to_vec();
            by_row[row] = Some(Step {
                output: vec![],
                positions: step.positions[i * kv_heads..(i + 1) * kv_heads].to_vec(),
                weight: of_heads(&step.weight),
                mass: step.mass.as_deref().map(of_heads),
                transfer,
                dense,
            });
        }
    }
    let join = |mut all: Step, step: Step| {
        all.positions.extend(step.positions);
        all.weight.extend(step.weight);
        all.mass = all.mass.zip(step.mass).map(|(all, mass)| [all, mass].concat());
        all
    };
    let steps = by_row.into_iter().map(|step| step.expect("each sequence is in a group"));
    Step { output: floats(decoded.output), ..steps.reduce(join).expect("a sequence") }
}

fn read_group(selection: Option<Selection>, lens: &[usize], layer: AttentionLayer) -> Step {
    let AttentionShape { heads, kv_heads, .. } = layer.shape;
    let start = |len: usize| layer.window.map_or(0, |window| len.saturating_sub(window));
    let everything = || -> Vec<Vec<usize>> {
        lens.iter().flat_map(|&len| (0..kv_heads).map(move |_| (start(len)..len).collect())).collect()
    };
    let ones = vec![1.0; lens.len() * heads];
    let (positions, weight, mass) = match selection {
        None => (everything(), ones.clone(), Some(ones)),
        Some(selection) => {
            let [_, _, kept] = selection.positions.dims();
            let mass = selection.retained_mass().map(floats);
            let positions = ints(selection.positions);
            let live = |row: &[i64]| {
                let mut live: Vec<usize> = row.iter().filter(|&&p| p >= 0).map(|&p| p as usize).collect();
                live.sort_unstable();
                live
            };
            let weights = selection.weights.map(floats);
            let sums =
                weights.map_or(ones, |weights| weights.chunks(kept).map(|row| row.iter().sum()).collect());
            (positions.chunks(kept).map(live).collect(), sums, mass)
        }
    };
    Step { output: vec![], positions, weight, mass, transfer: Transfer::default(), dense: false }
}

/// A text: a left-padded batch of prompts, and tokens to decode behind them.
pub(crate) struct Text {
    pub(super) layer: AttentionLayer,
    pub(super) pads: Vec<usize>,
    pub(super) prompt: usize,
    pub(super) q: Vec<f32>,
    pub(super) problem: Problem,
}

impl Text {
    /// `steps` tokens behind prompts of `prompt` columns.
    pub(crate) fn random(
        layer: AttentionLayer,
        prompt: usize,
        pads: &[usize],
        steps: usize,
        seed: u64,
    ) -> Self {
        let shape = layer.shape;
        let width = prompt + steps;
        let tokens = NewTokens::left_padded(width, pads).expect("padding within the prompt");
        let problem = Problem::random(shape, tokens, seed);
        let wide = AttentionShape { heads: shape.heads * width, kv_heads: 1, ..shape };
        let q = Problem::random(wide, NewTokens::all(pads.len(), 1), seed ^ 1).q;
        Self { layer, pads: pads.to_vec(), prompt, q, problem }
    }

    pub(super) fn width(&self) -> usize {
        self.problem.tokens.width()
    }

    /// The queries of sequence `b` without its padding, `[heads, tokens, d]`.
    pub(super) fn alone(&self, b: usize) -> Self {
        let AttentionShape { heads, head_dim, .. } = self.layer.shape;
        let (width, pad) = (self.width(), self.pads[b]);
        let rows = (0..heads).flat_map(|head| {
            let first = (b * heads + head) * width;
            &self.q[(first + pad) * head_dim..(first + width) * head_dim]
        });
        Self {
            layer: self.layer,
            pads: vec![0],
            prompt: self.prompt - pad,
            q: rows.copied().collect(),
            problem: self.problem.sequence(b),
        }
    }

    /// Prefills in chunks and decodes the rest.
    pub(crate) fn run(&self, method: &Method, chunk: usize, device: &Device) -> Vec<Step> {
        self.run_from(&mut self.state(method, device), 0, chunk, device)
    }

    pub(super) fn state(&self, method: &Method, device: &Device) -> LayerState {
        let config = CacheConfig {
            layer: self.layer,
            batch: self.pads.len(),
            max_len: self.width() + 16,
            dtype: DType::F32,
        };
        LayerState::new(&config, method, device).expect("a valid layer")
    }

    /// Goes on from column `first` of the prompt.
    pub(super) fn run_from(
        &self,
        state: &mut LayerState,
        first: usize,
        chunk: usize,
        device: &Device,
    ) -> Vec<Step> {
        for first in (first..self.prompt).step_by(chunk) {
            self.prefill(state, first..self.prompt.min(first + chunk), device);
        }
        self.decode(state, device)
    }

    /// Columns of queries, keys and values.
    pub(super) fn columns(&self, columns: Range<usize>, device: &Device) -> [Tensor<4>; 3] {
        let AttentionShape { heads, head_dim, .. } = self.layer.shape;
        let q = tensor(self.q.clone(), [self.pads.len(), heads, self.width(), head_dim], device);
        let (k, v) = (self.problem.rows(&self.problem.k, device), self.problem.rows(&self.problem.v, device));
        [q, k, v].map(|x| x.narrow(2, columns.start, columns.len()))
    }

    pub(super) fn prefill(&self, state: &mut LayerState, columns: Range<usize>, device: &Device) {
        let [q, k, v] = self.columns(columns.clone(), device);
        let new = self.problem.tokens.columns(columns.start, columns.len());
        state.prefill(q, k, v, &new).expect("it fits");
    }

    /// The steps behind the prompt.
    pub(super) fn decode(&self, state: &mut LayerState, device: &Device) -> Vec<Step> {
        let step = |t: usize| {
            let plan = state.cache().plan(&NewTokens::all(self.pads.len(), 1)).expect("it fits");
            let [q, k, v] = self.columns(t..t + 1, device);
            let decoded = state.decode_planned(q, k, v, &plan);
            read(decoded.expect("a step"), state.cache().lens(), self.layer)
        };
        (self.prompt..self.width()).map(step).collect()
    }

    /// Multiplies queries and keys.
    pub(crate) fn scale(&mut self, factor: f32) {
        self.q.iter_mut().chain(&mut self.problem.k).for_each(|x| *x *= factor);
    }
}
