//! What `sparq pull` found right, so that it hashes a file once.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Name of the file in the folder of a model; other tools leave it alone.
const NAME: &str = ".sparq-checked.json";

/// The files of one model that were found right, each with its size and the time of its last change then.
#[derive(Debug)]
pub(super) struct Checked {
    path: PathBuf,
    files: BTreeMap<String, Stamp>,
    changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    changed: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { size: metadata.len(), changed: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) })
    }
}

impl Checked {
    /// What is noted in the folder of a model. What cannot be read counts as nothing.
    pub(super) fn read(model: &Path) -> Self {
        let path = model.join(NAME);
        let files = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, files: files.unwrap_or_default(), changed: false }
    }

    /// Whether the file at `path` is as it was when it was found right.
    pub(super) fn knows(&self, path: &Path) -> bool {
        let stamp = fs::metadata(path).and_then(|metadata| Stamp::of(&metadata)).ok();
        stamp.is_some() && self.files.get(&key(path)) == stamp.as_ref()
    }

    /// Notes that the file at `path` is right.
    pub(super) fn note(&mut self, path: &Path) {
        if let Ok(stamp) = fs::metadata(path).and_then(|metadata| Stamp::of(&metadata)) {
            self.changed |= self.files.insert(key(path), stamp) != Some(stamp);
        }
    }

    /// Writes what is new. A cache that cannot be written is hashed again next time.
    pub(super) fn write(&self) {
        if self.changed
            && let Ok(text) = serde_json::to_string_pretty(&self.files)
        {
            let _ = fs::write(&self.path, text);
        }
    }
}

fn key(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_is_known_until_its_size_or_time_changes() {
        let model = tempfile::tempdir().unwrap();
        let file = model.path().join("0123");
        fs::write(&file, "one").unwrap();
        let mut checked = Checked::read(model.path());
        assert!(!checked.knows(&file));
        checked.note(&file);
        checked.write();
        let checked = Checked::read(model.path());
        assert!(checked.knows(&file));
        let later = SystemTime::now() + Duration::from_secs(9);
        fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert!(!checked.knows(&file));
        fs::remove_file(&file).unwrap();
        assert!(!checked.knows(&file));
        // A damaged note is no note.
        fs::write(model.path().join(NAME), "{").unwrap();
        assert!(Checked::read(model.path()).files.is_empty());
    }
}
