//! SparQ decode over slices: the three steps of [`crate::ops::oracle`], for one KV head or a part of
//! its positions at a time.

mod scores;
mod steps;

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    Element, Sizes,
    attend::{KeyValues, Partial, attend},
    index::Index,
    query::Query,
    split::Split,
};
use crate::ops::SparqStep;
use steps::{Part, Scoring};

/// Inputs of a SparQ step, in the layouts of [`crate::LayerCache`].
pub(in crate::ops) struct SparqSlices<'a, E, I> {
    pub(in crate::ops) q: &'a [f32],
    pub(in crate::ops) k: &'a [E],
    /// The transposed keys.
    pub(in crate::ops) k_index: I,
    pub(in crate::ops) v: &'a [E],
    pub(in crate::ops) v_sum: &'a [f32],
}

/// Outputs of a SparQ step.
pub(in crate::ops) struct SparqOutput {
    /// `[batch, heads, 1, head_dim]`
    pub(in crate::ops) output: Vec<f32>,
    /// `[batch, kv_heads, kept]`, ascending, -1 where a sequence is shorter.
    pub(in crate::ops) positions: Vec<i32>,
    /// Length of the last axis of `positions`.
    pub(in crate::ops) kept: usize,
    /// `[batch, heads]`; 1 where it was not asked for.
    pub(in crate::ops) retained_mass: Vec<f32>,
}

/// Output, positions and masses of one KV head.
type HeadOutput<'a> = ((&'a mut [f32], &'a mut [i32]), &'a mut [f32]);

/// Buffers of a thread that works on whole heads.
#[derive(Debug, Default)]
struct Worker {
    query: Query,
    part: [Part; 1],
    chosen: Vec<u32>,
}

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
    /// Parts of heads that several threads work on, and what was chosen in each head, kept by the
    /// thread that asks.
    static PARTS: RefCell<(Vec<Part>, Vec<Vec<u32>>)> = RefCell::default();
}

/// See [`crate::ops::decode_sparq`].
pub(in crate::ops) fn decode_sparq<E: Element, I: Index>(
    x: &SparqSlices<'_, E, I>,
    step: &SparqStep,
    sizes: Sizes,
) -> SparqOutput {
    let per_group = sizes.group * sizes.head_dim;
    let heads = x.q.len() / per_group;
    let kept = step.config.top_k.min(step.spans.max_end());
    let mut result = SparqOutput {
        output: vec![0.0; x.q.len()],
        positions: vec![-1; heads * kept],
        kept,
        retained_mass: vec![1.0; x.q.len() / sizes.head_dim],
    };
    let longest = step.spans.max_len();
    let per_position = step.config.rank + 2 * kept * sizes.head_dim / longest.max(1);
    let split = Split::new(heads, longest, per_position);
    let scoring = Scoring { q: x.q, k_index: x.k_index, step, sizes, split };
    if split.chunks > 1 {
        in_parts(x, &scoring, &mut result);
        return result;
    }
    let head = |(head, ((out, positions), mass)): (usize, HeadOutput<'_>)| {
        WORKER.with_borrow_mut(|Worker { query, part, chosen }| {
            scoring.score(head, 0, query, &mut part[0]);
            scoring.normalise(part);
            if scoring.sums_probabilities() {
                scoring.score_probabilities(head, 0, &mut part[0]);
            }
            scoring.choose(head, part, chosen, positions, mass);
            let kv = key_values(x, step, sizes, head);
            attend(scoring.q(head), &kv, &chosen[..], &mut part[0].attended);
            finish(x, &scoring, head, part, mass, out);
        });
    };
    let SparqOutput { output, positions, retained_mass, .. } = &mut result;
    match split.is_parallel {
        true => output
            .par_chunks_mut(per_group)
            .zip(positions.par_chunks_mut(kept))
            .zip(retained_mass.par_chunks_mut(sizes.group))
            .enumerate()
            .for_each(head),
        false => output
            .chunks_mut(per_group)
            .zip(positions.chunks_mut(kept))
            .zip(retained_mass.chunks_mut(sizes.group))
            .enumerate()
            .for_each(head),
    }
    result
}

/// Several threads per head: all score, one chooses, all attend.
fn in_parts<E: Element, I: Index>(
    x: &SparqSlices<'_, E, I>,
    scoring: &Scoring<'_, I>,
    result: &mut SparqOutput,
) {
    let Scoring { step, sizes, split, .. } = *scoring;
    let SparqOutput { output, positions, kept, retained_mass } = result;
    let (kept, per_group) = (*kept, sizes.group * sizes.head_dim);
    let heads = output.len() / per_group;
    let (mut parts, mut chosen) = PARTS.take();
    parts.resize_with(parts.len().max(split.tasks()), Part::default);
    chosen.resize_with(chosen.len().max(heads), Vec::default);
    let tasks = &mut parts[..split.tasks()];

    tasks.par_iter_mut().enumerate().for_each(|(task, part)| {
        let (head, chunk) = split.of_task(task);
        WORKER.with_borrow_mut(|Worker { query, .. }| scoring.score(head, chunk, query, part));
    });
    tasks.chunks_mut(split.chunks).for_each(|parts| scoring.normalise(parts));
    if scoring.sums_probabilities() {
        tasks.par_iter_mut().enumerate().for_each(|(task, part)| {
            let (head, chunk) = split.of_task(task);
            scoring.score_probabilities(head, chunk, part);
        });
    }
    for (head, parts) in tasks.chunks_mut(split.chunks).enumerate() {
        let positions = &mut positions[head * kept..(head + 1) * kept];
        let mass = &mut retained_mass[head * sizes.group..][..sizes.group];
        scoring.choose(head, parts, &mut chosen[head], positions, mass);
    }
    tasks.par_iter_mut().enumerate().for_each(|(task, part)| {
        let (head, chunk) = split.of_task(task);
        let chosen = &chosen[head];
        let share = |chunk| chosen.len() * chunk / split.chunks;
        let chosen = &chosen[share(chunk)..share(chunk + 1)];
        attend(scoring.q(head), &key_values(x, step, sizes, head), chosen, &mut part.attended);
    });
    for (head, out) in output.chunks_exact_mut(per_group).enumerate() {
        let mass = &retained_mass[head * sizes.group..][..sizes.group];
        finish(x, scoring, head, &tasks[split.tasks_of(head)], mass, out);
    }
    PARTS.set((parts, chosen));
}

fn key_values<'a, E: Element, I>(
    x: &SparqSlices<'a, E, I>,
    step: &SparqStep,
    sizes: Sizes,
    head: usize,
) -> KeyValues<'a, E> {
    let Sizes { head_dim, capacity, .. } = sizes;
    let of_head = head * capacity * head_dim..(head + 1) * capacity * head_dim;
    KeyValues { k: &x.k[of_head.clone()], v: &x.v[of_head], head_dim, softcap: step.softcap }
}

/// The output of a head: what its parts attended to, and step 3.
fn finish<E: Element, I: Index>(
    x: &SparqSlices<'_, E, I>,
    scoring: &Scoring<'_, I>,
    head: usize,
    parts: &[Part],
    mass: &[f32],
    out: &mut [f32],
) {
    let head_dim = scoring.sizes.head_dim;
    if parts.iter().any(Part::has_nan) {
        // What such a position would have weighed is not known: it must not be left out in silence.
        out.fill(f32::NAN);
        return;
    }
    Partial::merge(parts.iter().map(|part| &part.attended), head_dim, out);
    let span = scoring.span(head);
    // The sum is over all values: it says nothing about those that a window leaves.
    if !scoring.step.config.mean_value || span.start > 0 {
        return;
    }
    let v_sum = &x.v_sum[head * head_dim..][..head_dim];
    for (out, &alpha) in out.chunks_exact_mut(head_dim).zip(mass) {
        for (y, sum) in out.iter_mut().zip(v_sum) {
            *y = alpha * *y + (1.0 - alpha) * sum / span.len() as f32;
        }
    }
}
