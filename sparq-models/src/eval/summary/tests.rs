use super::*;
use crate::eval::{
    results::{FORMAT, MethodSettings, Settings},
    tasks::Plan,
};

fn outcome(score: f64, kl: f64, bytes: f64) -> Outcome {
    Outcome { score, kl, kv_bytes_per_token: bytes, mass: vec![vec![kl, 1.0]], ..Outcome::default() }
}

fn sample(length: usize, depth: Option<f64>, scores: [f64; 2]) -> SampleResult {
    SampleResult {
        length,
        depth,
        prompt_tokens: length,
        answer_tokens: 1,
        answers: vec!["x".into()],
        outcomes: vec![outcome(scores[0], 0.0, 400.0), outcome(scores[1], 0.5, 100.0)],
    }
}

fn task(name: &str, metric: Metric, samples: Vec<SampleResult>) -> TaskResults {
    TaskResults { task: name.into(), metric, samples }
}

fn results() -> Results {
    let method =
        |name: &str, compression| MethodSettings { name: name.into(), compression, resolved: vec![] };
    Results {
        format: FORMAT,
        settings: Settings {
            sparq_version: "0".into(),
            burn_version: "0".into(),
            model: "m".into(),
            architecture: "a".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            batch: 1,
            plan: Plan { limit: 2, lengths: vec![10, 20], depths: 2, seed: 0 },
            methods: vec![method("dense", None), method("sparq", Some(4.0))],
            tasks: vec![],
        },
        tasks: vec![
            task(
                "found",
                Metric::ExactMatch,
                vec![sample(20, Some(1.0), [1.0, 0.0]), sample(10, Some(0.0), [1.0, 1.0])],
            ),
            task("lost", Metric::ExactMatch, vec![sample(10, None, [0.0, 0.0])]),
            task("text", Metric::Perplexity, vec![sample(10, None, [4.0, 5.0])]),
        ],
    }
}

#[test]
fn scores_are_relative_to_dense_attention() {
    let results = results();
    let relative: Vec<_> = results.tasks.iter().map(|task| task.relative(1)).collect();
    assert_eq!(relative, [Some(0.5), None, Some(0.8)], "where dense fails nothing can be lost");
    let (bytes, score, kl) = results.overall(1);
    assert_eq!((bytes, kl), (0.25, 0.5));
    assert!((score.unwrap() - 0.65).abs() < 1e-12);
    assert_eq!(results.worst_score(1), Some(("found", 0.5)));
    assert_eq!(results.worst_kl(1).unwrap().1, 0.5);
}

#[test]
fn cells_are_in_order_and_know_dense_attention() {
    let cells = results().tasks[0].cells(1);
    let expected = [
        Cell { length: 10, depth: Some(0.0), score: 1.0, is_done: true },
        Cell { length: 20, depth: Some(1.0), score: 0.0, is_done: true },
    ];
    assert_eq!(cells, expected);
    let failed = [Cell { length: 10, depth: None, score: 0.0, is_done: false }];
    assert_eq!(results().tasks[1].cells(1), failed);
    assert_eq!(results().tasks[0].mass(1), [[0.5, 1.0]]);
}

#[test]
fn json_is_read_as_it_was_written() {
    let results = results();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("results.json");
    std::fs::write(&file, results.to_json().unwrap()).unwrap();
    assert_eq!(Results::read(&file).unwrap(), results);
    std::fs::write(&file, results.to_json().unwrap().replace("\"format\": 1", "\"format\": 9")).unwrap();
    assert!(Results::read(&file).unwrap_err().to_string().contains("form is 9"));
    std::fs::write(&file, "{}").unwrap();
    assert!(Results::read(&file).unwrap_err().to_string().contains("results.json"));
}

#[test]
fn where_dense_attention_fails_nothing_is_judged() {
    // At 20 tokens dense attention is right once in three, and the method on all: no 300 %.
    let mut samples = vec![sample(10, None, [1.0, 0.0]), sample(10, None, [1.0, 1.0])];
    samples.extend([1.0, 0.0, 0.0].map(|dense| sample(20, None, [dense, 1.0])));
    let mut task = task("some", Metric::ExactMatch, samples);
    assert_eq!(task.lengths_done(), [10]);
    assert_eq!(task.relative(1), Some(0.5), "of the short ones");
    assert_eq!((task.answers(), task.differs_from_dense(1)), (5, false), "two more and one less");
    let (low, high) = task.interval(1).unwrap();
    assert!(low < 0.8 && 0.8 < high);
    task.samples.drain(..2);
    assert_eq!(task.relative(1), None);
    assert!(task.lengths_done().is_empty());
}
