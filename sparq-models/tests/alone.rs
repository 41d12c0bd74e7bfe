//! What a sequence gets on the CPU depends neither on the sequences beside it nor on the chunks that its prompt comes
//! in: the same bits, for all families and methods.
#![allow(clippy::unwrap_used)] // In tests, helpers included.

use std::{fs, path::Path};

use burn::tensor::DType;
use sparq_models::{
    attention::MethodSpec,
    checkpoint::Checkpoint,
    core::{Method, MethodKind, device},
    forward::{self, Row, Want},
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
/// tokens at a time, and the short ones are decoded while others are in their prompts.
fn run(
    model: &dyn CausalModel,
    methods: &[Method],
    dtype: DType,
    sequences: &[usize],
    chunk: usize,
) -> Vec<Vec<Vec<u32>>> {
    let config = StateConfig { batch: sequences.len(), max_len: PROMPTS[0] + STEPS, dtype };
    let mut state = ModelState::new(model, &config, methods).unwrap();
    state.expect(PROMPTS[0] + STEPS);
    let texts: Vec<Vec<u32>> =
        sequences.iter().map(|&b| (0..PROMPTS[b] + STEPS).map(|i| id(model, b, i)).collect()).collect();
    let rows = |slot: usize| {
        let (prompt, rest) = texts[slot].split_at(PROMPTS[sequences[slot]]);
        let prompt = prompt.chunks(chunk).map(Row::prompt);
        prompt.chain(rest.chunks(1).map(Row::decode)).map(|row| row.in_slot(slot)).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<Row<'_>>> = (0..texts.len()).map(rows).collect();
    let mut logits = vec![vec![]; texts.len()];
    for turn in 0..rows.iter().map(Vec::len).max().unwrap() {
        let rows: Vec<Row<'_>> = rows.iter().filter_map(|rows| rows.get(turn).copied()).collect();
        let found = forward::read(forward::step(model, &rows, &mut state, Want::All).unwrap()).unwrap();
        let mut found = found.chunks(model.vocab_size());
        for row in rows {
            let of_row = found.by_ref().take(row.ids.len());
            logits[row.slot].extend(of_row.map(|row| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
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
fn each(check: impl Fn(&dyn CausalModel, &[Method], DType) -> Option<String>) {
    let mut found = vec![];
    let families = families();
    assert!(families.len() >= 17, "the fixtures of {} families", families.len());
    for (name, model) in &families {
        for spec in METHODS {
            let kind = MethodSpec::parse(spec).unwrap().kind;
            for dtype in [DType::F32, DType::F16] {
                let difference = check(model.as_ref(), &methods(model.as_ref(), spec), dtype);
                found.extend(difference.map(|what| format!("{name} {kind} {dtype:?}: {what}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_sequence_is_the_same_beside_others() {
    each(|model, methods, dtype| {
        // At once, and where short prompts are decoded beside long ones.
        [PROMPTS[0], 10].into_iter().find_map(|chunk| {
            let together = run(model, methods, dtype, &[0, 1, 2, 3], chunk);
            (0..4).find_map(|b| {
                let alone = run(model, methods, dtype, &[b], chunk);
                difference(&alone[0], &together[b]).map(|what| format!("by {chunk}, sequence {b}, {what}"))
            })
        })
    });
}

#[test]
fn a_prompt_is_the_same_in_any_chunks() {
    each(|model, methods, dtype| {
        let whole = run(model, methods, dtype, &[0], PROMPTS[0]);
        [1, 3, 5].into_iter().find_map(|chunk| {
            let in_chunks = run(model, methods, dtype, &[0], chunk);
            difference(&in_chunks[0], &whole[0]).map(|what| format!("by {chunk}, {what}"))
        })
    });
}
