//! Every task's samples: as long as asked for, the answer in its place, the same for the same seed.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::eval::testing::model;

fn plan(limit: usize) -> Plan {
    Plan { limit, lengths: vec![512, 1024], depths: 3, seed: 7 }
}

fn samples(model: &TextModel, name: &str, plan: &Plan, file: Option<&Path>) -> Vec<Sample> {
    task(name).unwrap().samples(&Maker { model, plan }, file).unwrap()
}

#[test]
fn contexts_fill_their_length_and_hold_their_answers() {
    let model = model();
    let plan = plan(6);
    for task in tasks().iter().filter(|task| task.file.is_none() && task.name != "own-text") {
        let made = samples(&model, task.name, &plan, None);
        assert_eq!(made.len(), 6, "{}", task.name);
        assert_eq!(made, samples(&model, task.name, &plan, None), "{} is repeatable", task.name);
        let other = samples(&model, task.name, &Plan { seed: 8, ..plan.clone() }, None);
        assert_ne!(made, other, "{} follows the seed", task.name);
        for (number, sample) in made.iter().enumerate() {
            let needed = Room { tokenizer: model.tokenizer(), tokens: 0 }.needed(sample).unwrap();
            assert_eq!(sample.length, [512, 1024][number % 2], "{}", task.name);
            assert!(needed <= sample.length, "{}: {needed} of {}", task.name, sample.length);
            // A unit of filler is at most a pair of UUIDs, or all the words of another count.
            assert!(needed + 140 > sample.length, "{}: {needed} of {}", task.name, sample.length);
            for turn in &sample.turns {
                assert!(!turn.references.is_empty() && !turn.question.is_empty());
                for reference in &turn.references {
                    assert!(sample.context.contains(reference.as_str()), "{}: {reference}", task.name);
                }
                assert_eq!(turn.new_tokens > 0, task.metric.needs_generation(), "{}", task.name);
            }
        }
    }
}

#[test]
fn answers_stand_at_the_stated_depth() {
    let model = model();
    let plan = plan(6);
    for name in ["passkey", "niah-single", "niah-multikey", "kv-retrieval", "keyed-lines", "named-key"] {
        for sample in samples(&model, name, &plan, None) {
            let wanted = sample.depth.unwrap();
            let at = sample.context.find(&sample.turns[0].references[0]).unwrap();
            let found = at as f64 / sample.context.len() as f64;
            // Instructions stand in front, up to a quarter of the shortest contexts, and a needle is no point.
            assert!((found - wanted).abs() < 0.3, "{name}: {found} for {wanted}");
        }
    }
}

#[test]
fn a_chain_leads_from_its_value_to_all_its_names() {
    let sample = &samples(&model(), "variable-tracking", &plan(1), None)[0];
    let turn = &sample.turns[0];
    let value = turn.question.split("assigned the value ").nth(1).unwrap().split(' ').next().unwrap();
    let names = &turn.references;
    assert_eq!(names.len(), 5);
    let mut at = sample.context.find(&format!("VAR {} = {value}", names[0])).unwrap();
    for pair in names.windows(2) {
        let next = sample.context.find(&format!("VAR {} = VAR {} ", pair[1], pair[0])).unwrap();
        assert!(next > at, "in order");
        at = next;
    }
}

#[test]
fn the_words_that_are_asked_for_are_the_most_common_ones() {
    let model = model();
    for (name, noise) in [("common-words", ""), ("frequent-words", "...")] {
        for sample in samples(&model, name, &plan(2), None) {
            let references = &sample.turns[0].references;
            let list = sample.context.split("coded words. ").last().unwrap();
            let words: Vec<&str> = list.split_whitespace().filter(|word| *word != noise).collect();
            let count = |word: &str| words.iter().filter(|other| **other == word).count();
            let asked = references.iter().map(|word| count(word)).min().unwrap();
            let word_like = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase()) && word.len() == 6;
            let others = words
                .iter()
                .filter(word_like)
                .filter(|word| !references.iter().any(|reference| reference == **word))
                .map(|word| count(word))
                .max();
            assert!(others.is_none_or(|others| others < asked), "{name}: {others:?} and {asked}");
        }
    }
}

#[test]
fn two_hops_lead_to_the_hash() {
    let sample = &samples(&model(), "hash-hops", &plan(1), None)[0];
    let first = sample.turns[0].question.split("from ").nth(1).unwrap().split(',').next().unwrap();
    let follow = |hash: &str| {
        let line = sample.context.lines().find(|line| line.starts_with(&format!("{hash} = "))).unwrap();
        line.split(" = ").nth(1).unwrap().to_owned()
    };
    assert_eq!(follow(&follow(first)), sample.turns[0].references[0]);
}

#[test]
fn every_turn_asks_for_another_key() {
    let sample = &samples(&model(), "multi-turn", &plan(1), None)[0];
    assert_eq!(sample.turns.len(), 4);
    for turn in &sample.turns {
        let name = turn.question.split("What is ").nth(1).unwrap().split('?').next().unwrap();
        let told = format!("{}{} is{}.", name[..1].to_uppercase(), &name[1..], turn.answer);
        assert!(sample.context.contains(&told), "{told}");
    }
}

#[test]
fn the_model_writes_its_own_text() {
    let model = model();
    let plan = Plan { limit: 2, lengths: vec![64], depths: 1, seed: 1 };
    let made = samples(&model, "own-text", &plan, None);
    assert_eq!(made.len(), 1);
    assert!(made[0].context.starts_with("It was in the year") && !made[0].turns[0].answer.is_empty());
    assert_eq!(made, samples(&model, "own-text", &plan, None));
}

/// Files in the published formats, cut small.
fn files() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tasks"))
}

#[test]
fn squad_is_read_as_published() {
    let model = model();
    let plan = Plan { limit: 3, lengths: vec![4096], depths: 1, seed: 0 };
    for sample in samples(&model, "squad", &plan, Some(&files().join("squad.json"))) {
        let turn = &sample.turns[0];
        assert_eq!(sample.context.matches("Title: ").count(), 8, "seven others and its own");
        assert!(sample.context.contains("Title: Super Bowl 50. Background: Super Bowl 50 was an American"));
        assert!(sample.context.contains("From what you've just read about"));
        assert_eq!(sample.context.matches("\nQuestion: ").count(), 1, "one example");
        assert!(turn.question.starts_with("\nQuestion: ") && turn.question.ends_with("?\nAnswer:"));
        assert!(sample.context.contains(turn.answer.trim()), "{}", turn.answer);
        assert!((6..=30).contains(&turn.new_tokens));
    }
    let short = Plan { lengths: vec![700], ..plan };
    let made = samples(&model, "squad", &short, Some(&files().join("squad.json")));
    assert!(made[0].context.matches("Title: ").count() < 8, "fewer fit");
}

#[test]
fn triviaqa_is_read_as_published() {
    let plan = Plan { limit: 5, lengths: vec![2048], depths: 1, seed: 0 };
    let made = samples(&model(), "triviaqa", &plan, Some(&files().join("triviaqa/qa/wikipedia-dev.json")));
    assert_eq!(made.len(), 1, "one page is too short and one is missing");
    let turn = &made[0].turns[0];
    assert_eq!(turn.question, "\nQuestion: Which team won Super Bowl 50?\nAnswer:");
    assert_eq!((turn.answer.as_str(), turn.references.len()), (" Denver Broncos", 2));
    assert!(made[0].context.chars().count() >= 4000);
}

#[test]
fn news_is_read_from_csv_and_json_lines() {
    let model = model();
    let plan = Plan { limit: 5, lengths: vec![2048], depths: 1, seed: 0 };
    let csv = samples(&model, "cnn-dailymail", &plan, Some(&files().join("cnn.csv")));
    let jsonl = samples(&model, "cnn-dailymail", &plan, Some(&files().join("cnn.jsonl")));
    assert_eq!(csv, jsonl);
    assert_eq!(csv.len(), 1, "an article of 4000 to 8000 characters");
    assert!(csv[0].context.starts_with("Article: ") && csv[0].context.contains("\"quoted\", with a comma"));
    assert_eq!(csv[0].turns[0].question, "\nSummary:");
}

#[test]
fn texts_are_cut_before_white_space() {
    let model = model();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    let words: Vec<String> = (0..6000).map(|i| format!("word{}", i * 7919 % 1000)).collect();
    fs::write(&file, words.join(" ")).unwrap();
    let plan = Plan { limit: 4, lengths: vec![1024], depths: 1, seed: 0 };

    let wikitext = &samples(&model, "wikitext", &plan, Some(&file))[0];
    let answer = &wikitext.turns[0].answer;
    assert!(answer.starts_with(' ') && (400..420).contains(&answer.len()), "{}", answer.len());
    assert!(wikitext.turns[0].question.is_empty());

    for sample in samples(&model, "repetition", &plan, Some(&file)) {
        let turn = &sample.turns[0];
        let whole = format!("{}{}", &turn.question[1..], turn.answer);
        assert!(sample.context.contains(&whole), "the passage stands in the context");
        assert!(turn.answer.len() >= 256 && turn.question.len() >= 129);
    }

    let needle = &samples(&model, "needle", &plan, Some(&file))[0];
    assert!(needle.context.contains("eat a sandwich and sit in Dolores Park on a sunny day."));

    let text = samples(&model, "text", &plan, Some(&file));
    assert_eq!(text.len(), 4);
    assert!(text.windows(2).all(|pair| pair[0].context != pair[1].context), "piece after piece");
}

#[test]
fn files_of_another_form_are_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data.json");
    fs::write(&file, "{\"rows\": []}").unwrap();
    let empty = folder.path().join("empty.json");
    fs::write(&empty, "\n").unwrap();
    let model = model();
    let plan = plan(1);
    let maker = Maker { model: &model, plan: &plan };
    for name in ["squad", "triviaqa", "cnn-dailymail", "wikitext", "repetition", "text"] {
        let error = task(name).unwrap().samples(&maker, Some(&file)).unwrap_err();
        assert!(error.to_string().contains("data.json"), "{name}: {error}");
        let nothing = task(name).unwrap().samples(&maker, Some(&empty)).unwrap_err();
        assert!(nothing.to_string().contains("empty.json`: it is empty"), "{name}: {nothing}");
        let missing = task(name).unwrap().samples(&maker, Some(Path::new("nothing.here"))).unwrap_err();
        assert!(missing.to_string().contains("nothing.here"), "{name}: {missing}");
    }
}

#[test]
fn the_closest_task_is_suggested() {
    let error = task("pasky").unwrap_err();
    assert_eq!(error.to_string(), "there is no task `pasky`");
    assert!(error.hint().unwrap().contains("`passkey`"));
    assert_eq!(task("zzzzzzzzzzzz").unwrap_err().hint(), None);
}

#[test]
fn too_short_a_length_is_refused() {
    let model = model();
    let plan = Plan { lengths: vec![40], ..plan(1) };
    let error = task("passkey").unwrap().samples(&Maker { model: &model, plan: &plan }, None).unwrap_err();
    assert!(error.to_string().contains("at least") && error.hint().is_some(), "{error}");
}
