use std::{ops::ControlFlow, path::Path};

use burn::tensor::{DType, Device};

use super::*;
use crate::{checkpoint::Checkpoint, text_model::TextModel};

fn model() -> TextModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-cli/demo");
    let checkpoint = Checkpoint::open(folder).unwrap();
    TextModel::load(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| ()).unwrap()
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    let attention = "sparq:dense-below=0".parse().unwrap(); // No measurement.
    GenerateOptions { attention, max_new_tokens, ignore_eos: true, ..GenerateOptions::default() }
}

fn prompt(model: &TextModel, text: &str) -> Vec<u32> {
    model.tokenizer().encode(text, true).unwrap()
}

#[test]
fn steps_in_turns_write_what_runs_alone_write() {
    let model = model();
    let prompts = ["Once upon a time", "The cat was"].map(|text| prompt(&model, text));
    let alone = prompts.each_ref().map(|ids| {
        let mut text = String::new();
        let found = Session::new(&model, None).generate(ids, &options(40), &mut |event| {
            if let crate::generate::Event::Text(piece) = event {
                text += piece;
            }
            ControlFlow::Continue(())
        });
        let found = found.unwrap();
        assert_eq!(text, found.text);
        found
    });
    let mut sessions = [(); 2].map(|()| Session::new(&model, None));
    let [first, second] = &mut sessions;
    let mut writings =
        [first.begin(&prompts[0], &options(40)).unwrap(), second.begin(&prompts[1], &options(40)).unwrap()];
    let mut seen: [(Vec<u32>, String); 2] = Default::default();
    let mut steps = 0;
    while writings.iter().any(|writing| writing.ended().is_none()) {
        for (writing, (ids, all)) in writings.iter_mut().zip(&mut seen) {
            if let Some(WritingStep::Token { id, text }) = writing.step().unwrap() {
                ids.push(id);
                *all += &text;
            }
            steps += 1;
        }
    }
    assert_eq!(steps, 2 * 41, "a chunk of the prompt and forty tokens each");
    for ((writing, (ids, text)), alone) in writings.into_iter().zip(seen).zip(alone) {
        assert_eq!((&ids, &text), (&alone.tokens, &alone.text));
        let found = writing.finish().unwrap();
        assert_eq!((found.text, found.tokens), (alone.text, alone.tokens));
        assert_eq!(found.stats.finish, Finish::MaxNewTokens);
        assert_eq!(found.stats.traffic, alone.stats.traffic);
    }
    assert_eq!(sessions[0].cached_tokens().len(), prompts[0].len() + 39);
}

#[test]
fn a_text_may_be_cancelled_or_dropped() {
    let model = model();
    let mut session = Session::new(&model, None);
    let ids = prompt(&model, "Once upon a time");
    let mut writing = session.begin(&ids, &options(40)).unwrap();
    for _ in 0..4 {
        writing.step().unwrap().unwrap();
    }
    let text = writing.text().to_owned();
    let rest = writing.cancel().unwrap();
    assert_eq!((writing.step().unwrap(), writing.ended()), (None, Some(&Finish::Cancelled)));
    let found = writing.finish().unwrap();
    assert_eq!((found.tokens.len(), found.text), (3, text + &rest));
    assert_eq!(session.cached_tokens().len(), ids.len() + 2);
    drop(session.begin(&ids, &options(40)).unwrap());
    assert_eq!(session.cached_tokens().len(), 0, "nobody knows what a dropped run left");
    assert_eq!(session.begin(&ids, &options(2)).unwrap().finish().unwrap().stats.finish, Finish::Cancelled);
}
