//! SparQ decode over slices: the three steps of [`crate::ops::oracle`], for one KV head or a part of
//! its positions at a time.

mod scores;
mod steps;

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    Element, Sizes,
    attend::{KeyValues, Partial, attend},
    k_t::KeysByComponent,
    query::Query,
    split::{self, Split},
};
use crate::ops::SparqParams;
use steps::{Part, Scoring};

/// What a step leaves for each query head beside its output: α and the log-sum-exp of both steps.
pub(in crate::ops) const MASSES: usize = 3;

/// Inputs of a SparQ step, in the layouts of [`crate::LayerCache`].
pub(in crate::ops) struct SparqSlices<'a, E, I> {
    pub(in crate::ops) q: &'a [f32],
    pub(in crate::ops) k: &'a [E],
    /// The transposed keys.
    pub(in crate::ops) k_t: I,
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
    /// `[batch, heads, MASSES]`; α is 1, and the log-sum-exp of step 1 is 0, where they were not asked for.
    pub(in crate::ops) masses: Vec<f32>,
}

/// Output, positions and masses of one KV head.
type HeadOutput<'a> = ((&'a mut [f32], &'a mut [i32]), &'a mut [f32]);

/// Buffers of a thread that works on whole heads.
#[derive(Debug, Default)]
struct Worker {
    query: Query,
    part: [Part; 1],
    chosen: Vec<u32>,
    attended: Vec<Partial>,
}

/// Parts of heads that several threads work on, and what was chosen and attended to in each head.
#[derive(Debug, Default)]
struct Shared {
    parts: Vec<Part>,
    chosen: Vec<Vec<u32>>,
    attended: Vec<Partial>,
}

/// Chosen positions that are attended to together, before the sums over them are merged: as many in each case, so
/// that the bits depend on what was chosen alone.
const PIECE: usize = 512;

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
    /// Kept by the thread that asks.
    static SHARED: RefCell<Shared> = RefCell::default();
}

/// See [`crate::ops::decode_sparq`].
pub(in crate::ops) fn decode_sparq<E: Element, I: KeysByComponent>(
    x: &SparqSlices<'_, E, I>,
    params: &SparqParams,
    sizes: Sizes,
) -> SparqOutput {
    let spans = &params.attend.spans();
    let per_group = sizes.group * sizes.head_dim;
    let heads = x.q.len() / per_group;
    let kept = params.config.top_k.min(spans.max_end());
    let mut result = SparqOutput {
        output: vec![0.0; x.q.len()],
        positions: vec![-1; heads * kept],
        kept,
        masses: [1.0, 0.0, 0.0].repeat(x.q.len() / sizes.head_dim),
    };
    let longest = spans.max_len();
    let per_position = params.config.rank + 2 * kept * sizes.head_dim / longest.max(1);
    let split = Split::new(heads, longest, per_position);
    let scoring = Scoring { q: x.q, k_t: x.k_t, params, spans, sizes, split };
    if split.chunks > 1 {
        in_parts(x, &scoring, &mut result);
        return result;
    }
    let head = |(head, ((out, positions), masses)): (usize, HeadOutput<'_>)| {
        WORKER.with_borrow_mut(|Worker { query, part, chosen, attended }| {
            scoring.score(head, 0, query, &mut part[0]);
            scoring.normalise(part);
            if scoring.sums_probabilities() {
                scoring.score_probabilities(head, 0, &mut part[0]);
            }
            scoring.choose(head, part, chosen, positions, masses);
            let pieces = pieces(&scoring, head, chosen);
            attended.resize_with(attended.len().max(pieces), Partial::default);
            for (piece, attended) in attended[..pieces].iter_mut().enumerate() {
                attend_piece(x, &scoring, head, chosen, piece, attended);
            }
            finish(x, &scoring, head, part, &attended[..pieces], masses, out);
        });
    };
    let SparqOutput { output, positions, masses, .. } = &mut result;
    match split.is_parallel {
        true => output
            .par_chunks_mut(per_group)
            .zip(positions.par_chunks_mut(kept))
            .zip(masses.par_chunks_mut(sizes.group * MASSES))
            .enumerate()
            .for_each(head),
        false => output
            .chunks_mut(per_group)
            .zip(positions.chunks_mut(kept))
            .zip(masses.chunks_mut(sizes.group * MASSES))
            .enumerate()
            .for_each(head),
    }
    result
}

/// Several threads per head: all score, one chooses, all attend.
fn in_parts<E: Element, I: KeysByComponent>(
    x: &SparqSlices<'_, E, I>,
    scoring: &Scoring<'_, I>,
    result: &mut SparqOutput,
) {
    let Scoring { sizes, split, .. } = *scoring;
    let SparqOutput { output, positions, kept, masses } = result;
    let (kept, per_group) = (*kept, sizes.group * sizes.head_dim);
    let heads = output.len() / per_group;
    let mut shared = SHARED.take();
    let Shared { parts, chosen, attended } = &mut shared;
    let most = kept.div_ceil(PIECE);
    parts.resize_with(parts.len().max(split.tasks()), Part::default);
    chosen.resize_with(chosen.len().max(heads), Vec::default);
    attended.resize_with(attended.len().max(heads * most), Partial::default);
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
        let per_group = sizes.group * MASSES;
        let masses = &mut masses[head * per_group..][..per_group];
        scoring.choose(head, parts, &mut chosen[head], positions, masses);
    }
    attended[..heads * most].par_iter_mut().enumerate().for_each(|(task, attended)| {
        let (head, piece) = (task / most, task % most);
        attend_piece(x, scoring, head, &chosen[head], piece, attended);
    });
    for (head, out) in output.chunks_exact_mut(per_group).enumerate() {
        let per_group = sizes.group * MASSES;
        let masses = &mut masses[head * per_group..][..per_group];
        let attended = &attended[head * most..][..pieces(scoring, head, &chosen[head])];
        finish(x, scoring, head, &tasks[split.tasks_of(head)], attended, masses, out);
    }
    SHARED.set(shared);
}

/// Pieces that a head's positions are attended to in. Where none is left out they are those of a dense step: it
/// makes no difference which of the two is asked.
fn pieces<I: KeysByComponent>(scoring: &Scoring<'_, I>, head: usize, chosen: &[u32]) -> usize {
    match scoring.keeps_all(head) {
        true => split::parts(scoring.span(head)),
        false => chosen.len().div_ceil(PIECE),
    }
}

/// Attends to one of the pieces; nothing happens where there are fewer.
fn attend_piece<E: Element, I: KeysByComponent>(
    x: &SparqSlices<'_, E, I>,
    scoring: &Scoring<'_, I>,
    head: usize,
    chosen: &[u32],
    piece: usize,
    partial: &mut Partial,
) {
    let kv = key_values(x, scoring.params, scoring.sizes, head);
    if scoring.keeps_all(head) {
        attend(scoring.q(head), &kv, split::part_of(scoring.span(head), piece), partial);
    } else if let Some(chosen) = chosen.chunks(PIECE).nth(piece) {
        attend(scoring.q(head), &kv, chosen, partial);
    }
}

fn key_values<'a, E: Element, I>(
    x: &SparqSlices<'a, E, I>,
    params: &SparqParams,
    sizes: Sizes,
    head: usize,
) -> KeyValues<'a, E> {
    let Sizes { kv_heads, head_dim, capacity, .. } = sizes;
    let of_head = sizes.of_head(params.attend.place(head / kv_heads, capacity), head % kv_heads);
    KeyValues {
        k: &x.k[of_head.clone()],
        v: &x.v[of_head],
        head_dim,
        softcap: params.attend.softcap,
        scale: params.attend.scale,
    }
}

/// The output of a head: what was attended to, its log-sum-exp, and step 3.
fn finish<E: Element, I: KeysByComponent>(
    x: &SparqSlices<'_, E, I>,
    scoring: &Scoring<'_, I>,
    head: usize,
    parts: &[Part],
    attended: &[Partial],
    masses: &mut [f32],
    out: &mut [f32],
) {
    let head_dim = scoring.sizes.head_dim;
    if parts.iter().any(Part::has_nan) {
        // What such a position would have weighed is not known: it must not be left out in silence.
        out.fill(f32::NAN);
        masses.fill(f32::NAN);
        return;
    }
    Partial::merge(attended.iter(), head_dim, out, |head, log_sum| masses[head * MASSES + 2] = log_sum);
    let span = scoring.span(head);
    // The sum is over all values: it says nothing about those that a window leaves, and stands for none where all
    // are read.
    if !scoring.params.config.mean_value || span.start > 0 || scoring.keeps_all(head) {
        return;
    }
    let of_slot = span.slot * scoring.sizes.kv_heads + head % scoring.sizes.kv_heads;
    let v_sum = &x.v_sum[of_slot * head_dim..][..head_dim];
    for (out, masses) in out.chunks_exact_mut(head_dim).zip(masses.chunks_exact(MASSES)) {
        let alpha = masses[0];
        for (y, sum) in out.iter_mut().zip(v_sum) {
            *y = alpha * *y + (1.0 - alpha) * sum / span.len() as f32;
        }
    }
}
