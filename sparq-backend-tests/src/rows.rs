//! What a row of a step gives beside others: whole models, every family and method.

use std::ops::Range;

use burn::tensor::Device;
use sparq_core::{
    Method,
    device::{Kind, kind},
};
use sparq_models::{
    forward::{self, Row, Want},
    layers::Phase,
    state::{ModelState, StateConfig},
};

use crate::{
    families::{Family, close, each, text},
    methods::methods,
    tolerance::f32,
};

/// Tokens of a prompt, by chunk.
const CHUNKS: [Range<usize>; 3] = [0..9, 9..10, 10..24];
/// Tokens that are decoded behind it.
const DECODED: Range<usize> = 24..29;

/// A sequence writes the same whether it runs alone or in one step with others, which are in their prompts or
/// decode by other methods: on the CPU to the bit.
pub fn a_row_beside_others_gives_what_it_gives_alone(device: &Device) {
    each("rows", f32().dtype, device, |family| {
        let mut all = methods(device, &family.shape, 8);
        all.push(Method::Dense);
        if kind(device) != Kind::Cpu {
            // Those with kernels, and one without: the others are made of the same operations.
            all.retain(|method| matches!(method, Method::Dense | Method::Sparq(_) | Method::Local(_)));
        }
        let texts: Vec<Vec<u32>> = (0..3).map(|slot| rotated(&family.ids, 5 * slot)).collect();
        let mut worst: f32 = 0.0;
        for (i, method) in all.iter().enumerate() {
            // The others decode by the next methods of the list.
            let of_slot: Vec<&Method> = (0..3).map(|slot| &all[(i + slot) % all.len()]).collect();
            let together = run(family, &texts, &of_slot)?;
            let alone = run(family, &texts[..1], &[method])?;
            for (step, (found, expected)) in together[0].iter().zip(&alone[0]).enumerate() {
                let what = |problem: String| format!("{method:?}, logits {step}: {problem}");
                worst = worst.max(close(found, expected).map_err(what)?);
                if kind(device) == Kind::Cpu && found != expected {
                    return Err(what("other bits".into()));
                }
            }
        }
        Ok(format!("{worst:.1e}"))
    });
}

/// The logits that each text gets: behind its prompt, and in its decode steps. Each begins a step after the one
/// before it, so that prompts meet decode steps.
fn run(family: &Family, texts: &[Vec<u32>], methods: &[&Method]) -> Result<Vec<Vec<Vec<f32>>>, String> {
    let mut state = state(family, methods)?;
    let parts = CHUNKS.into_iter().map(|chunk| (Phase::Prefill, chunk));
    let steps = DECODED.map(|at| (Phase::Decode, at..at + 1));
    let parts: Vec<(Phase, Range<usize>)> = parts.chain(steps).collect();
    let mut found: Vec<Vec<Vec<f32>>> = texts.iter().map(|_| vec![]).collect();
    for turn in 0..parts.len() + texts.len() - 1 {
        // The last ones first: the order of the rows is not that of the slots.
        let row = |slot: usize| {
            let (phase, part) = parts.get(turn.checked_sub(slot)?)?;
            Some(Row { slot, ids: &texts[slot][part.clone()], phase: *phase })
        };
        let rows: Vec<Row<'_>> = (0..texts.len()).rev().filter_map(row).collect();
        let logits = forward::step(family.model.as_ref(), &rows, &mut state, Want::Last).map_err(text)?;
        let logits = forward::read(logits).map_err(text)?;
        for (row, logits) in rows.iter().zip(logits.chunks(family.model.vocab_size())) {
            found[row.slot].push(logits.to_vec());
        }
    }
    Ok(found)
}

fn state(family: &Family, methods: &[&Method]) -> Result<ModelState, String> {
    let config = StateConfig { batch: methods.len(), max_len: family.ids.len(), dtype: f32().dtype };
    let mut state = ModelState::with_methods(family.model.as_ref(), &config, |_, slot, layer| {
        methods[slot].for_layer(&layer.shape)
    })
    .map_err(text)?;
    state.expect(family.ids.len());
    Ok(state)
}

fn rotated(ids: &[u32], by: usize) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.rotate_left(by);
    ids
}
