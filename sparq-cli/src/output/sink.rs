//! Where results go: standard output, a device or a pipe as it is, or a file that is replaced as a whole.

mod place;
mod replace;
mod signals;

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;

use place::Place;
use replace::Replaced;

/// Standard output, or what a path stands for.
pub(crate) struct Sink {
    out: Out,
    /// As messages call it.
    name: String,
}

enum Out {
    /// Ends with a line break of its own.
    Stdout,
    /// One of this process's streams, asked for by its path.
    Stream(Box<dyn Write>),
    /// A device or pipe: written as it comes.
    Special(File),
    /// Written when it is complete, so that a run that fails leaves what was there.
    File(Replaced, Vec<u8>),
}

impl Sink {
    /// Opens what `path` stands for, or standard output for none; called before the work, so that a path
    /// that cannot be written costs nothing. A file stays as it is until [`Sink::finish`].
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { out: Out::Stdout, name: "standard output".to_owned() });
        };
        let name = format!("`{}`", path.display());
        let open = || {
            Ok::<_, io::Error>(match place::of(path)? {
                Place::Descriptor(1) => Out::Stream(Box::new(io::stdout())),
                Place::Descriptor(2) => Out::Stream(Box::new(io::stderr())),
                Place::Descriptor(number) => {
                    // Behind what the descriptor holds already, as its own writes would go.
                    Out::Special(File::options().append(true).open(format!("/dev/fd/{number}"))?)
                }
                Place::Special(path) => Out::Special(File::options().write(true).open(path)?),
                Place::File(path) => Out::File(Replaced::check(path)?, vec![]),
            })
        };
        let out = open().with_context(|| format!("cannot write to {name}"))?;
        Ok(Self { out, name })
    }

    /// Whether `path` stands for a file with something in it, which writing would replace.
    pub(crate) fn replaces(path: &Path) -> bool {
        match place::of(path) {
            Ok(Place::File(path)) => path.metadata().is_ok_and(|metadata| metadata.len() > 0),
            _ => false,
        }
    }

    /// Whether it is a file, beside which others can lie.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.out, Out::File(..))
    }

    /// Writes a piece of text; to standard output and devices at once, so that it can be watched.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let put = |out: &mut dyn Write| out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let written = match &mut self.out {
            Out::Stdout => put(&mut io::stdout().lock()),
            Out::Stream(stream) => put(stream),
            Out::Special(file) => put(file),
            Out::File(_, text_so_far) => put(text_so_far),
        };
        written.with_context(|| format!("cannot write to {}", self.name))
    }

    /// Ends the text: a line break on standard output, the move into place for a file.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        match self.out {
            Out::Stdout => self.write("\n"),
            Out::Stream(_) | Out::Special(_) => Ok(()),
            Out::File(file, text) => {
                file.write(&text).with_context(|| format!("cannot write to {}", self.name))
            }
        }
    }
}

/// Writes one file whole, or what else `path` stands for.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut sink = Sink::open(Some(path))?;
    sink.write(text)?;
    sink.finish()
}

#[cfg(all(test, unix))]
mod tests;
