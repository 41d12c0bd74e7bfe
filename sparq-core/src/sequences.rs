//! The decode methods of a layer, one for each sequence, and what they moved.

use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::{
    cache::{CacheExtras, LayerCache},
    error::{Error, Result},
    method::{DecodeMethod, Operation, PromptChunk, Selection, dense_transfer},
    ops::MOST_QUERIES,
    spans::{Append, AppendPlan},
    transfer::{Traffic, Transfer},
};

/// The methods of a cache's sequences, by slot, with what each has moved.
///
/// A [`crate::LayerState`] has one beside its own cache. Several layers that share a cache have one each:
/// [`Sequences::attend`] reads a cache and does not append.
#[derive(Debug)]
pub struct Sequences {
    methods: Vec<Box<dyn DecodeMethod>>,
    traffic: Vec<Traffic>,
}

/// Result of a decode step of a batch in one layer.
#[derive(Debug, Clone)]
pub struct DecodedBatch {
    /// Attention output `[batch, heads, width, value_dim]`, f32; zero for sequences without a new token.
    pub output: Tensor<4>,
    /// Sequences that were decoded together.
    pub groups: Vec<DecodedGroup>,
}

/// What is known of sequences that were decoded together.
#[derive(Debug, Clone)]
pub struct DecodedGroup {
    /// Which rows of the batch they are.
    pub rows: Vec<usize>,
    /// What was picked for their last queries; `None` where the step read everything.
    pub selection: Option<Selection>,
    /// What the step touched in the cache.
    pub transfer: Transfer,
}

impl DecodedBatch {
    /// What the step touched in the cache, of all sequences.
    pub fn transfer(&self) -> Transfer {
        let mut sum = Transfer::default();
        self.groups.iter().for_each(|group| sum += group.transfer);
        sum
    }
}

impl Sequences {
    /// Sequences that decode with these methods, one for each slot of a cache.
    pub fn new(methods: Vec<Box<dyn DecodeMethod>>) -> Self {
        let traffic = vec![Traffic::default(); methods.len()];
        Self { methods, traffic }
    }

    /// The method of a slot, as it is now.
    ///
    /// # Errors
    /// [`Error::Slot`] for a slot that is not there.
    pub fn method(&self, slot: usize) -> Result<&dyn DecodeMethod> {
        let found = self.methods.get(slot).map(Box::as_ref);
        found.ok_or(Error::Slot { slot, slots: self.methods.len() })
    }

    pub(crate) fn method_mut(&mut self, slot: usize) -> Result<&mut Box<dyn DecodeMethod>> {
        let slots = self.methods.len();
        self.methods.get_mut(slot).ok_or(Error::Slot { slot, slots })
    }

    /// Gives a slot another method; returns the one that it had.
    pub(crate) fn replace(
        &mut self,
        slot: usize,
        method: Box<dyn DecodeMethod>,
    ) -> Result<Box<dyn DecodeMethod>> {
        Ok(std::mem::replace(self.method_mut(slot)?, method))
    }

    pub(crate) fn into_methods(self) -> Vec<Box<dyn DecodeMethod>> {
        self.methods
    }

    /// What a cache must keep for these methods.
    pub fn extras(&self) -> Vec<CacheExtras> {
        let mut extras: Vec<CacheExtras> = vec![];
        for of_method in self.methods.iter().map(|method| method.cache_extras()) {
            if !extras.contains(&of_method) {
                extras.push(of_method);
            }
        }
        extras
    }

    /// Transfers of one sequence's decode steps so far; none for a slot that is not there.
    pub fn traffic_of(&self, slot: usize) -> Traffic {
        self.traffic.get(slot).copied().unwrap_or_default()
    }

    /// Transfers of all sequences.
    pub fn traffic(&self) -> Traffic {
        let mut sum = Traffic::default();
        self.traffic.iter().for_each(|traffic| sum += *traffic);
        sum
    }

    pub(crate) fn reset_traffic_of(&mut self, slot: usize) {
        if let Some(traffic) = self.traffic.get_mut(slot) {
            *traffic = Traffic::default();
        }
    }

    /// Shows the methods a chunk of a prompt whose keys and values the cache holds.
    pub(crate) fn observe_prefill(
        &mut self,
        q: &Tensor<4>,
        cache: &LayerCache,
        plan: &AppendPlan,
    ) -> Result<()> {
        for (row, append) in active(plan) {
            let sequence = cache.sequence(append.slot)?;
            self.method_mut(append.slot)?.observe_prefill(&PromptChunk { q, plan, row }, &sequence)?;
        }
        Ok(())
    }

    /// Whether all columns of a plan may be decoded in one step: there is one, or everything is read for each of
    /// them. Columns of padding would shift the queries against the last tokens.
    pub(crate) fn take_together(&self, plan: &AppendPlan, window: Option<usize>) -> bool {
        let reads_all = |(_, append): (usize, &Append)| {
            let live = live(append, window);
            let operation = self.methods.get(append.slot).and_then(|method| method.operation(live));
            append.take == plan.width() && operation == Some(Operation::Dense)
        };
        plan.width() <= 1 || (plan.width() <= MOST_QUERIES && active(plan).all(reads_all))
    }

    /// Attends with `q: [batch, heads, width, head_dim]`, the queries of a plan whose tokens `cache` holds
    /// already: nothing is appended. More than one query per sequence is for steps that read everything.
    ///
    /// # Errors
    /// [`crate::Error`] for queries that do not fit, and parts that the cache does not keep.
    pub fn attend(&mut self, q: Tensor<4>, cache: &LayerCache, plan: &AppendPlan) -> Result<DecodedBatch> {
        let (shape, window) = (cache.config().layer.shape, cache.config().layer.window);
        let batch = plan.as_slice().len();
        crate::ops::check_queries(&q, shape, [batch, plan.width()])?;
        let mut together: Vec<(Operation, Vec<usize>)> = vec![];
        let (mut outputs, mut groups) = (vec![], vec![]);
        for (row, append) in active(plan) {
            let slot = append.slot;
            match self.method(slot)?.operation(live(append, window)) {
                Some(operation) => match together.iter_mut().find(|(other, _)| *other == operation) {
                    Some((_, rows)) => rows.push(row),
                    None => together.push((operation, vec![row])),
                },
                None => {
                    let sequence = cache.sequence(slot)?;
                    let decoded = self.method_mut(slot)?.decode(rows_of(&q, &[row]), &sequence)?;
                    self.traffic[slot].record(decoded.transfer, dense_transfer(&sequence));
                    outputs.push(decoded.output);
                    let (selection, transfer) = (decoded.selection, decoded.transfer);
                    groups.push(DecodedGroup { rows: vec![row], selection, transfer });
                }
            }
        }
        for (operation, rows) in together {
            let params = cache.attend_params_of(&plan.rows(&rows));
            let (output, selection) = operation.attend(rows_of(&q, &rows), cache, params)?;
            let mut sum = Transfer::default();
            for &row in &rows {
                let slot = plan.as_slice()[row].slot;
                let sequence = cache.sequence(slot)?;
                let mut transfers = [operation.transfer(&sequence), dense_transfer(&sequence)];
                transfers
                    .iter_mut()
                    .for_each(|transfer| transfer.append = transfer.append.times(plan.width()));
                self.traffic[slot].record(transfers[0], transfers[1]);
                sum += transfers[0];
            }
            outputs.push(output);
            groups.push(DecodedGroup { rows, selection, transfer: sum });
        }
        let output = match &groups[..] {
            [all] if all.rows.len() == batch => outputs.swap_remove(0),
            _ => in_order(outputs, &groups, &q, cache.config().layer.value_dim()),
        };
        Ok(DecodedBatch { output, groups })
    }
}

/// Rows that have new tokens.
fn active(plan: &AppendPlan) -> impl Iterator<Item = (usize, &Append)> {
    plan.as_slice().iter().enumerate().filter(|(_, append)| append.take > 0)
}

/// Positions that the last new token sees.
fn live(append: &Append, window: Option<usize>) -> usize {
    let len = append.at.saturating_add(append.take);
    window.map_or(len, |window| len.min(window))
}

/// Some rows of the queries.
fn rows_of(q: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let [batch, ..] = q.dims();
    match rows {
        _ if rows.iter().copied().eq(0..batch) => q.clone(),
        [row] => q.clone().narrow(0, *row, 1),
        _ => q.clone().select(0, indices(rows, q)),
    }
}

/// Outputs of groups in the order of the batch; zero where a row is in none.
fn in_order(
    mut outputs: Vec<Tensor<4>>,
    groups: &[DecodedGroup],
    q: &Tensor<4>,
    value_dim: usize,
) -> Tensor<4> {
    let [batch, heads, width, _] = q.dims();
    let rows: Vec<usize> = groups.iter().flat_map(|group| group.rows.iter().copied()).collect();
    let mut from = vec![rows.len(); batch];
    rows.iter().enumerate().for_each(|(i, &row)| from[row] = i);
    if rows.len() < batch {
        outputs.push(Tensor::zeros([1, heads, width, value_dim], (&q.device(), DType::F32)));
    }
    Tensor::cat(outputs, 0).select(0, indices(&from, q))
}

fn indices(rows: &[usize], q: &Tensor<4>) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), &q.device())
}
