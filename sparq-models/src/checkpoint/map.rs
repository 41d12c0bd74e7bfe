//! Mapping a weight file into memory: the one place of this crate with unsafe code.

use std::fs::File;
use std::io;
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
