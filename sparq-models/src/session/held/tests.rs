use std::{ops::ControlFlow, path::Path};

use burn::tensor::{DType, Device};

use super::MARKS;
use crate::{
    attention::{DenseBelow, MethodSpec},
    checkpoint::Checkpoint,
    generate::GenerateOptions,
    session::Session,
    text_model::TextModel,
};

/// The small trained model that ships with the program.
fn model() -> TextModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-cli/demo");
    let checkpoint = Checkpoint::open(folder).unwrap();
    TextModel::load(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| ()).unwrap()
}

const METHODS: [&str; 11] = [
    "dense",
    "sparq:r=16:k=24:mean=off",
    "sparq:r=16:k=24:mean=on",
    "sparq:r=16:k=24:kt=int8",
    "sparq-mass:r=16:k=24:p=0.9",
    "exact-topk:k=24",
    "oracle-topk:k=24",
    "local:k=24",
    "h2o:k=24",
    "quest:k=24:page=8",
    "double-sparsity:r=16:k=24",
];

fn options(method: &str, max_new_tokens: usize) -> GenerateOptions {
    let mut spec = MethodSpec::parse(method).unwrap();
    spec.keys.dense_below = Some(DenseBelow::Tokens(0)); // No measurement.
    GenerateOptions { attention: spec.into(), max_new_tokens, ignore_eos: true, ..GenerateOptions::default() }
}

/// The answer's tokens, and how many tokens of the prompt were kept.
fn run(session: &mut Session<'_>, ids: &[u32], options: &GenerateOptions) -> (Vec<u32>, usize) {
    let answer = session.generate(ids, options, &mut |_| ControlFlow::Continue(())).unwrap();
    (answer.tokens, answer.stats.cached_tokens)
}

fn ids(model: &TextModel, text: &str) -> Vec<u32> {
    model.tokenizer().encode(text, false).unwrap()
}

const FIRST: &str = "It was a dark night, and the old house stood alone upon the hill above the sea. ";
const SECOND: &str = " But in the morning the sun rose over the water, and the ship was gone.";
const THIRD: &str = " The captain said nothing of it, and went down to the shore.";

#[test]
fn going_back_leaves_no_trace_in_any_method() {
    let model = model();
    let (first, second) = (ids(&model, &FIRST.repeat(2)), ids(&model, SECOND));
    for method in METHODS {
        let options = options(method, 8);
        let fresh = |prompt: &[u32]| run(&mut Session::new(&model, None), prompt, &options).0;
        let answer = fresh(&first);
        let whole = [&first[..], &answer].concat();
        // Within the prompt, at its end, within the answer; the last token of an answer is not cached.
        for cut in [4, first.len() / 2, first.len(), first.len() + 3] {
            let other = [&whole[..cut], &second].concat();
            let mut session = Session::new(&model, None);
            assert_eq!(run(&mut session, &first, &options).0, answer, "{method}");
            assert_eq!(run(&mut session, &other, &options).0, fresh(&other), "{method}, back to {cut}");
            // And back again.
            assert_eq!(run(&mut session, &first, &options).0, answer, "{method}, from {cut}");
        }
    }
}

#[test]
fn an_earlier_turn_is_gone_back_to_as_it_was() {
    let model = model();
    let [first, second, third] = [&FIRST.repeat(2), SECOND, THIRD].map(|text| ids(&model, text));
    for method in METHODS {
        let options = options(method, 8);
        let mut session = Session::new(&model, None);
        let one = run(&mut session, &first, &options).0;
        let text = [&first[..], &one, &second].concat();
        let (two, cached) = run(&mut session, &text, &options);
        assert_eq!(cached, first.len() + 7, "{method}: goes on behind the answer");
        // Another second turn, and the first one once more.
        run(&mut session, &[&first[..], &one, &third].concat(), &options);
        let (again, cached) = run(&mut session, &text, &options);
        assert_eq!(again, two, "{method}");
        assert!(cached >= first.len() + 7, "{method}: {cached} tokens were kept");
        // A turn that is asked for again: methods that remember go back to where it began.
        let (again, cached) = run(&mut session, &text, &options);
        let remembers = ["h2o", "double-sparsity"].iter().any(|name| method.starts_with(name));
        let expected = if remembers { first.len() + 7 } else { text.len() - 1 };
        assert_eq!((again, cached), (two, expected), "{method}");
    }
}

#[test]
fn sizes_that_follow_the_length_do_not_begin_anew() {
    let model = model();
    for method in ["h2o@4", "double-sparsity@4", "sparq@4", "quest@4"] {
        let mut session = Session::new(&model, None);
        let mut text = ids(&model, FIRST);
        for turn in 0..3 {
            let before = session.cached_tokens().len();
            let (answer, cached) = run(&mut session, &text, &options(method, 6));
            assert_eq!(cached, before, "{method}, turn {turn}");
            text.extend(answer);
            text.extend(ids(&model, SECOND));
        }
    }
}

#[test]
fn marks_are_few() {
    let model = model();
    let options = options("h2o:k=16", 2);
    let mut session = Session::new(&model, None);
    let mut text = ids(&model, FIRST);
    for _ in 0..MARKS {
        let answer = run(&mut session, &text, &options).0;
        text.extend(answer);
        text.extend(&ids(&model, SECOND)[..3]);
    }
    let held = session.held.as_ref().unwrap();
    assert_eq!(held.marks.len(), MARKS);
    assert!(held.marks.iter().zip(held.marks.iter().skip(1)).all(|(a, b)| a.0 < b.0));
    // Before the first of them there is none: what is shared goes through the model again.
    let early = held.marks[0].0 - 1;
    assert_eq!(run(&mut session, &[&text[..early], &[5, 6]].concat(), &options).1, 0);
}

#[test]
fn another_method_goes_on_where_the_caches_hold_what_it_needs() {
    let model = model();
    let text = ids(&model, &FIRST.repeat(2));
    let mut session = Session::new(&model, None);
    let mut cached = |method: &str| run(&mut session, &text, &options(method, 3)).1;
    let kept = text.len() - 1;
    assert_eq!(cached("sparq:r=16:k=24:mean=on"), 0);
    assert_eq!(cached("dense"), kept);
    assert_eq!(cached("sparq:r=16:k=24:mean=off"), kept, "the transposed keys are made from the keys");
    assert_eq!(cached("sparq:r=16:k=24:kt=int8:mean=off"), kept);
    assert_eq!(cached("sparq:r=16:k=24:mean=on"), kept, "the sums are made from the values");
    assert_eq!(cached("h2o:k=24"), 0, "it has to watch the prefill");
    assert_eq!(cached("local:k=24"), kept);
}
