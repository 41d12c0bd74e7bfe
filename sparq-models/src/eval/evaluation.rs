//! A whole evaluation: tasks, methods, samples in batches, and the journal between them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{
    EvalError, Variant,
    journal::Journal,
    results::{FORMAT, MethodSettings, Results, SampleResult, Settings, TaskResults, TaskSettings},
    run::Batch,
    tasks::{Maker, Plan, Sample, Task},
};
use crate::{
    error::{Error, Result},
    text_model::TextModel,
};

/// Burn's version, which results may depend on.
const BURN: &str = "0.22.1";

/// A task with its file.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The task.
    pub task: &'static Task,
    /// The file that it reads.
    pub file: Option<PathBuf>,
}

impl Chosen {
    /// A task by name, with a file where it needs one.
    ///
    /// # Errors
    /// [`EvalError::UnknownTask`], [`EvalError::NeedsFile`], [`EvalError::NeedsNoFile`].
    pub fn new(name: &str, file: Option<PathBuf>) -> Result<Self> {
        let task = super::tasks::task(name)?;
        match (task.file, &file) {
            (Some(form), None) => {
                Err(EvalError::NeedsFile { task: name.to_owned(), form: form.to_owned() }.into())
            }
            (None, Some(_)) => Err(EvalError::NeedsNoFile { task: name.to_owned() }.into()),
            _ => Ok(Self { task, file }),
        }
    }

    fn settings(&self) -> Result<TaskSettings> {
        let bytes = |path: &PathBuf| match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(source) => Err(Error::Io { path: path.clone(), source }),
        };
        Ok(TaskSettings {
            name: self.task.name.to_owned(),
            file: self.file.as_ref().map(|path| path.display().to_string()),
            file_bytes: self.file.as_ref().map(bytes).transpose()?,
        })
    }
}

/// What the results call the model and the machine.
#[derive(Debug, Clone)]
pub struct Names {
    /// Folder of the model, or `embedded model`.
    pub model: String,
    /// Name of its architecture.
    pub architecture: String,
    /// Name of the device.
    pub device: String,
}

/// An evaluation that can be run.
#[derive(Debug)]
pub struct Evaluation<'a> {
    model: &'a TextModel,
    tasks: Vec<Chosen>,
    variants: Vec<Variant>,
    left_out: Vec<Variant>,
    settings: Settings,
}

/// How far a run is, in samples times methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The task that runs.
    pub task: &'static str,
    /// Done so far, journalled work included.
    pub done: usize,
    /// In all.
    pub total: usize,
}

impl<'a> Evaluation<'a> {
    /// An evaluation of `variants`, to which dense attention is added in front, with `batch` sequences
    /// decoded together.
    ///
    /// # Errors
    /// [`EvalError::Setting`] for plans without samples and contexts longer than the model's, and
    /// errors of files and hyper-parameters.
    pub fn new(
        model: &'a TextModel,
        names: Names,
        tasks: Vec<Chosen>,
        variants: Vec<Variant>,
        plan: Plan,
        batch: usize,
    ) -> Result<Self> {
        check(&plan, batch, model.model().max_position_embeddings())?;
        let layers = model.model().attention_layers();
        let mut all = vec![Variant::dense()];
        let mut left_out = vec![];
        for variant in variants.into_iter().filter(|variant| !variant.is_dense()) {
            let fits = plan.lengths.iter().map(|&length| variant.is_in_reach(&layers, length));
            match fits.collect::<Result<Vec<bool>>>()?.contains(&false) {
                true => left_out.push(variant),
                false => all.push(variant),
            }
        }
        if let Some(name) = twice(&all) {
            let reason = "two methods have this name and size: say each once".to_owned();
            return Err(EvalError::Setting { setting: "methods", value: name, reason }.into());
        }
        let resolved = |variant: &Variant| -> Result<MethodSettings> {
            let resolved: Result<Vec<_>> =
                plan.lengths.iter().map(|&length| variant.record(&layers, length)).collect();
            let compression = variant.compression;
            Ok(MethodSettings { name: variant.name.clone(), compression, resolved: resolved? })
        };
        let methods: Result<Vec<MethodSettings>> = all.iter().map(resolved).collect();
        let files: Result<Vec<TaskSettings>> = tasks.iter().map(Chosen::settings).collect();
        let settings = Settings {
            sparq_version: env!("CARGO_PKG_VERSION").to_owned(),
            burn_version: BURN.to_owned(),
            model: names.model,
            architecture: names.architecture,
            device: names.device,
            dtype: model.dtype().name().to_owned(),
            batch,
            plan,
            methods: methods?,
            tasks: files?,
        };
        Ok(Self { model, tasks, variants: all, left_out, settings })
    }

    /// What is not run, as it cannot move as little as was asked: exact top-k reads all keys.
    pub fn left_out(&self) -> &[Variant] {
        &self.left_out
    }

    /// Everything that the results depend on.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs what the journal does not hold yet, `jobs` batches at a time. Results do not depend on
    /// `jobs`; memory does.
    ///
    /// # Errors
    /// Errors of files, of the model, and of the journal.
    pub fn run(
        &self,
        jobs: usize,
        journal: &mut Journal,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Results> {
        let batches = self.batches(progress)?;
        let methods = self.variants.len();
        let total = batches.iter().map(|batch| batch.samples.len()).sum::<usize>() * methods;
        let todo: Vec<usize> = (0..batches.len()).filter(|&number| journal.get(number).is_none()).collect();
        let left: usize = todo.iter().map(|&number| batches[number].samples.len()).sum();
        let mut done = total - left * methods;
        let first =
            todo.first().or(batches.len().checked_sub(1).as_ref()).map(|&number| batches[number].task);
        progress(Progress { task: first.map_or("", |task| task.name), done, total });
        self.work(&batches, &todo, jobs, &mut |message| {
            match message {
                Message::Ran { batch } => {
                    done += batches[batch].samples.len();
                    progress(Progress { task: batches[batch].task.name, done, total });
                }
                Message::Finished { batch, results } => journal.push(batch, results)?,
            }
            Ok(())
        })?;
        // By task: the place of each sample in the plan, and its result.
        let mut found: Vec<Vec<(usize, SampleResult)>> = vec![vec![]; self.tasks.len()];
        for (number, batch) in batches.iter().enumerate() {
            let results = journal.get(number).unwrap_or_default().to_vec();
            found[batch.of_task].extend(batch.places.iter().copied().zip(results));
        }
        let tasks = self.tasks.iter().zip(found).map(|(chosen, mut samples)| {
            samples.sort_by_key(|(place, _)| *place);
            TaskResults {
                task: chosen.task.name.to_owned(),
                metric: chosen.task.metric,
                samples: samples.into_iter().map(|(_, result)| result).collect(),
            }
        });
        Ok(Results { format: FORMAT, settings: self.settings.clone(), tasks: tasks.collect() })
    }

    /// The samples of all tasks.
    fn batches(&self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Planned>> {
        let maker = Maker { model: self.model, plan: &self.settings.plan };
        let mut batches = vec![];
        for (of_task, Chosen { task, file }) in self.tasks.iter().enumerate() {
            progress(Progress { task: task.name, done: 0, total: 0 });
            let samples = task.samples(&maker, file.as_deref())?;
            for batch in in_batches(samples, self.settings.batch) {
                let (places, samples) = batch.into_iter().unzip();
                batches.push(Planned { of_task, task, places, samples });
            }
        }
        Ok(batches)
    }

    /// Runs the batches `todo`, `jobs` at a time: a step of a few sequences does not fill several cores.
    fn work(
        &self,
        batches: &[Planned],
        todo: &[usize],
        jobs: usize,
        take: &mut dyn FnMut(Message) -> Result<()>,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let (sender, messages) = mpsc::channel();
        let worker = |sender: mpsc::Sender<Result<Message>>| {
            while let Some(&batch) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Planned { task, samples, .. } = &batches[batch];
                // A receiver that is gone has an error already, and no batch is begun after it.
                let run = || {
                    Batch::new(self.model, task, samples, &self.variants)?.run(&mut || {
                        let _ = sender.send(Ok(Message::Ran { batch }));
                    })
                };
                let results = run().map(|results| Message::Finished { batch, results });
                let failed = results.is_err();
                if sender.send(results).is_err() || failed {
                    return;
                }
            }
        };
        let jobs = jobs.clamp(1, todo.len().max(1));
        let threads = rayon::current_num_threads().div_ceil(jobs);
        let pools = (0..jobs).map(|_| pool(threads)).collect::<Result<Vec<ThreadPool>>>()?;
        thread::scope(|scope| {
            for pool in &pools {
                let (worker, sender) = (&worker, sender.clone());
                scope.spawn(move || {
                    // Results depend neither on the number of jobs nor on that of threads.
                    pool.install(|| worker(sender));
                });
            }
            drop(sender);
            // The loop owns the receiver: it goes with the first error, which ends the workers.
            messages.into_iter().try_for_each(|message| take(message?))
        })
    }
}

/// Threads of their own for a job: those of the process may wait for what it finds.
fn pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| {
        let (value, reason) = (threads.to_string(), error.to_string());
        EvalError::Setting { setting: "threads for a job", value, reason }.into()
    })
}

/// Samples of one length that run together.
struct Planned {
    /// Number of the task.
    of_task: usize,
    task: &'static Task,
    /// Places of the samples in the plan.
    places: Vec<usize>,
    samples: Vec<Sample>,
}

/// What a worker has to say.
enum Message {
    /// One method answered all samples of a batch.
    Ran { batch: usize },
    /// All methods did.
    Finished { batch: usize, results: Vec<SampleResult> },
}

/// Samples of one length together, up to `batch` and about as many in each batch, with their places in the
/// plan.
fn in_batches(samples: Vec<Sample>, batch: usize) -> Vec<Vec<(usize, Sample)>> {
    let mut samples: Vec<(usize, Sample)> = samples.into_iter().enumerate().collect();
    samples.sort_by_key(|(place, sample)| (sample.length, *place));
    let same = samples.chunk_by(|(_, a), (_, b)| a.length == b.length);
    same.flat_map(|samples| {
        let batches = samples.len().div_ceil(batch);
        samples.chunks(samples.len().div_ceil(batches))
    })
    .map(<[_]>::to_vec)
    .collect()
}

/// A name and size that several variants have: tables could not tell them apart.
fn twice(variants: &[Variant]) -> Option<String> {
    let is_same = |a: &Variant, b: &Variant| a.name == b.name && a.compression == b.compression;
    let seen = |(number, variant): &(usize, &Variant)| {
        variants[..*number].iter().any(|other| is_same(other, variant))
    };
    variants.iter().enumerate().find(seen).map(|(_, variant)| variant.name.clone())
}

fn check(plan: &Plan, batch: usize, longest: usize) -> Result<()> {
    let setting =
        |setting, value: String, reason: String| Err(EvalError::Setting { setting, value, reason }.into());
    for (name, value) in [("limit", plan.limit), ("depths", plan.depths), ("batch", batch)] {
        if value == 0 {
            return setting(name, "0".into(), "it must be at least 1".into());
        }
    }
    match plan.lengths.iter().find(|&&length| length < 2 || length > longest) {
        Some(length) => {
            setting("lengths", length.to_string(), format!("it must lie between 2 and the model's {longest}"))
        }
        None if plan.lengths.is_empty() => {
            setting("lengths", "empty".into(), "at least one length is needed".into())
        }
        None => Ok(()),
    }
}

/// The journal that belongs to an output.
pub fn journal_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    output.with_file_name(name)
}
