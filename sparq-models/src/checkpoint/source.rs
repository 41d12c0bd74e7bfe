//! Reading parts of a weight file.
//!
//! Files are read with positioned reads, not mapped: a file that is cut short by another program while it
//! is in use then ends in an error, where touching a mapping would end the process.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Where the bytes of a weight file come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file, of this length when it was opened.
    File { file: File, length: u64 },
    /// Bytes that are part of the program.
    Static(&'static [u8]),
}

impl Source {
    /// Opens the file at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self::File { file, length })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Static(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `buffer` with the bytes from `start` on.
    pub(super) fn read(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } => read_exact_at(file, start, buffer),
            Self::Static(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let end = start.saturating_add(buffer.len());
                buffer.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// The first `most` bytes, or fewer where there are no more.
    pub(super) fn start(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut start = vec![0; most.min(usize::try_from(self.len()).unwrap_or(most))];
        self.read(0, &mut start)?;
        Ok(start)
    }
}

/// The content of a tensor: a part of a file that is read as it is needed, or bytes that were read.
#[derive(Debug)]
pub(super) enum TensorBytes<'a> {
    Stored { source: &'a Source, range: Range<u64> },
    Read(Vec<u8>),
}

impl TensorBytes<'_> {
    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stored { range, .. } => (range.end - range.start) as usize,
            Self::Read(bytes) => bytes.len(),
        }
    }

    /// Fills `buffer` with the bytes from `start` on.
    pub(super) fn read(&self, start: usize, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Stored { source, range } => source.read(range.start + start as u64, buffer),
            Self::Read(bytes) => {
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, start: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

#[cfg(windows)]
fn read_exact_at(file: &File, start: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], start + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_while_it_is_open_is_an_error() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, [1, 2, 3, 4, 5]).unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!((source.len(), source.start(3).unwrap()), (5, vec![1, 2, 3]));
        let mut buffer = [0; 2];
        source.read(3, &mut buffer).unwrap();
        assert_eq!(buffer, [4, 5]);
        File::options().write(true).open(&path).unwrap().set_len(4).unwrap();
        assert_eq!(source.read(3, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        source.read(2, &mut buffer).unwrap();
        assert_eq!(buffer, [3, 4]);
    }

    #[test]
    fn bytes_in_memory_are_read_alike() {
        let source = Source::Static(&[1, 2, 3]);
        assert_eq!((source.len(), source.start(9).unwrap()), (3, vec![1, 2, 3]));
        let mut buffer = [0; 2];
        source.read(1, &mut buffer).unwrap();
        assert_eq!(buffer, [2, 3]);
        assert!(source.read(2, &mut buffer).is_err() && source.read(u64::MAX, &mut buffer).is_err());
    }
}
