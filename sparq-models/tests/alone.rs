//! What a sequence gets on the CPU depends neither on the sequences beside it nor on the chunks that its prompt comes
//! in: the same bits, for all families and methods.
#![allow(clippy::unwrap_used)] // In tests, helpers included.

use std::{fs, path::Path};

use burn::tensor::DType;
use sparq_models::{
    attention::MethodSpec,
    checkpoint::Checkpoint,
    core::{Method, MethodKind, NewTokens, device},
    forward,
    models::CausalModel,
    state::{ModelState, StateConfig},
    text_model::load_model,
};

/// Tokens of the prompts, the second one short enough that nothing of it is left out.
const PROMPTS: [usize; 4] = [41, 6, 29, 17];

/// Steps after the prompts.
const STEPS: usize = 3;

/// The methods, with sizes that leave something out of 41 tokens.
const METHODS: [&str; 9] = [
    "dense",
    "sparq:r=8:k=12",
    "sparq-mass:r=8:k=12",
    "exact-topk:k=12",
    "oracle-topk:k=12",
    "local:k=12",
    "h2o:k=12",
    "quest:k=16:page=4",
    "double-sparsity:r=8:k=12",
];

/// The sequences that are the same beside each other. Burn's operations add up other lengths in another order: those
/// methods fill a step up to its longest sequence, where alone a short one is attended to densely; a mass budget fills
/// up what it keeps of each sequence to the most that it keeps of any.
fn sequences(kind: MethodKind) -> &'static [usize] {
    match kind {
        MethodKind::Dense | MethodKind::Sparq => &[0, 1, 2, 3],
        MethodKind::SparqMass => &[],
        _ => &[0, 2, 3],
    }
}

/// Every family's fixture, with its name.
fn families() -> Vec<(String, Box<dyn CausalModel>)> {
    let device = device::parse("cpu").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/families");
    let mut folders: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("config.json").exists());
    folders.sort();
    let load = |folder: &std::path::PathBuf| {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let model = load_model(&checkpoint, &device, DType::F32, &mut |_, _| {}).unwrap();
        (folder.file_name().unwrap().to_string_lossy().into_owned(), model)
    };
    folders.iter().map(load).collect()
}

fn methods(model: &dyn CausalModel, spec: &str) -> Vec<Method> {
    let spec = MethodSpec::parse(spec).unwrap();
    model.attention_layers().iter().map(|layer| spec.resolve(layer, PROMPTS[0] + STEPS).unwrap()).collect()
}

/// Token `i` of sequence `b`.
fn id(model: &dyn CausalModel, b: usize, i: usize) -> u32 {
    ((i * 37 + b * 101 + i * i * 7 + 5) % model.vocab_size()) as u32
}

/// The bits of the logits after each token of each of the sequences, which run together; their prompts come `chunk`
/// tokens at a time.
fn run(
    model: &dyn CausalModel,
    methods: &[Method],
    dtype: DType,
    sequences: &[usize],
    chunk: usize,
) -> Vec<Vec<Vec<u32>>> {
    let lens: Vec<usize> = sequences.iter().map(|&b| PROMPTS[b]).collect();
    let width = *lens.iter().max().unwrap();
    let config = StateConfig { batch: lens.len(), max_len: PROMPTS[0] + STEPS, dtype };
    let mut state = ModelState::of_methods(model, &config, methods).unwrap();
    state.expect(PROMPTS[0] + STEPS);
    let mut logits = vec![vec![]; lens.len()];
    let vocab = model.vocab_size();
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let new = NewTokens::ragged(width, &lens).unwrap();
    for first in (0..width).step_by(chunk.min(width)) {
        let count = chunk.min(width - first);
        let ids: Vec<u32> =
            sequences.iter().flat_map(|&b| (first..first + count).map(move |i| id(model, b, i))).collect();
        let found = forward::prefill_logits(model, &ids, &new.columns(first, count), &mut state).unwrap();
        let found = forward::read(found).unwrap();
        for (b, (logits, len)) in logits.iter_mut().zip(&lens).enumerate() {
            let real = count.min(len.saturating_sub(first));
            logits.extend(found[b * count * vocab..].chunks(vocab).take(real).map(bits));
        }
    }
    for step in 0..STEPS {
        let ids: Vec<u32> = sequences.iter().map(|&b| id(model, b, PROMPTS[b] + step)).collect();
        let found = forward::read(forward::decode(model, &ids, &mut state).unwrap()).unwrap();
        for (logits, row) in logits.iter_mut().zip(found.chunks(vocab)) {
            logits.push(bits(row));
        }
    }
    logits
}

/// The first token whose logits differ, and how many of those do.
fn difference(a: &[Vec<u32>], b: &[Vec<u32>]) -> Option<String> {
    assert_eq!(a.len(), b.len());
    let of_token = |(a, b): (&Vec<u32>, &Vec<u32>)| a.iter().zip(b).filter(|(a, b)| a != b).count();
    let counts: Vec<usize> = a.iter().zip(b).map(of_token).collect();
    let first = counts.iter().position(|&count| count > 0)?;
    Some(format!("token {first} of {}: {} of {} logits differ", a.len(), counts[first], a[first].len()))
}

#[test]
fn every_method_is_run() {
    let kinds: Vec<_> = METHODS.iter().map(|spec| MethodSpec::parse(spec).unwrap().kind).collect();
    assert_eq!(kinds, MethodKind::ALL);
}

/// Runs `check` on each family and method, and names all that differ.
fn each(check: impl Fn(&dyn CausalModel, MethodKind, &[Method], DType) -> Option<String>) {
    let mut found = vec![];
    let families = families();
    assert!(families.len() >= 17, "the fixtures of {} families", families.len());
    for (name, model) in &families {
        for spec in METHODS {
            let kind = MethodSpec::parse(spec).unwrap().kind;
            for dtype in [DType::F32, DType::F16] {
                let difference = check(model.as_ref(), kind, &methods(model.as_ref(), spec), dtype);
                found.extend(difference.map(|what| format!("{name} {kind} {dtype:?}: {what}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_sequence_is_the_same_beside_others() {
    each(|model, kind, methods, dtype| {
        let sequences = sequences(kind);
        if sequences.is_empty() {
            return None;
        }
        let together = run(model, methods, dtype, sequences, usize::MAX);
        sequences.iter().zip(&together).find_map(|(&b, together)| {
            let alone = run(model, methods, dtype, &[b], usize::MAX);
            difference(&alone[0], together).map(|what| format!("sequence {b}, {what}"))
        })
    });
}

#[test]
fn a_prompt_is_the_same_in_any_chunks() {
    each(|model, _, methods, dtype| {
        let whole = run(model, methods, dtype, &[0], usize::MAX);
        [1, 3, 5].into_iter().find_map(|chunk| {
            let in_chunks = run(model, methods, dtype, &[0], chunk);
            difference(&in_chunks[0], &whole[0]).map(|what| format!("by {chunk}, {what}"))
        })
    });
}
