//! What a path stands for, its links followed.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Links in a row, as many as Linux follows.
const MOST_LINKS: usize = 40;

/// Where writing to a path ends up.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// One of this process's descriptors: `/dev/stdout`, `/dev/fd/3`, `/proc/self/fd/3`.
    Descriptor(u32),
    /// A device, a pipe, or a descriptor of another process.
    Special(PathBuf),
    /// A regular file, or none yet.
    File(PathBuf),
}

/// Follows the links of `path`.
///
/// # Errors
/// Folders, links in a circle, and what the system says about the path.
pub(super) fn of(path: &Path) -> io::Result<Place> {
    let names_folder = path.as_os_str().as_encoded_bytes().last().is_none_or(|&byte| byte == b'/');
    if names_folder {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut path = path.to_owned();
    for _ in 0..=MOST_LINKS {
        if let Some(number) = descriptor(&path) {
            return Ok(Place::Descriptor(number));
        }
        if path.starts_with("/proc") && path.parent().is_some_and(|folder| folder.ends_with("fd")) {
            return Ok(Place::Special(path));
        }
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::File(path)),
            Err(error) => return Err(error),
        };
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !kind.is_symlink() {
            return Ok(if kind.is_file() { Place::File(path) } else { Place::Special(path) });
        }
        let target = fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(io::Error::other("its links go round in a circle"))
}

/// The number of a descriptor of this process that a path names.
fn descriptor(path: &Path) -> Option<u32> {
    let parts: Vec<_> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| part.as_os_str().to_str())
        .collect::<Option<_>>()?;
    match parts[..] {
        ["/", "dev", "stdin"] => Some(0),
        ["/", "dev", "stdout"] => Some(1),
        ["/", "dev", "stderr"] => Some(2),
        ["/", "dev", "fd", number] | ["/", "proc", "self" | "thread-self", "fd", number] => {
            number.parse().ok()
        }
        ["/", "proc", process, "fd", number] if process == std::process::id().to_string() => {
            number.parse().ok()
        }
        _ => None,
    }
}
