//! Files that are replaced as a whole, and keep their rights and their owner.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::Builder;

use super::signals;

/// A file that can be written.
pub(super) struct Replaced {
    path: PathBuf,
}

impl Replaced {
    /// Looks whether `path`, which is no link, can be written, and leaves everything as it is.
    pub(super) fn check(path: PathBuf) -> io::Result<Self> {
        match File::options().append(true).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(beside(&path)?),
            Err(error) => return Err(error),
        }
        Ok(Self { path })
    }

    /// Writes the file. It is whole at any time: a temporary file beside it takes its place. Where that
    /// would take something else away (another name of the same file, an owner that this user cannot give
    /// it, a folder that takes no new file), it is written as it stands.
    pub(super) fn write(self, bytes: &[u8]) -> io::Result<()> {
        let old = fs::metadata(&self.path).ok();
        if old.as_ref().is_some_and(has_other_names) {
            return self.overwrite(bytes);
        }
        let mut file = match beside(&self.path) {
            Ok(file) => file,
            Err(_) if old.is_some() => return self.overwrite(bytes),
            Err(error) => return Err(error),
        };
        if let Some(old) = &old
            && take_after(file.file().as_file(), old).is_err()
        {
            drop(file);
            return self.overwrite(bytes);
        }
        file.file().write_all(bytes)?;
        file.file().as_file().sync_all()?;
        file.persist(&self.path)
    }

    fn overwrite(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::options().write(true).truncate(true).open(&self.path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

/// A temporary file in the folder of `path`, with the rights of any new file.
fn beside(path: &Path) -> io::Result<signals::Temporary> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(".sparq-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What the umask takes away is taken away when the file is made.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    signals::Temporary::make(|| builder.tempfile_in(folder)).map_err(without_path)
}

/// What the system says alone: the name of the temporary file is no concern of the user's.
fn without_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.rsplit_once(" at path ") {
        Some((cause, _)) if error.raw_os_error().is_none() => io::Error::new(error.kind(), cause.to_owned()),
        _ => error,
    }
}

/// Whether a file has further names, which replacing one would leave with the old content.
#[cfg_attr(not(unix), allow(unused_variables))]
fn has_other_names(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::nlink(metadata) > 1
    }
    #[cfg(not(unix))]
    {
        false
    }
}

/// Gives a file the owner and the rights of another.
fn take_after(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.set_permissions(old.permissions())
}
