//! Mapping a weight file into memory: the one place of this crate with unsafe code.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

/// Maps the file at `path` for reading, so that its pages are read when they are first used and
/// can be dropped again under memory pressure.
#[allow(unsafe_code, reason = "a mapping is how weights larger than memory are read without a copy")]
pub(super) fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the mapping is read-only and this crate never writes to weight files. That no other
    // process changes or shortens them while they are in use is a documented condition of
    // `Checkpoint::open`.
    unsafe { Mmap::map(&file) }
}

/// Gives the pages of `range` back to the system, so that what was read does not stay in this
/// process's memory beside what was made of it. A later use reads them again.
#[allow(unsafe_code, reason = "dropping pages is how loading stays within the model and one tensor")]
pub(super) fn release(map: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    {
        // SAFETY: the mapping is read-only and backed by a file, so its pages hold nothing that the
        // file does not: a page that is dropped comes back with the same content.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
        // Advice: where the system declines, the pages stay until memory runs short.
        drop(advised);
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
