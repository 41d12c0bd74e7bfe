//! Running samples under several methods: one dense prefill per context, then every method from there.

use std::ops::Range;

use burn::tensor::Tensor;
use sparq_core::{
    DecodeMethod, Method, Traffic,
    cache::CacheMark,
    method::{MassMeter, RetainedMass},
};

use super::{
    Variant,
    metrics::{self, Divergence, Metric, log_softmax},
    results::{Outcome, SampleResult, round},
    script::Script,
    tasks::{Sample, Task, Turn},
    watchers::Watchers,
};
use crate::{
    error::Result,
    forward::{self, Row, Want},
    state::{ModelState, StateConfig},
    text_model::TextModel,
};

/// Prompt tokens per sequence that go through the model at once.
const PREFILL_CHUNK: usize = 256;

/// Runs samples of one length together under every method.
pub(crate) struct Batch<'a> {
    model: &'a TextModel,
    task: &'a Task,
    samples: &'a [Sample],
    scripts: Vec<Script>,
    state: ModelState,
    marks: Vec<CacheMark>,
    /// By layer.
    /// By layer and sequence.
    watchers: Vec<Vec<Watchers>>,
    /// By variant and layer.
    methods: Vec<Vec<Method>>,
}

/// Where a pass can go on from.
struct Fork {
    marks: Vec<CacheMark>,
    /// By layer and sequence.
    methods: Vec<Vec<Box<dyn DecodeMethod>>>,
}

/// What a pass over the reference answers measured, by sequence.
struct Forced {
    /// Log probabilities of the vocabulary, by answer token.
    rows: Vec<Vec<Vec<f32>>>,
    /// Whether each answer token was the likeliest, with its turn.
    hits: Vec<Vec<(usize, bool)>>,
    /// Negative log probability of each answer token.
    nats: Vec<Vec<f64>>,
    /// By layer and head, the mean over sequences; empty where it is not measured.
    mass: Vec<Vec<f64>>,
    traffic: Traffic,
}

impl<'a> Batch<'a> {
    /// Prefills the contexts, watched by the methods of all variants.
    pub(crate) fn new(
        model: &'a TextModel,
        task: &'a Task,
        samples: &'a [Sample],
        variants: &[Variant],
    ) -> Result<Self> {
        let scripts: Result<Vec<Script>> =
            samples.iter().map(|sample| Script::new(model.tokenizer(), sample)).collect();
        let scripts = scripts?;
        let longest = |count: fn(&Script) -> usize| scripts.iter().map(count).max().unwrap_or(0);
        let generated = samples.iter().flat_map(|sample| &sample.turns).map(|turn| turn.new_tokens).max();
        let steps = longest(|script| script.fed.len())
            .max(longest(|script| script.question.len()) + generated.unwrap_or(0));
        let max_len = longest(|script| script.prefill.len()) + steps;
        let length = samples.first().map_or(0, |sample| sample.length);

        let config = StateConfig { batch: samples.len(), max_len, dtype: model.dtype() };
        let layers = model.model().attention_layers();
        let methods: Result<Vec<Vec<Method>>> =
            variants.iter().map(|variant| variant.methods(&layers, length)).collect();
        let methods = methods?;
        let mut watchers: Vec<Vec<Watchers>> = layers.iter().map(|_| vec![]).collect();
        let mut state = ModelState::with_methods(model.model(), &config, |index, _, layer| {
            let of_layer = methods.iter().map(|methods| methods[index].clone());
            let watching = Watchers::new(layer.shape, &of_layer.collect::<Vec<_>>())?;
            let stand_in = watching.stand_in();
            watchers[index].push(watching);
            Ok(stand_in)
        })?;
        state.reserve(max_len)?;
        state.expect(max_len);
        prefill(model, &scripts, &mut state)?;
        let marks = state.layers().iter().map(|layer| layer.cache().mark()).collect();
        Ok(Self { model, task, samples, scripts, state, marks, watchers, methods })
    }

    /// Results of all samples; `done` is called after each variant.
    pub(crate) fn run(mut self, done: &mut dyn FnMut()) -> Result<Vec<SampleResult>> {
        let mut results: Vec<SampleResult> = self.samples.iter().zip(&self.scripts).map(empty).collect();
        let mut dense: Option<Forced> = None;
        let generates = self.task.metric.needs_generation();
        let shared = if generates { self.shared_steps() } else { 0 };
        for variant in 0..self.methods.len() {
            let meters = self.restart(variant, self.task.measures_mass)?;
            // The question is decoded once, for the reference answer and for the output.
            for step in 0..shared {
                let ids = self.fed_at(step);
                self.step(&ids, Want::Nothing)?;
            }
            let fork = if generates { Some(self.fork(variant)?) } else { None };
            let forced = self.forced(&meters, shared)?;
            let outputs = match fork {
                Some(fork) => {
                    self.go_back(fork)?;
                    self.generate(shared)?.into_iter().map(Some).collect()
                }
                None => vec![None; self.samples.len()],
            };
            let reference = dense.as_ref().unwrap_or(&forced);
            for (row, (result, output)) in results.iter_mut().zip(outputs).enumerate() {
                result.outcomes.push(self.outcome(row, &forced, reference, output));
            }
            dense.get_or_insert(forced);
            done();
        }
        Ok(results)
    }

    /// Goes back to the prefill and decodes with `variant` from there; returns a meter for each layer
    /// where the retained mass is to be measured.
    fn restart(&mut self, variant: usize, measure: bool) -> Result<Vec<RetainedMass>> {
        let mut meters = vec![];
        let layers = self.state.layers_mut().iter_mut().zip(&self.marks).zip(&self.watchers);
        for (((layer, mark), watchers), method) in layers.zip(&self.methods[variant]) {
            let resumed = watchers.iter().map(|watchers| watchers.resume(method));
            let mut methods = resumed.collect::<sparq_core::Result<Vec<_>>>()?;
            if measure {
                let meter = RetainedMass::default();
                meters.push(meter.clone());
                let metered =
                    |method| Box::new(MassMeter::new(method, meter.clone())) as Box<dyn DecodeMethod>;
                methods = methods.into_iter().map(metered).collect();
            }
            layer.restart(mark, methods)?;
        }
        Ok(meters)
    }

    /// The state that all layers are in, their methods' included.
    fn fork(&self, variant: usize) -> Result<Fork> {
        let mut fork = Fork { marks: vec![], methods: vec![] };
        for (layer, method) in self.state.layers().iter().zip(&self.methods[variant]) {
            fork.marks.push(layer.cache().mark());
            let of_slot = |slot| match layer.sequences().method(slot)?.resume(method) {
                Some(resumed) => Ok(resumed),
                None => method.for_layer(&layer.cache().config().layer.shape),
            };
            let methods = (0..self.scripts.len()).map(of_slot);
            fork.methods.push(methods.collect::<sparq_core::Result<_>>()?);
        }
        Ok(fork)
    }

    fn go_back(&mut self, fork: Fork) -> Result<()> {
        let states = fork.marks.iter().zip(fork.methods);
        for (layer, (mark, methods)) in self.state.layers_mut().iter_mut().zip(states) {
            layer.restart(mark, methods)?;
        }
        Ok(())
    }

    /// Steps that neither predict an answer nor differ between question and reference answer, in any
    /// sequence.
    fn shared_steps(&self) -> usize {
        let of_script = |script: &Script| {
            let same = script.fed.iter().zip(&script.question).take_while(|(fed, asked)| fed == asked);
            let first = script.answers.first().map_or(0, |answer| answer.start);
            same.count().min(script.question.len().min(first).saturating_sub(1))
        };
        self.scripts.iter().map(of_script).min().unwrap_or(0)
    }

    /// What is fed at a step. A sequence that is through goes on with its last token until the others
    /// are.
    fn fed_at(&self, step: usize) -> Vec<u32> {
        self.scripts.iter().map(|script| script.fed[step.min(script.fed.len() - 1)]).collect()
    }

    /// Feeds questions and reference answers, from step `first` on.
    fn forced(&mut self, meters: &[RetainedMass], first: usize) -> Result<Forced> {
        let count = self.scripts.len();
        let mut found = Forced {
            rows: vec![vec![]; count],
            hits: vec![vec![]; count],
            nats: vec![vec![]; count],
            mass: vec![],
            traffic: Traffic::default(),
        };
        let steps = self.scripts.iter().map(Script::steps).max().unwrap_or(0);
        for step in first..steps {
            let ids = self.fed_at(step);
            let targets: Vec<_> = self.scripts.iter().map(|script| script.target(step)).collect();
            if targets.iter().all(Option::is_none) {
                self.step(&ids, Want::Nothing)?;
                continue;
            }
            let logits = self.step(&ids, Want::Last)?;
            let logits = forward::read_finite(logits, &self.state)?;
            let vocab = logits.len() / count;
            for (row, target) in targets.into_iter().enumerate() {
                let Some((turn, id)) = target else { continue };
                let row_logits = &logits[row * vocab..(row + 1) * vocab];
                let logs = log_softmax(row_logits);
                found.hits[row].push((turn, metrics::best(&logs) == id as usize));
                found.nats[row].push(-f64::from(logs[id as usize]));
                found.rows[row].push(logs);
            }
        }
        for (meter, layer) in meters.iter().zip(self.model.model().attention_layers()) {
            let heads = meter.per_head(layer.shape.heads)?;
            found.mass.push(heads.into_iter().map(|mass| round(mass.into())).collect());
        }
        found.traffic = self.state.traffic();
        Ok(found)
    }

    /// Decodes one token of each sequence.
    fn step(&mut self, ids: &[u32], want: Want) -> Result<Option<Tensor<2>>> {
        let rows =
            ids.iter().enumerate().map(|(slot, id)| Row::decode(std::slice::from_ref(id)).in_slot(slot));
        forward::step(self.model.model(), &rows.collect::<Vec<_>>(), &mut self.state, want)
    }

    /// Greedy outputs behind the first question, of which `first` tokens were fed.
    fn generate(&mut self, first: usize) -> Result<Vec<String>> {
        let wanted: Vec<usize> = self
            .samples
            .iter()
            .map(|sample| sample.turns.first().map_or(0, |turn| turn.new_tokens))
            .collect();
        let mut outputs: Vec<Vec<u32>> = vec![vec![]; self.scripts.len()];
        let steps =
            self.scripts.iter().zip(&wanted).map(|(script, wanted)| script.question.len() + wanted - 1);
        for step in first..steps.max().unwrap_or(0) {
            let id = |(script, output): (&Script, &Vec<u32>)| match script.question.get(step) {
                Some(&id) => id,
                None => output.get(step - script.question.len()).or(output.last()).copied().unwrap_or(0),
            };
            let ids: Vec<u32> = self.scripts.iter().zip(&outputs).map(id).collect();
            if self.scripts.iter().all(|script| step + 1 < script.question.len()) {
                self.step(&ids, Want::Nothing)?;
                continue;
            }
            let logits = self.step(&ids, Want::Last)?;
            let logits = forward::read_finite(logits, &self.state)?;
            let vocab = logits.len() / ids.len();
            for (row, output) in outputs.iter_mut().enumerate() {
                if step + 1 >= self.scripts[row].question.len() && output.len() < wanted[row] {
                    output.push(metrics::best(&logits[row * vocab..(row + 1) * vocab]) as u32);
                }
            }
        }
        self.scripts.iter().zip(outputs).map(|(script, output)| self.text(script, &output)).collect()
    }

    /// The text of generated tokens, as it goes on from the question.
    fn text(&self, script: &Script, output: &[u32]) -> Result<String> {
        let mut stream = self.model.tokenizer().stream_after(&script.question)?;
        let mut text = String::new();
        for &id in output {
            text.extend(stream.step(id)?);
        }
        text.push_str(&stream.finish()?);
        Ok(text)
    }

    fn outcome(&self, row: usize, forced: &Forced, dense: &Forced, output: Option<String>) -> Outcome {
        let sample = &self.samples[row];
        let (nats, hits) = (&forced.nats[row], &forced.hits[row]);
        let tokens = nats.len().max(1) as f64;
        let total: f64 = nats.iter().sum();
        let apart = |(dense, own): (&Vec<f32>, &Vec<f32>)| Divergence::between(dense, own);
        let apart: Vec<Divergence> = dense.rows[row].iter().zip(&forced.rows[row]).map(apart).collect();
        let turns: Vec<f64> = (0..sample.turns.len())
            .map(|turn| hits.iter().filter(|hit| hit.0 == turn).all(|hit| hit.1))
            .map(|all| f64::from(u8::from(all)))
            .collect();
        let answer = |turn: &Turn| turn.answer.chars().count();
        let score = match (self.task.metric, &output) {
            (Metric::ExactMatch, _) => turns.iter().sum::<f64>() / turns.len().max(1) as f64,
            (Metric::BitsPerCharacter, _) => {
                metrics::bits_per_character(total, sample.turns.iter().map(answer).sum())
            }
            (Metric::Perplexity, _) => metrics::perplexity(total, nats.len()),
            (metric, Some(output)) => {
                metric.of_text(output, sample.turns.first().map_or(&[], |turn| &turn.references))
            }
            (_, None) => 0.0,
        };
        let Traffic { steps, moved, .. } = forced.traffic;
        let layers = self.state.layers().len() as f64;
        let row_steps = (steps as f64 / layers).max(1.0) * self.samples.len() as f64;
        Outcome {
            score: round(score),
            turns: if turns.len() > 1 { turns } else { vec![] },
            output,
            nats_per_token: round(total / tokens),
            kl: round(apart.iter().map(|apart| apart.kl).sum::<f64>() / tokens),
            top_1_agreement: round(apart.iter().filter(|apart| apart.same_top).count() as f64 / tokens),
            kv_bytes_per_token: round(moved.total().bytes as f64 / row_steps),
            mass: forced.mass.clone(),
        }
    }
}

/// The result of a sample before any method ran.
fn empty((sample, script): (&Sample, &Script)) -> SampleResult {
    SampleResult {
        length: sample.length,
        depth: sample.depth.map(round),
        prompt_tokens: script.prompt_tokens(),
        answer_tokens: script.answers.iter().map(ExactSizeIterator::len).sum(),
        answers: sample.turns.iter().map(|turn| turn.answer.clone()).collect(),
        outcomes: vec![],
    }
}

/// The contexts of all sequences through the model, in chunks.
fn prefill(model: &TextModel, scripts: &[Script], state: &mut ModelState) -> Result<()> {
    let longest = scripts.iter().map(|script| script.prefill.len()).max().unwrap_or(0);
    for start in (0..longest).step_by(PREFILL_CHUNK) {
        let of_script = |script: &'_ Script| {
            script.prefill.len().min(start)..script.prefill.len().min(start + PREFILL_CHUNK)
        };
        let ranges: Vec<_> = scripts.iter().map(of_script).collect();
        let row =
            |(slot, range): (usize, Range<usize>)| Row::prompt(&scripts[slot].prefill[range]).in_slot(slot);
        let rows: Vec<Row<'_>> = ranges.into_iter().enumerate().map(row).collect();
        forward::step(model.model(), &rows, state, Want::Nothing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
