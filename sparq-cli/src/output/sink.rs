//! Where the generated text goes.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::NamedTempFile;

/// Standard output, or a file.
pub(crate) enum Sink {
    /// Each piece is flushed, so that the text can be watched.
    Stdout,
    /// A device or pipe: written as it comes.
    Special(File, PathBuf),
    /// A regular file: written beside its place and moved there at the end, so that a run that
    /// fails leaves what was there.
    File(NamedTempFile, PathBuf),
}

impl Sink {
    /// Opens the file, or standard output for none.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout);
        };
        let cannot = || format!("cannot write to `{}`", path.display());
        if path.is_dir() {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(error).with_context(cannot);
        }
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(path).with_context(cannot)?;
            return Ok(Self::Special(file, path.to_owned()));
        }
        if path.exists() {
            // A file that must not be written is not replaced either.
            File::options().append(true).open(path).with_context(cannot)?;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(cannot)?;
        Ok(Self::File(file, path.to_owned()))
    }

    /// Writes a piece of text.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let written = match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Self::Special(file, _) => file.write_all(text.as_bytes()),
            Self::File(file, _) => file.write_all(text.as_bytes()),
        };
        written.with_context(|| format!("cannot write to {}", self.name()))
    }

    /// Ends the text: a line break on standard output, the move into place for a file.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let name = self.name();
        match self {
            Self::Stdout => self.write("\n"),
            Self::Special(..) => Ok(()),
            Self::File(file, path) => {
                file.persist(path).with_context(|| format!("cannot write to {name}"))?;
                Ok(())
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::Special(_, path) | Self::File(_, path) => format!("`{}`", path.display()),
        }
    }
}
