use sparq_core::MethodKind;

use super::*;
use crate::{
    attention::MethodSpec,
    eval::{
        tasks::{Maker, Plan, task},
        testing::model,
    },
};

/// All methods at a size that every one of them reaches.
fn variants() -> Vec<Variant> {
    let mut specs: Vec<MethodSpec> = MethodKind::ALL.into_iter().map(MethodSpec::from).collect();
    // Keys in another form than other methods read, between them.
    specs.insert(2, MethodSpec::parse("sparq:kt=int8").unwrap());
    specs.insert(3, MethodSpec::parse("sparq:kt=int4").unwrap());
    Variant::all(&specs, &[1.5])
}

fn samples(model: &TextModel, name: &str) -> Vec<Sample> {
    let plan = Plan { limit: 2, lengths: vec![450], depths: 2, seed: 3 };
    task(name).unwrap().samples(&Maker { model, plan: &plan }, None).unwrap()
}

/// Nats per answer token of a run of its own: nothing shared, nothing batched.
fn alone(model: &TextModel, sample: &Sample, variant: &Variant) -> f64 {
    let script = Script::new(model.tokenizer(), sample).unwrap();
    let max_len = script.prefill.len() + script.fed.len();
    let config = StateConfig { batch: 1, max_len, dtype: model.dtype() };
    let methods = variant.methods(&model.model().attention_layers(), sample.length).unwrap();
    let mut state = ModelState::new(model.model(), &config, &methods).unwrap();
    forward::step(model.model(), &[Row::prompt(&script.prefill)], &mut state, Want::Nothing).unwrap();
    let mut nats = vec![];
    for step in 0..script.steps() {
        let logits =
            forward::step(model.model(), &[Row::decode(&script.fed[step..=step])], &mut state, Want::Last)
                .unwrap();
        if let Some((_, id)) = script.target(step) {
            nats.push(-f64::from(log_softmax(&forward::read(logits).unwrap())[id as usize]));
        }
    }
    nats.iter().sum::<f64>() / nats.len() as f64
}

#[test]
fn methods_on_one_prefill_answer_as_in_runs_of_their_own() {
    let model = model();
    let task = task("multi-turn").unwrap();
    let samples = samples(&model, task.name);
    let variants = variants();
    let results = Batch::new(&model, task, &samples, &variants).unwrap().run(&mut || {}).unwrap();
    // A run alone costs a prefill for each method: the second of the two sequences stands for both.
    for (sample, result) in samples.iter().zip(&results).skip(1) {
        for (variant, outcome) in variants.iter().zip(&result.outcomes) {
            let expected = alone(&model, sample, variant);
            let found = outcome.nats_per_token;
            // A near tie between two positions may be settled otherwise in a batch.
            let allowed = 2e-3 + 0.02 * expected;
            assert!((found - expected).abs() < allowed, "{}: {found} and alone {expected}", variant.name);
        }
    }
    let outcome = |row: usize, kind: MethodKind| {
        let at = variants.iter().position(|variant| variant.name == kind.name()).unwrap();
        &results[row].outcomes[at]
    };
    assert_eq!((outcome(0, MethodKind::Dense).kl, outcome(0, MethodKind::Dense).top_1_agreement), (0.0, 1.0));
    assert!(outcome(1, MethodKind::Local).kl > 0.0);
    let bytes = |kind| outcome(0, kind).kv_bytes_per_token;
    for kind in [MethodKind::Sparq, MethodKind::H2o, MethodKind::Local, MethodKind::Quest] {
        let part = bytes(kind) / bytes(MethodKind::Dense);
        assert!((0.55..0.9).contains(&part), "{kind}: {part} of dense bytes for 1/1.5");
    }
}

#[test]
fn outputs_go_on_from_the_question() {
    let model = model();
    let task = task("niah-single").unwrap();
    let samples = samples(&model, task.name);
    let dense = vec![Variant::dense()];
    let results = Batch::new(&model, task, &samples, &dense).unwrap().run(&mut || {}).unwrap();
    for (sample, result) in samples.iter().zip(&results) {
        let turn = &sample.turns[0];
        let options = crate::generate::GenerateOptions {
            attention: MethodKind::Dense.into(),
            max_new_tokens: turn.new_tokens,
            ignore_eos: true,
            ..Default::default()
        };
        let prompt = format!("{}{}", sample.context, turn.question);
        let expected =
            model.generate(&prompt, &options, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        let output = result.outcomes[0].output.as_ref().unwrap();
        // The batch rounds otherwise, so a tie may fall the other way after a while.
        assert_eq!(output[..12], expected.text[..12], "{output} and {}", expected.text);
    }
}
