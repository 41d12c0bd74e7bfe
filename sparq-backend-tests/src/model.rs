//! Whole models: reference logits, and batches against single sequences.

use burn::tensor::{DType, Device};
use sparq_core::{Method, SparqConfig};
use sparq_models::{
    checkpoint::Checkpoint,
    forward::{self, Row, Want},
    models::CausalModel,
    state::{ModelState, StateConfig},
    text_model::load_model,
    verify::{Outcome, verify},
    weight::WeightFormat,
};

use crate::{
    quantized::require_few_bits,
    reference::folder,
    suite::note,
    tolerance::{INT8_WEIGHTS_LOGITS, Tolerance, assert_close, f32},
};

fn load(family: &str, dtype: DType, device: &Device) -> Box<dyn CausalModel> {
    let checkpoint = Checkpoint::open(folder().join("models").join(family)).expect("the reference model");
    load_model(&checkpoint, device, dtype, &mut |_, _| {}).expect("weights that fit")
}

/// Logits of the reference Llama (grouped queries).
pub fn llama_reference_logits(device: &Device, row: Tolerance) {
    reference_logits("llama", device, row);
}

/// Logits of the reference Mistral (one KV head, a window that is longer than the text).
pub fn mistral_reference_logits(device: &Device, row: Tolerance) {
    reference_logits("mistral", device, row);
}

/// Logits of the reference Gemma (heads wider than hidden / heads, tied embeddings).
pub fn gemma_reference_logits(device: &Device, row: Tolerance) {
    reference_logits("gemma", device, row);
}

/// Logits of the reference GPT-NeoX (partly rotated heads, parallel residual).
pub fn gpt_neox_reference_logits(device: &Device, row: Tolerance) {
    reference_logits("gpt_neox", device, row);
}

/// The run whose selections hold ties.
///
/// With rank 4, all chosen components can lie in the part of a head that GPT-NeoX does not rotate.
/// In the first layer the keys of a repeated token are then equal there, up to rounding, and so are
/// their scores. [`verify`] keeps those of the equal positions that PyTorch keeps, and counts the
/// selections.
const TIED: (&str, &str) = ("gpt_neox", "sparq_k16_l4_r4_mean.decode_logits");

/// Dense uncached, dense cached and the runs of all methods in f32; dense in the half types, where rounding
/// may tip a selection.
fn reference_logits(family: &str, device: &Device, row: Tolerance) {
    let model = load(family, row.dtype, device);
    let file = folder().join("models").join(family).join("expected.safetensors");
    let comparisons = verify(model.as_ref(), row.dtype, &file).expect("a reference file");
    let mut compared = 0;
    for comparison in &comparisons {
        let Outcome::Compared { max_difference, agreeing, positions, ties } = comparison.outcome else {
            note(&format!("{family}: {} is not built", comparison.name));
            continue;
        };
        if row.dtype != DType::F32 && !comparison.name.starts_with("dense.") {
            continue;
        }
        let what = format!("{family} {} {:?}: {max_difference}", comparison.name, row.dtype);
        let tied = (family, comparison.name.as_str()) == TIED;
        assert!(ties == 0 || tied, "{what}: ties in {ties} selections");
        if ties > 0 {
            note(&format!("{family} {}: ties in {ties} selections", comparison.name));
        }
        assert!(comparison.passes(row.logits), "{what}");
        assert!(row.dtype != DType::F32 || agreeing == positions, "{what}: greedy {agreeing}/{positions}");
        compared += 1;
    }
    assert!(compared >= if row.dtype == DType::F32 { 8 } else { 2 }, "{comparisons:?}");
}

/// Logits of models whose linear layers have weights of eight bits, one of them with an output layer that is
/// tied to the embeddings and keeps its dtype: near those of the weights themselves, and not the same.
pub fn weights_in_eight_bits(device: &Device) {
    require_few_bits(device);
    for family in ["llama", "gemma"] {
        let folder = folder().join("models").join(family);
        let checkpoint = Checkpoint::open(&folder).expect("the reference model");
        let checkpoint = checkpoint.with_weight_format(WeightFormat::Int8);
        let model = load_model(&checkpoint, device, DType::F32, &mut |_, _| {}).expect("weights that fit");
        let file = folder.join("expected.safetensors");
        let comparisons = verify(model.as_ref(), DType::F32, &file).expect("a reference file");
        let mut dense = comparisons.iter().filter(|comparison| comparison.name.starts_with("dense."));
        let both: Vec<f32> = dense
            .by_ref()
            .map(|comparison| match comparison.outcome {
                Outcome::Compared { max_difference, .. } => max_difference,
                Outcome::NotBuilt => panic!("dense attention is always there"),
            })
            .collect();
        note(&format!("{family}: logits off by at most {both:?} with weights of eight bits"));
        assert_eq!(both.len(), 2, "{comparisons:?}");
        for difference in both {
            assert!(difference > f32().logits && difference <= INT8_WEIGHTS_LOGITS, "{family}: {difference}");
        }
    }
}

/// A batch gives each sequence the logits that it gets alone: in a prefill in two
/// chunks, and in the SparQ decode steps behind it.
pub fn a_ragged_model_batch_equals_one_by_one(device: &Device) {
    let model = load("llama", DType::F32, device);
    let vocab = model.vocab_size();
    let shape = model.attention_layers()[0].shape;
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 8, 6) };
    let method = Method::Sparq(config);
    let (width, lens, steps) = (20, [20usize, 3, 11], 5);
    let token = |b: usize, t: usize| ((b * 31 + t * 7) % vocab) as u32;
    let state = |batch| {
        let config = StateConfig { batch, max_len: width + steps, dtype: DType::F32 };
        ModelState::uniform(model.as_ref(), &config, &method).expect("a valid state")
    };

    let ids: Vec<Vec<u32>> = (0..3).map(|b| (0..lens[b]).map(|t| token(b, t)).collect()).collect();
    let logits = |rows: &[Row<'_>], state: &mut ModelState| {
        let logits = forward::step(model.as_ref(), rows, state, Want::Last).expect("it fits");
        forward::read(logits).expect("f32 logits")
    };
    let mut together = state(3);
    let mut last: Vec<Vec<f32>> = vec![vec![]; 3];
    // In any order of the sequences; the short ones have no tokens in the second chunk.
    for first in [0, width / 2] {
        let part = |b: usize| &ids[b][first.min(lens[b])..(first + width / 2).min(lens[b])];
        let rows = [2, 0, 1].map(|b| Row::prompt(part(b)).in_slot(b));
        let found = logits(&rows, &mut together);
        let given = rows.iter().filter(|row| !row.ids.is_empty());
        given.zip(found.chunks(vocab)).for_each(|(row, logits)| last[row.slot] = logits.to_vec());
    }
    assert_eq!(together.lens(), lens);
    let decoded: Vec<Vec<f32>> = (0..steps)
        .map(|step| {
            let ids = [0, 1, 2].map(|b| [token(b, 100 + step)]);
            logits(&[0, 1, 2].map(|b| Row::decode(&ids[b]).in_slot(b)), &mut together)
        })
        .collect();

    for b in 0..3 {
        let mut alone = state(1);
        let prefill = logits(&[Row::prompt(&ids[b])], &mut alone);
        assert_close(&last[b], &prefill, f32().reference, "prefill");
        for (step, together) in decoded.iter().enumerate() {
            let logits = logits(&[Row::decode(&[token(b, 100 + step)])], &mut alone);
            let what = format!("sequence {b}, step {step}");
            assert_close(&together[b * vocab..(b + 1) * vocab], &logits, f32().reference, &what);
        }
    }
    assert!(together.traffic().moved.k_t.elements > 0, "the steps ran through SparQ");
}

/// What the reference Llama writes behind 40 tokens with SparQ attention, each token the likeliest: the
/// same on every backend.
pub fn greedy_tokens_with_sparq(device: &Device) {
    let model = load("llama", DType::F32, device);
    let vocab = model.vocab_size();
    let shape = model.attention_layers()[0].shape;
    let method = Method::Sparq(SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 8, 12) });
    let config = StateConfig { batch: 1, max_len: 40 + GREEDY.len(), dtype: DType::F32 };
    let mut state = ModelState::uniform(model.as_ref(), &config, &method).expect("a valid state");
    let prompt: Vec<u32> = (0..40).map(|t| (t * t * 7 % vocab) as u32).collect();
    let step = |row: Row<'_>, state: &mut ModelState| {
        forward::step(model.as_ref(), &[row], state, Want::Last).expect("it fits")
    };
    let mut logits = step(Row::prompt(&prompt), &mut state);
    let mut tokens = vec![];
    // How clear the least clear choice is: rounding moves logits by less than the tolerance.
    let mut margin = f32::INFINITY;
    while tokens.len() < GREEDY.len() {
        let row = forward::read(logits).expect("f32 logits");
        let mut order: Vec<usize> = (0..vocab).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        margin = margin.min(row[order[0]] - row[order[1]]);
        tokens.push(order[0] as u32);
        logits = step(Row::decode(&tokens[tokens.len() - 1..]), &mut state);
    }
    assert_eq!(tokens, GREEDY, "least margin {margin}");
    assert!(margin > 5.0 * f32().reference, "a choice hangs on {margin}");
    assert!(state.traffic().moved.k_t.elements > 0, "the steps ran through SparQ");
}

/// As Flex gives them.
const GREEDY: [u32; 24] =
    [34, 3, 18, 71, 47, 11, 18, 106, 18, 106, 18, 106, 69, 18, 109, 90, 15, 125, 11, 121, 90, 12, 100, 83];
