//! What is finished of a run, so that a run that was killed can go on.
//!
//! A text file beside the output: the settings on the first line, then a line for each batch of samples
//! as it is finished. A last line that was cut off is dropped.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    EvalError,
    results::{Results, SampleResult, Settings},
};
use crate::error::{Error, Result};

/// A finished batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    batch: usize,
    samples: Vec<SampleResult>,
}

/// The finished batches of a run, on disk where there is a path.
#[derive(Debug, Default)]
pub struct Journal {
    path: PathBuf,
    header: String,
    place: Place,
    entries: Vec<Entry>,
}

/// Where finished batches are written.
#[derive(Debug, Default)]
enum Place {
    /// Nowhere: there is no path, or another run writes there.
    #[default]
    Nowhere,
    /// To a file that the first batch makes.
    Later,
    /// To this file, which is locked.
    File(File),
}

impl Journal {
    /// A journal that is kept nowhere.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Opens the journal at `path` for a run with `settings`; where there is none, the first batch begins
    /// it. One without batches is taken over, whatever its settings. One that another run is writing at
    /// this moment stays as it is, and this run keeps none.
    ///
    /// # Errors
    /// [`EvalError::OtherJournal`] for one that a run with other settings left, [`Error::Write`]
    /// where it cannot be written.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self> {
        let failed = |source: io::Error| Error::Write { path: path.to_owned(), source };
        let header = serde_json::to_string(settings).unwrap_or_default();
        let journal = |place, entries| Self { path: path.to_owned(), header: header.clone(), place, entries };
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(journal(Place::Later, vec![]));
            }
            Err(error) => return Err(failed(error)),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        if is_locked(&file) {
            return Ok(journal(Place::Nowhere, vec![]));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        // Only whole lines count.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut kept = 0;
        let mut entries = vec![];
        if let Some(found) = lines.next() {
            kept = found.len() + 1;
            for line in lines {
                let Ok(entry) = serde_json::from_str::<Entry>(line) else { break };
                kept += line.len() + 1;
                entries.push(entry);
            }
            if found != header {
                let other = serde_json::from_str::<Settings>(found).ok();
                if !entries.is_empty() || other.is_none() {
                    let difference =
                        other.map_or("their form".to_owned(), |other| difference(&other, settings));
                    return Err(EvalError::OtherJournal { path: path.to_owned(), difference }.into());
                }
                kept = 0;
            }
        }
        let open = |mut file: File| {
            file.set_len(kept as u64)?;
            file.seek(io::SeekFrom::End(0))?;
            if kept == 0 {
                writeln!(file, "{header}")?;
            }
            Ok(file)
        };
        let file = open(file).map_err(failed)?;
        Ok(journal(Place::File(file), entries))
    }

    /// Whether another run is writing the journal, so that this one keeps none.
    pub fn is_taken(&self) -> bool {
        matches!(self.place, Place::Nowhere) && !self.path.as_os_str().is_empty()
    }

    /// Batches that are finished.
    pub fn finished(&self) -> usize {
        self.entries.len()
    }

    /// The results of a batch, if it is finished.
    pub(crate) fn get(&self, batch: usize) -> Option<&[SampleResult]> {
        self.entries.iter().find(|entry| entry.batch == batch).map(|entry| entry.samples.as_slice())
    }

    /// Adds a finished batch.
    pub(crate) fn push(&mut self, batch: usize, samples: Vec<SampleResult>) -> Result<()> {
        let failed = |source| Error::Write { path: self.path.clone(), source };
        if matches!(self.place, Place::Later) {
            self.place = self.begin().map_err(failed)?;
        }
        let entry = Entry { batch, samples };
        if let Place::File(file) = &mut self.place {
            let line = serde_json::to_string(&entry).unwrap_or_default();
            writeln!(file, "{line}").and_then(|()| file.sync_data()).map_err(failed)?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Makes the file. Another run may have made it meanwhile.
    fn begin(&self) -> io::Result<Place> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).open(&self.path);
        let mut file = match options {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Place::Nowhere),
            Err(error) => return Err(error),
        };
        if is_locked(&file) {
            return Ok(Place::Nowhere);
        }
        writeln!(file, "{}", self.header)?;
        Ok(Place::File(file))
    }

    /// Deletes the file, once the results are safe.
    ///
    /// # Errors
    /// [`Error::Write`] where that is not possible.
    pub fn remove(self) -> Result<()> {
        let Place::File(_file) = &self.place else { return Ok(()) };
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Write { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Refuses to write over the results of a run with other settings; a file that holds no results, or
    /// none that is there, is no concern.
    ///
    /// # Errors
    /// [`EvalError::OtherResults`] that says what differs.
    pub fn check_results(&self, path: &Path) -> Result<()> {
        match Results::read(path) {
            Ok(results) if results.settings != *self => Err(EvalError::OtherResults {
                path: path.to_owned(),
                difference: difference(&results.settings, self),
            }
            .into()),
            _ => Ok(()),
        }
    }
}

/// Whether another process holds the lock of a file; else this one does now, until it is closed. Where
/// there are no locks nobody does.
fn is_locked(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// The settings that another run had otherwise.
fn difference(other: &Settings, own: &Settings) -> String {
    let plan = (&other.plan, &own.plan);
    let labels = |settings: &Settings| -> Vec<String> {
        settings.methods.iter().map(|method| method.label()).collect()
    };
    let fields = [
        ("version of sparq", other.sparq_version != own.sparq_version),
        ("version of Burn", other.burn_version != own.burn_version),
        ("model", other.model != own.model),
        ("architecture", other.architecture != own.architecture),
        ("device", other.device != own.device),
        ("dtype", other.dtype != own.dtype),
        ("batch", other.batch != own.batch),
        ("limit", plan.0.limit != plan.1.limit),
        ("lengths", plan.0.lengths != plan.1.lengths),
        ("depths", plan.0.depths != plan.1.depths),
        ("seed", plan.0.seed != plan.1.seed),
        ("methods", labels(other) != labels(own)),
        ("tasks", other.tasks != own.tasks),
    ];
    let names: Vec<&str> = fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    match names.is_empty() {
        // Sizes follow from all of these, so they differ alone with a profile only.
        true => "sizes of methods".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{results::MethodSettings, tasks::Plan};

    fn settings(lengths: &[usize]) -> Settings {
        let resolved = lengths.iter().map(|length| serde_json::json!({ "k": length / 8 })).collect();
        Settings {
            sparq_version: "1".into(),
            burn_version: "2".into(),
            model: "m".into(),
            architecture: "a".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            batch: 1,
            plan: Plan { limit: 1, lengths: lengths.to_vec(), depths: 1, seed: 0 },
            methods: vec![MethodSettings { name: "sparq".into(), compression: Some(8.0), resolved }],
            tasks: vec![],
        }
    }

    #[test]
    fn a_journal_begins_with_its_first_batch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json.partial");
        let mut journal = Journal::open(&path, &settings(&[64])).unwrap();
        assert!(!path.exists());
        journal.push(0, vec![]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        drop(journal);
        assert_eq!(Journal::open(&path, &settings(&[64])).unwrap().finished(), 1);

        let error = Journal::open(&path, &settings(&[128])).unwrap_err().to_string();
        assert!(error.contains("other settings (lengths)"), "{error}");
        // Without a batch there is nothing to lose.
        fs::write(&path, serde_json::to_string(&settings(&[64])).unwrap() + "\n").unwrap();
        assert_eq!(Journal::open(&path, &settings(&[128])).unwrap().finished(), 0);
        fs::write(&path, "my notes\n").unwrap();
        let error = Journal::open(&path, &settings(&[64])).unwrap_err().to_string();
        assert!(error.contains("(their form)"), "{error}");
    }

    #[test]
    fn runs_at_the_same_time_leave_each_other_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json.partial");
        let open = || Journal::open(&path, &settings(&[64])).unwrap();
        let (mut first, mut second) = (open(), open());
        first.push(0, vec![]).unwrap();
        second.push(1, vec![]).unwrap();
        let mut third = open();
        assert!(!first.is_taken() && second.is_taken() && third.is_taken());
        third.push(2, vec![]).unwrap();
        first.remove().unwrap();
        assert!(!path.exists());
        second.remove().unwrap();
        third.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
