use std::path::Path;

use burn::tensor::{DType, Device};
use sparq_core::MethodKind;

use super::{writing::PREFILL_CHUNK, *};
use crate::{
    checkpoint::Checkpoint,
    crossover::Verdict,
    forward::{self, Row, Want},
    generate::Finish,
    state::ModelState,
};

/// The small trained model that ships with the program.
fn model() -> TextModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-cli/demo");
    let checkpoint = Checkpoint::open(folder).unwrap();
    TextModel::load(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| ()).unwrap()
}

fn dense() -> AttentionPlan {
    MethodKind::Dense.into()
}

fn sparq(mean_value: bool) -> AttentionPlan {
    let mean = if mean_value { "on" } else { "off" };
    format!("sparq:r=16:k=24:mean={mean}:dense-below=0").parse().unwrap()
}

fn options(attention: &AttentionPlan, max_new_tokens: usize) -> GenerateOptions {
    let attention = attention.clone();
    GenerateOptions { attention, max_new_tokens, ignore_eos: true, ..GenerateOptions::default() }
}

/// A generation and the prompt tokens that went through the model, as the events counted them.
fn run(session: &mut Session<'_>, ids: &[u32], options: &GenerateOptions) -> (Generation, usize) {
    let mut prefilled = 0;
    let generation = session.generate(ids, options, &mut |event| {
        if let Event::Prefill { done, .. } = event {
            prefilled = done;
        }
        ControlFlow::Continue(())
    });
    (generation.unwrap(), prefilled)
}

const FIRST: &str = "It was a dark night, and the old house stood alone upon the hill above the sea. ";
const SECOND: &str = " But in the morning the sun rose over the water, and the ship was gone.";

#[test]
fn a_second_turn_prefills_what_is_new_and_reads_as_a_fresh_run() {
    let model = model();
    let first = model.tokenizer().encode(&FIRST.repeat(3), true).unwrap();
    let added = model.tokenizer().encode(SECOND, false).unwrap();
    let mut session = Session::new(&model, None);
    let (answer, prefilled) = run(&mut session, &first, &options(&dense(), 20));
    assert_eq!((prefilled, answer.stats.cached_tokens), (first.len(), 0));

    let whole = [&first[..], &answer.tokens, &added].concat();
    let (second, prefilled) = run(&mut session, &whole, &options(&dense(), 20));
    // The last token of an answer was never fed back.
    assert_eq!(prefilled, added.len() + 1);
    assert_eq!(second.stats.prefill_tokens(), added.len() + 1);
    assert_eq!(second.stats.cached_tokens, first.len() + 19);
    assert_eq!((second.stats.prompt_tokens, second.stats.decode_steps), (whole.len(), 19));
    assert_eq!(second.stats.traffic.steps, 19 * 8, "one of each layer, of this run alone");

    let (fresh, prefilled) = run(&mut Session::new(&model, None), &whole, &options(&dense(), 20));
    assert_eq!(prefilled, whole.len());
    assert_eq!((second.text, second.tokens), (fresh.text, fresh.tokens));
}

#[test]
fn under_sparq_a_session_is_one_long_run() {
    let model = model();
    for mean_value in [false, true] {
        let attention = sparq(mean_value);
        let first = model.tokenizer().encode(&FIRST.repeat(3), true).unwrap();
        let added = model.tokenizer().encode(SECOND, false).unwrap();
        let mut session = Session::new(&model, Some(1024));
        let (answer, _) = run(&mut session, &first, &options(&attention, 12));
        let whole = [&first[..], &answer.tokens, &added].concat();
        let (second, prefilled) = run(&mut session, &whole, &options(&attention, 12));
        assert_eq!(prefilled, added.len() + 1);
        assert!(second.stats.traffic.moved.k_t.bytes > 0, "it ran sparse");

        // The same by hand: prefill, decode steps, prefill, decode steps.
        let config = StateConfig { batch: 1, max_len: 1024, dtype: DType::F32 };
        let methods = attention.methods(&model.model().attention_layers(), 1024).unwrap();
        let mut state = ModelState::new(model.model(), &config, &methods).unwrap();
        forward::step(model.model(), &[Row::prompt(&first)], &mut state, Want::Nothing).unwrap();
        for &id in &answer.tokens[..11] {
            forward::step(model.model(), &[Row::decode(&[id])], &mut state, Want::Last).unwrap();
        }
        let rest = &whole[first.len() + 11..];
        let mut logits = forward::read(
            forward::step(model.model(), &[Row::prompt(rest)], &mut state, Want::Last).unwrap(),
        )
        .unwrap();
        let mut greedy = Sampler::new(options(&attention, 12).sampler).unwrap();
        let mut expected = vec![];
        for _ in 0..12 {
            let id = greedy.sample(&mut logits, &expected).unwrap();
            expected.push(id);
            logits = forward::read(
                forward::step(model.model(), &[Row::decode(&[id])], &mut state, Want::Last).unwrap(),
            )
            .unwrap();
        }
        assert_eq!(second.tokens, expected, "mean value {mean_value}");
    }
}

#[test]
fn an_edited_text_costs_what_follows_the_edit() {
    let model = model();
    let common = model.tokenizer().encode(&FIRST.repeat(8), true).unwrap();
    let other = model.tokenizer().encode(SECOND, false).unwrap();
    for attention in [dense(), sparq(false), sparq(true)] {
        let mut session = Session::new(&model, None);
        let before = [&common[..], &other, &other].concat();
        run(&mut session, &before, &options(&attention, 0));
        assert_eq!(session.cached_tokens(), before);
        let edited = [&common[..], &other[3..]].concat();
        let (found, prefilled) = run(&mut session, &edited, &options(&attention, 16));
        assert_eq!(prefilled, other.len() - 3);
        let (fresh, _) = run(&mut Session::new(&model, None), &edited, &options(&attention, 16));
        assert_eq!(found.tokens, fresh.tokens, "{attention:?}");
        // The very same prompt once more: its last token has to go through the model again.
        let (again, prefilled) = run(&mut session, &edited, &options(&attention, 16));
        assert_eq!((prefilled, again.tokens), (1, found.tokens));
    }
}

#[test]
fn a_method_that_lacks_something_begins_anew_and_other_sizes_do_not() {
    let model = model();
    let ids = model.tokenizer().encode(&FIRST.repeat(3), true).unwrap();
    let mut session = Session::new(&model, None);
    let cached = |session: &mut Session<'_>, attention: &AttentionPlan| {
        run(session, &ids, &options(attention, 2)).0.stats.cached_tokens
    };
    assert_eq!(cached(&mut session, &sparq(false)), 0);
    let wider = "sparq:r=32:k=40:mean=off:dense-below=0".parse().unwrap();
    assert_eq!(cached(&mut session, &wider), ids.len() - 1);
    assert_eq!(cached(&mut session, &sparq(true)), ids.len() - 1, "the values are summed then");
    assert_eq!(cached(&mut session, &dense()), ids.len() - 1, "it needs nothing but keys and values");
    assert_eq!(cached(&mut session, &sparq(true)), ids.len() - 1, "from the values again");
    assert_eq!(cached(&mut session, &"h2o:k=40".parse().unwrap()), 0, "it did not see the prompt");
    session.clear();
    assert!(session.cached_tokens().is_empty());
}

#[test]
fn a_run_that_is_stopped_leaves_a_session_to_go_on_with() {
    let model = model();
    let ids = model.tokenizer().encode(&FIRST.repeat(60), true).unwrap();
    assert!(ids.len() > 2 * PREFILL_CHUNK);
    let options = options(&dense(), 8);
    let mut session = Session::new(&model, None);
    let stopped = session.generate(&ids, &options, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((stopped.stats.finish, stopped.tokens.len()), (Finish::Cancelled, 0));
    assert_eq!(session.cached_tokens().len(), PREFILL_CHUNK);
    let (resumed, prefilled) = run(&mut session, &ids, &options);
    assert_eq!(prefilled, ids.len() - PREFILL_CHUNK);
    assert_eq!(resumed.tokens, run(&mut Session::new(&model, None), &ids, &options).0.tokens);
    // A text that leaves no room is refused, and costs the session nothing.
    let held = session.cached_tokens().len();
    let long = ids.repeat(3);
    let refused = session.generate(&long, &options, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, Error::PromptTooLong { .. }));
    assert!(matches!(
        session.generate(&[], &options, &mut |_| ControlFlow::Continue(())),
        Err(Error::EmptyPrompt)
    ));
    assert_eq!(session.cached_tokens().len(), held);
}

/// All text and events of a generation.
fn events(session: &mut Session<'_>, ids: &[u32], options: &GenerateOptions) -> (Generation, Vec<usize>) {
    let mut beyond = vec![];
    let generation = session.generate(ids, options, &mut |event| {
        if let Event::BeyondTrainedLength { tokens } = event {
            beyond.push(tokens);
        }
        ControlFlow::Continue(())
    });
    (generation.unwrap(), beyond)
}

#[test]
fn a_prompt_that_exactly_fits_yields_one_token() {
    let model = model();
    let ids = model.tokenizer().encode(FIRST, true).unwrap();
    let long = options(&dense(), 9);
    for (room, expected) in [(0, 1), (1, 2), (4, 5)] {
        let mut session = Session::new(&model, Some(ids.len() + room));
        let (found, _) = run(&mut session, &ids, &long);
        assert_eq!((found.tokens.len(), &found.stats.finish), (expected, &Finish::MaxSeqLen));
    }
    let mut short = Session::new(&model, Some(ids.len() - 1));
    let error = short.generate(&ids, &long, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(
        error.contains(&ids.len().to_string()) && error.contains(&(ids.len() - 1).to_string()),
        "{error}"
    );
}

#[test]
fn limits_of_any_size_take_no_memory_beforehand_and_change_no_text() {
    let model = model();
    let ids = model.tokenizer().encode(FIRST, true).unwrap();
    let (expected, _) = run(&mut Session::new(&model, None), &ids, &options(&dense(), 6));
    let stop = model.tokenizer().decode(&expected.tokens[3..6]).unwrap();
    for attention in [dense(), sparq(true)] {
        let most = GenerateOptions { stop: vec![stop.clone()], ..options(&attention, usize::MAX) };
        let mut session = Session::new(&model, Some(usize::MAX));
        let (found, _) = run(&mut session, &ids, &most);
        assert_eq!(found.stats.finish, Finish::Stop(stop.clone()));
        // Eight layers of two heads of 64 in f32: keys and values, and for SparQ a copy of the keys.
        let tensors = if attention == dense() { 2 } else { 3 };
        // Memory is taken in blocks of 256 tokens.
        let capacity = (ids.len() + RESERVED_TOKENS).next_multiple_of(256);
        assert_eq!(found.stats.cache_bytes, capacity * 8 * 2 * 64 * 4 * tensors);
        let one_run = GenerateOptions { max_seq_len: Some(usize::MAX), ..most };
        let again = model.generate(FIRST, &one_run, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(again.tokens, found.tokens);
    }
}

#[test]
fn a_text_beyond_the_trained_length_says_so_once_and_goes_on() {
    let model = model();
    let longest = model.model().max_position_embeddings();
    let text = model.tokenizer().encode(&FIRST.repeat(200), true).unwrap();
    let ids = &text[..longest - 2];
    let mut session = Session::new(&model, Some(longest + 20));
    // Up to the longest length, which the last new token does not enter.
    let (found, beyond) = events(&mut session, ids, &options(&dense(), 3));
    assert_eq!((found.tokens.len(), beyond.len()), (3, 0));
    let (found, beyond) = events(&mut session, ids, &options(&dense(), 8));
    assert_eq!((found.tokens.len(), beyond), (8, vec![longest]));
    let (_, beyond) = events(&mut session, ids, &options(&dense(), 8));
    assert_eq!(beyond.len(), 0, "once for a session");
    // Certain from the start.
    let (_, beyond) =
        events(&mut Session::new(&model, Some(longest + 20)), &text[..longest + 1], &options(&dense(), 1));
    assert_eq!(beyond, [longest]);
}

#[test]
fn a_stop_text_that_only_the_end_completes_is_the_reason() {
    let model = model();
    let ids = model.tokenizer().encode(FIRST, true).unwrap();
    // The first byte of an emoji alone is no text until the end makes it one.
    let byte = model.tokenizer().token_to_id("ð").unwrap();
    let mut forced = options(&dense(), 1);
    forced.sampler.rules.sequence_bias = vec![(vec![byte], 1e6)];
    let (plain, _) = run(&mut Session::new(&model, None), &ids, &forced);
    assert_eq!((plain.text.as_str(), &plain.stats.finish), ("\u{fffd}", &Finish::MaxNewTokens));
    forced.stop = vec!["\u{fffd}".to_owned()];
    let (stopped, _) = run(&mut Session::new(&model, None), &ids, &forced);
    assert_eq!(stopped.text, "");
    assert_eq!(stopped.stats.finish, Finish::Stop("\u{fffd}".to_owned()));
}

#[test]
fn a_special_token_may_be_a_stop_text() {
    let model = model();
    let ids = model.tokenizer().encode(FIRST, true).unwrap();
    // The end of text is written at the third place, and passed over.
    let mut forced = options(&dense(), 3);
    forced.sampler.rules.forced_eos_token_ids = vec![1];
    let (plain, _) = run(&mut Session::new(&model, None), &ids, &forced);
    assert_eq!((plain.tokens[2], &plain.stats.finish), (1, &Finish::MaxNewTokens));
    let spelling = model.tokenizer().id_to_token(1).unwrap();
    let stop = GenerateOptions { stop: vec![spelling.clone()], ..forced.clone() };
    let (found, _) = run(&mut Session::new(&model, None), &ids, &stop);
    assert_eq!((&found.text, found.tokens.len()), (&plain.text, 3));
    assert_eq!(found.stats.finish, Finish::Stop(spelling.clone()));
    // Together with the text before it.
    let before = model.tokenizer().decode(&plain.tokens[1..2]).unwrap();
    let stop = GenerateOptions { stop: vec![before.clone() + &spelling], ..forced };
    let (found, _) = run(&mut Session::new(&model, None), &ids, &stop);
    assert_eq!(found.text + &before, plain.text);
}

#[test]
fn the_reason_of_an_end_is_told() {
    let model = model();
    let ids = model.tokenizer().encode(FIRST, true).unwrap();
    let finish =
        |options: &GenerateOptions| run(&mut Session::new(&model, None), &ids, options).0.stats.finish;
    let mut base = options(&dense(), 4);
    assert_eq!(finish(&base), Finish::MaxNewTokens);
    base.max_time = Some(std::time::Duration::ZERO);
    assert_eq!(finish(&base), Finish::MaxTime);
    base.max_time = None;
    base.sampler.rules.forced_eos_token_ids = vec![1];
    base.ignore_eos = false;
    assert_eq!(finish(&base), Finish::Eos(1));
    base.stop = vec![String::new()];
    let error =
        Session::new(&model, None).generate(&ids, &base, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().starts_with("stop is an empty text"), "{error}");
}

/// A Phi-3 whose rotary factors are others beyond 32 tokens.
fn long_rope() -> TextModel {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let path = crates.join("sparq-backend-tests/fixtures/families/phi3_long").join(file);
        std::fs::copy(path, folder.path().join(file)).unwrap();
    }
    std::fs::copy(crates.join("sparq-cli/demo/tokenizer.json"), folder.path().join("tokenizer.json"))
        .unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let model = TextModel::load(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| ()).unwrap();
    assert_eq!(model.model().longest_with_short_factors(), Some(32));
    model
}

/// The likeliest tokens behind `ids`, each by one pass over the whole text: the length of the pass decides
/// about its factors.
fn uncached(model: &TextModel, ids: &[u32], count: usize) -> Vec<u32> {
    let mut text = ids.to_vec();
    for _ in 0..count {
        let config = StateConfig { batch: 1, max_len: text.len(), dtype: DType::F32 };
        let mut state = ModelState::uniform(model.model(), &config, &Method::Dense).unwrap();
        let logits = forward::read(
            forward::step(model.model(), &[Row::prompt(&text)], &mut state, Want::Last).unwrap(),
        )
        .unwrap();
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        text.push(best.0 as u32);
    }
    text.split_off(ids.len())
}

#[test]
fn a_state_of_another_model_is_refused() {
    let (eight, two) = (model(), long_rope());
    let config = StateConfig { batch: 1, max_len: 8, dtype: DType::F32 };
    let mut state = ModelState::uniform(two.model(), &config, &Method::Dense).unwrap();
    let error = forward::step(eight.model(), &[Row::prompt(&[5, 6])], &mut state, Want::Nothing).unwrap_err();
    let own = eight.model().attention_layers().len();
    assert!(
        matches!(error, crate::Error::StateLayers { state: 2, model } if model == own && own != 2),
        "{error}"
    );
    assert_eq!(state.lens(), [0], "nothing is written");
}

#[test]
fn the_length_of_the_text_chooses_the_factors_of_longrope() {
    let model = long_rope();
    let layers = model.model().attention_layers().len() as u64;
    let ids: Vec<u32> = (0..40).map(|i| 4 + i * 37 % 90).collect();
    for prompt in [20, 31, 32, 33, 40] {
        let expected = uncached(&model, &ids[..prompt], 24);
        // Neither limit has a say.
        for (max_seq_len, count) in [(None, 24), (Some(prompt + 24), 24), (None, 8), (Some(256), 13)] {
            let mut session = Session::new(&model, max_seq_len);
            let (generation, _) = run(&mut session, &ids[..prompt], &options(&dense(), count));
            assert_eq!(generation.tokens, expected[..count], "prompt of {prompt}, {max_seq_len:?}");
            assert_eq!(generation.stats.decode_steps, count - 1);
            assert_eq!(
                generation.stats.traffic.steps,
                (count as u64 - 1) * layers,
                "each step of each layer counts"
            );
        }
    }
}

#[test]
fn a_conversation_that_crosses_the_border_reads_as_fresh_runs() {
    let model = long_rope();
    let ids: Vec<u32> = (0..40).map(|i| 4 + i * 37 % 90).collect();
    for attention in [dense(), sparq(true)] {
        let mut session = Session::new(&model, None);
        for (prompt, is_kept) in [(20, true), (30, true), (36, false), (40, true), (25, false), (28, true)] {
            let before = session.cached_tokens().len();
            let (turn, _) = run(&mut session, &ids[..prompt], &options(&attention, 3));
            assert_eq!(turn.stats.cached_tokens > 0, is_kept && before > 0, "{prompt}");
            let (fresh, _) = run(&mut Session::new(&model, None), &ids[..prompt], &options(&attention, 3));
            if attention == dense() {
                assert_eq!(turn.tokens, fresh.tokens, "{prompt}");
            }
        }
    }
}

#[test]
fn where_sparq_begins_is_settled_for_each_run_unless_it_is_stated() {
    let model = model();
    let ids = model.tokenizer().encode(FIRST, true).unwrap();
    let verdict = |text: &str| {
        let options = GenerateOptions { measuring_memory: 0, ..options(&text.parse().unwrap(), 2) };
        run(&mut Session::new(&model, None), &ids, &options).0.stats.dense_below
    };
    assert_eq!(verdict("sparq:r=16:k=24:dense-below=0"), Verdict::Stated);
    assert_eq!(verdict("h2o:k=24"), Verdict::Stated);
    // Without memory there is nothing to find, unless this machine knows it already.
    assert_ne!(verdict("sparq:r=16:k=24"), Verdict::Stated);
}
