//! Temporary files that go when the program is ended: by Ctrl-C, by a request to end, by a terminal that
//! closes.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::NamedTempFile;

/// The temporary files that are there.
static THERE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn there() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    THERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file that a signal removes.
pub(super) struct Temporary {
    // In this order: the file goes before its entry does.
    file: NamedTempFile,
    entry: Entry,
}

/// A path among those that are there.
struct Entry(PathBuf);

impl Temporary {
    /// Makes the file.
    pub(super) fn make(make: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<Self> {
        watch();
        // Held until the file is known: a signal in between waits.
        let mut there = there();
        let file = make()?;
        let path = file.path().to_owned();
        there.insert(path.clone());
        Ok(Self { file, entry: Entry(path) })
    }

    /// Its file.
    pub(super) fn file(&mut self) -> &mut NamedTempFile {
        &mut self.file
    }

    /// Moves it to `path`.
    pub(super) fn persist(self, path: &Path) -> io::Result<()> {
        let Self { file, entry } = self;
        let moved = file.persist(path);
        drop(entry);
        moved.map(drop).map_err(|error| error.error)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        there().remove(&self.0);
    }
}

/// Listens for the signals from now on.
fn watch() {
    #[cfg(target_os = "linux")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        // Where it cannot listen, a signal leaves a file behind: no reason to do without the result.
        ONCE.call_once(|| drop(linux::watch()));
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs,
        io::{self, Read},
        os::unix::net::UnixStream,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        flag,
        low_level::{emulate_default_handler, pipe},
    };

    /// A thread waits for the first signal, removes the files, and lets the signal do what it does.
    pub(super) fn watch() -> io::Result<()> {
        let (mut received, sender) = UnixStream::pair()?;
        let which = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| ends_this_process(signal)) {
            // In this order: what wakes the thread comes last.
            flag::register_usize(signal, Arc::clone(&which), signal.unsigned_abs() as usize)?;
            pipe::register(signal, sender.try_clone()?)?;
        }
        let wait = move || {
            if received.read_exact(&mut [0]).is_ok() {
                // Held to the end: nothing is made or moved meanwhile.
                let there = super::there();
                there.iter().for_each(|path| drop(fs::remove_file(path)));
                let signal = i32::try_from(which.load(Ordering::SeqCst)).unwrap_or(SIGTERM);
                let _ = emulate_default_handler(signal);
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
    }

    /// Whether a signal does what it does by default: it is neither ignored, as with `nohup`, nor does
    /// another part of the program wait for it, as `chat` does for Ctrl-C.
    fn ends_this_process(signal: i32) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        };
        match (mask("SigIgn:"), mask("SigCgt:")) {
            (Some(ignored), Some(caught)) => (ignored | caught) >> (signal - 1) & 1 == 0,
            _ => false,
        }
    }
}
