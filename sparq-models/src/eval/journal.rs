//! What is finished of a run, so that a run that was killed can go on.
//!
//! A text file beside the output: the settings on the first line, then a line for each batch of samples
//! as it is finished. A last line that was cut off is dropped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    EvalError,
    results::{SampleResult, Settings},
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
    file: Option<File>,
    entries: Vec<Entry>,
}

impl Journal {
    /// A journal that is kept nowhere.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Opens the journal at `path`, or begins it, for a run with `settings`.
    ///
    /// # Errors
    /// [`EvalError::OtherJournal`] for one that a run with other settings left, [`Error::Write`]
    /// where it cannot be written.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self> {
        let failed = |source: io::Error| Error::Write { path: path.to_owned(), source };
        let header = serde_json::to_string(settings).unwrap_or_default();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        // Only whole lines count.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let mut kept = 0;
        let mut entries = vec![];
        if let Some(found) = lines.next() {
            if found != header {
                let difference = difference(found, settings);
                return Err(EvalError::OtherJournal { path: path.to_owned(), difference }.into());
            }
            kept = found.len() + 1;
            for line in lines {
                let Ok(entry) = serde_json::from_str::<Entry>(line) else { break };
                kept += line.len() + 1;
                entries.push(entry);
            }
        }
        let open = || {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.set_len(kept as u64)?;
            io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
            if kept == 0 {
                writeln!(file, "{header}")?;
            }
            Ok(file)
        };
        let file = open().map_err(failed)?;
        Ok(Self { path: path.to_owned(), file: Some(file), entries })
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
        let entry = Entry { batch, samples };
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(&entry).unwrap_or_default();
            let written = writeln!(file, "{line}").and_then(|()| file.sync_data());
            written.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Deletes the file, once the results are safe.
    ///
    /// # Errors
    /// [`Error::Write`] where that is not possible.
    pub fn remove(self) -> Result<()> {
        if self.file.is_some() {
            let failed = |source| Error::Write { path: self.path.clone(), source };
            fs::remove_file(&self.path).map_err(failed)?;
        }
        Ok(())
    }
}

/// The first setting that another run had otherwise.
fn difference(header: &str, settings: &Settings) -> String {
    let other: serde_json::Value = serde_json::from_str(header).unwrap_or_default();
    let own = serde_json::to_value(settings).unwrap_or_default();
    let fields = own.as_object().into_iter().flatten();
    let differs = fields.filter(|(name, value)| other.get(name) != Some(value)).map(|(name, _)| name);
    differs.map(String::as_str).next().unwrap_or("their form").to_owned()
}
