//! Fetching the files of one commit into the cache.
//!
//! The cache is laid out as huggingface_hub does: `blobs/MARK` holds the content, `snapshots/COMMIT/NAME` is a
//! link to it. A file that is on its way is `blobs/MARK.part`.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    Hub, HubError, HubEvent, ModelName, Result,
    checked::Checked,
    http::{Answer, Http},
    mark,
    patience::Patience,
};

/// Seconds that another program may take to end with a file.
const WAIT: usize = 5;

/// Fetching the files of one commit.
pub(super) struct Fetch<'a> {
    pub(super) hub: &'a Hub,
    pub(super) http: &'a Http<'a>,
    pub(super) name: &'a ModelName,
    pub(super) commit: &'a str,
    /// The model's folder in the cache.
    pub(super) model: PathBuf,
    /// Whether what the cache holds is compared with what the hub has.
    pub(super) check: bool,
    pub(super) checked: Checked,
    pub(super) patience: Patience,
    pub(super) events: &'a mut dyn FnMut(HubEvent<'_>),
}

/// A file as the hub describes it.
struct Wanted<'a> {
    file: &'a str,
    url: String,
    blob: PathBuf,
    mark: String,
    size: Option<u64>,
}

impl Fetch<'_> {
    /// The folder of the commit.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.model.join("snapshots").join(self.commit)
    }

    /// The path of a file in the cache; it is fetched where it is missing, and where it is checked and is
    /// another one than the hub has.
    pub(super) fn file(&mut self, file: &str) -> Result<PathBuf> {
        let pointer = self.snapshot().join(file);
        if !self.check && pointer.is_file() {
            return Ok(pointer);
        }
        let mut furthest = 0;
        loop {
            let before = furthest;
            let attempt = self.attempt(file, &pointer, &mut furthest);
            // However often a download breaks off, it goes on as long as it gets further.
            if attempt.is_ok() || furthest > before {
                self.patience.renew();
            }
            match attempt {
                Ok(()) => return Ok(pointer),
                Err(HubError::Interrupted { .. }) if furthest > before => {}
                Err(error) => self.patience.after(error, self.events)?,
            }
        }
    }

    /// Notes that the model has no such file, as huggingface_hub does, so that nobody wonders about it
    /// without a connection.
    pub(super) fn note_absence(&self, file: &str) {
        let folder = self.model.join(".no_exist").join(self.commit);
        let path = folder.join(file);
        // A cache that cannot be written only lacks the note.
        if !path.exists() && fs::create_dir_all(&folder).is_ok() {
            let _ = File::create(path);
        }
    }

    /// One attempt, which goes on where an earlier one ended. `furthest` grows with what came.
    fn attempt(&mut self, file: &str, pointer: &Path, furthest: &mut u64) -> Result<()> {
        let url = format!("{}/{}/resolve/{}/{file}", self.hub.endpoint, self.name.repo, self.commit);
        let blobs = self.model.join("blobs");
        let is_enough = |mark: &str, size| mark::is_name(mark) && self.is_held(&blobs.join(mark), mark, size);
        let answer = self.http.file(&url, 0, is_enough);
        let answer = answer.map_err(|error| self.hub.unreachable(self.name, file, error))?;
        let wanted = self.wanted(file, url, &answer)?;
        let in_cache = |source| HubError::Cache { path: wanted.blob.clone(), source };
        // What is only found to have the right size is not known to be right.
        let mut is_right = self.check;
        if !answer.is_enough && !self.is_held(&wanted.blob, &wanted.mark, wanted.size) {
            fs::create_dir_all(&blobs).map_err(in_cache)?;
            let _lock = lock(&self.lock_path(&wanted.mark))?;
            // Another program may have fetched it meanwhile.
            if !self.is_held(&wanted.blob, &wanted.mark, wanted.size) {
                self.download(&wanted, answer, furthest)?;
                is_right = true;
            }
        }
        if is_right {
            self.checked.note(&wanted.blob);
        }
        link(&wanted.blob, pointer, file).map_err(in_cache)
    }

    /// What the hub says of a file.
    fn wanted<'f>(&self, file: &'f str, url: String, answer: &Answer) -> Result<Wanted<'f>> {
        let wrong = |message: String| Err(self.hub.answer(self.name, format!("`{file}` {message}")));
        if !answer.is_enough && !matches!(answer.status, 200 | 206) {
            return Err(self.hub.status(self.name, file, (answer.status, answer.retry_after), ""));
        }
        if answer.commit.as_deref().is_some_and(|commit| commit != self.commit) {
            return wrong("is of another commit than was asked for".to_owned());
        }
        match answer.mark.as_deref() {
            Some(mark) if mark::is_name(mark) => {
                let blob = self.model.join("blobs").join(mark);
                Ok(Wanted { file, url, blob, mark: mark.to_owned(), size: answer.size })
            }
            Some(mark) => wrong(format!("has the mark `{}`, which is none", crate::shorten(mark))),
            None => wrong("comes without a mark (the header ETag)".to_owned()),
        }
    }

    /// Whether all of a file is in the cache: of this size, and unchanged since it was found right or with
    /// the content that its mark names, where that is checked.
    fn is_held(&self, blob: &Path, mark: &str, size: Option<u64>) -> bool {
        let metadata = fs::metadata(blob);
        let right = metadata
            .is_ok_and(|metadata| metadata.is_file() && size.is_none_or(|size| metadata.len() == size));
        right && (!self.check || self.checked.knows(blob) || mark::fits(blob, mark).unwrap_or(false))
    }

    /// Brings a file into the cache, going on with what an earlier attempt left. `answer` holds it from its
    /// beginning.
    fn download(&mut self, wanted: &Wanted<'_>, answer: Answer, furthest: &mut u64) -> Result<()> {
        let part = wanted.blob.with_file_name(format!("{}.part", wanted.mark));
        let in_cache = |source| HubError::Cache { path: part.clone(), source };
        let mut there = leftover(&part, wanted.size).map_err(in_cache)?;
        let whole = there > 0 && wanted.size == Some(there);
        let is_resumed = there > 0;
        if !whole {
            let mut answer = answer;
            if is_resumed {
                let rest = self.http.file(&wanted.url, there, |_, _| false);
                answer = rest.map_err(|error| self.hub.unreachable(self.name, wanted.file, error))?;
                match answer.status {
                    // The rest, from where the leftover ends.
                    206 if answer.start == there => {}
                    // All of it: this server begins at the beginning.
                    200 | 206 if answer.start == 0 => there = 0,
                    416 => {
                        // The leftover is longer than the file.
                        fs::remove_file(&part).map_err(in_cache)?;
                        return self.again(wanted, furthest);
                    }
                    status => {
                        let status = (status, answer.retry_after);
                        return Err(self.hub.status(self.name, wanted.file, status, ""));
                    }
                }
            }
            self.receive(wanted, answer, &part, there, furthest)?;
        }
        let fits = mark::fits(&part, &wanted.mark).map_err(in_cache)?;
        // Small files may carry a mark of a mirror's own; large ones carry the hash of their content.
        if !fits && (is_resumed || mark::Kind::of(&wanted.mark) == mark::Kind::Sha256) {
            fs::remove_file(&part).map_err(in_cache)?;
            return match is_resumed {
                true => self.again(wanted, furthest),
                false => {
                    Err(HubError::Corrupt { model: self.name.to_string(), file: wanted.file.to_owned() })
                }
            };
        }
        clear(&wanted.blob).and_then(|()| fs::rename(&part, &wanted.blob)).map_err(in_cache)
    }

    /// A download from the beginning, where a leftover was of another file.
    fn again(&mut self, wanted: &Wanted<'_>, furthest: &mut u64) -> Result<()> {
        let answer = self.http.file(&wanted.url, 0, |_, _| false);
        let answer = answer.map_err(|error| self.hub.unreachable(self.name, wanted.file, error))?;
        match answer.status {
            200 | 206 => self.download(wanted, answer, furthest),
            status => Err(self.hub.status(self.name, wanted.file, (status, answer.retry_after), "")),
        }
    }

    /// Appends what comes to the first `there` bytes of `part`.
    fn receive(
        &mut self,
        wanted: &Wanted<'_>,
        answer: Answer,
        part: &Path,
        there: u64,
        furthest: &mut u64,
    ) -> Result<()> {
        let in_cache = |source| HubError::Cache { path: part.to_owned(), source };
        let mut target =
            File::options().create(true).truncate(false).write(true).open(part).map_err(in_cache)?;
        target.set_len(there).map_err(in_cache)?;
        io::Seek::seek(&mut target, io::SeekFrom::Start(there)).map_err(in_cache)?;
        let (mut source, mut done) = (answer.reader(), there);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.interrupted(wanted.file, error.to_string())),
            };
            target.write_all(&buffer[..read]).map_err(in_cache)?;
            done += read as u64;
            *furthest = done.max(*furthest);
            let total = wanted.size.unwrap_or(done).max(done);
            (self.events)(HubEvent::Download { file: wanted.file, done, total });
        }
        match wanted.size {
            Some(size) if done < size => {
                Err(self.interrupted(wanted.file, format!("{done} bytes came of {size}")))
            }
            Some(size) if done > size => {
                fs::remove_file(part).map_err(in_cache)?;
                Err(self
                    .hub
                    .answer(self.name, format!("`{}` has {done} bytes instead of {size}", wanted.file)))
            }
            _ => Ok(()),
        }
    }

    fn interrupted(&self, file: &str, message: String) -> HubError {
        HubError::Interrupted { model: self.name.to_string(), file: file.to_owned(), message }
    }

    /// The lock of a file, which huggingface_hub takes as well.
    fn lock_path(&self, mark: &str) -> PathBuf {
        let locks = self.hub.cache.join(".locks").join(self.model.file_name().unwrap_or_default());
        locks.join(format!("{mark}.lock"))
    }
}

/// Length of what an earlier attempt left, where a file of this size can begin with it; what cannot be right
/// is taken away.
fn leftover(part: &Path, size: Option<u64>) -> io::Result<u64> {
    match fs::metadata(part) {
        Ok(metadata) if metadata.is_file() && size.is_none_or(|size| metadata.len() <= size) => {
            Ok(metadata.len())
        }
        Ok(_) => clear(part).map(|()| 0),
        Err(_) => Ok(0),
    }
}

/// Takes away whatever is at `path`.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Takes a lock; it ends with the value.
fn lock(path: &Path) -> Result<File> {
    let in_cache = |source| HubError::Cache { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(in_cache)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(in_cache)?;
    for waited in 0..=WAIT {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // File systems without locks do without.
            Err(fs::TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(file),
            Err(fs::TryLockError::Error(source)) => return Err(in_cache(source)),
            Err(fs::TryLockError::WouldBlock) if waited < WAIT => thread::sleep(Duration::from_secs(1)),
            Err(fs::TryLockError::WouldBlock) => {}
        }
    }
    Err(HubError::Locked { lock: path.to_owned() })
}

/// Makes `pointer`, the file `name` of a snapshot, stand for `blob`, as all tools of the hub do.
fn link(blob: &Path, pointer: &Path, name: &str) -> io::Result<()> {
    // Where it leads there already, nothing is written: the cache may be another user's.
    if pointer.is_file() && is_same(blob, pointer) {
        return Ok(());
    }
    if let Some(folder) = pointer.parent() {
        fs::create_dir_all(folder)?;
    }
    clear(pointer)?;
    #[cfg(unix)]
    {
        let depth = name.matches('/').count() + 2;
        let mut target = PathBuf::from("../".repeat(depth) + "blobs");
        target.push(blob.file_name().unwrap_or_default());
        std::os::unix::fs::symlink(target, pointer)
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        fs::copy(blob, pointer).map(drop)
    }
}

/// Whether two paths lead to the same file, or to a copy of its size where there are no links.
fn is_same(blob: &Path, pointer: &Path) -> bool {
    match cfg!(unix) {
        true => fs::canonicalize(blob).ok() == fs::canonicalize(pointer).ok(),
        false => fs::metadata(blob).map(|it| it.len()).ok() == fs::metadata(pointer).map(|it| it.len()).ok(),
    }
}
