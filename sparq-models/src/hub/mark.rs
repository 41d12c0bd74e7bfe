//! The mark by which a hub names the content of a file, which mostly is a hash of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// Bytes that are hashed at a time.
const STEP: usize = 1 << 18;

/// A mark as it stands in a header, without its quotes.
pub(super) fn normalised(header: &str) -> String {
    header.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Whether a mark can be the name of a file in the cache.
pub(super) fn is_name(mark: &str) -> bool {
    !mark.is_empty()
        && mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+=".contains(&byte))
        && !mark.starts_with('.')
}

/// Which hash a mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// SHA-256 of the content: large files.
    Sha256,
    /// SHA-1 of the content as Git names it: small files.
    Git,
    /// Some other name.
    Other,
}

impl Kind {
    pub(super) fn of(mark: &str) -> Self {
        match (mark.bytes().all(|byte| byte.is_ascii_hexdigit()), mark.len()) {
            (true, 64) => Self::Sha256,
            (true, 40) => Self::Git,
            _ => Self::Other,
        }
    }
}

/// Whether the file at `path` holds what `mark` is the hash of; true for a mark that is no hash.
pub(super) fn fits(path: &Path, mark: &str) -> io::Result<bool> {
    let mut context = match Kind::of(mark) {
        Kind::Sha256 => Context::new(&SHA256),
        Kind::Git => Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
        Kind::Other => return Ok(true),
    };
    if Kind::of(mark) == Kind::Git {
        context.update(format!("blob {}\0", fs::metadata(path)?.len()).as_bytes());
    }
    let mut file = File::open(path)?;
    let mut buffer = vec![0; STEP];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => context.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let hash: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hash.eq_ignore_ascii_case(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_hash_of_the_content() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        fs::write(&path, "hello\n").unwrap();
        // What `sha256sum` and `git hash-object` print.
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for mark in [sha256, git, "v1-5"] {
            assert!(fits(&path, mark).unwrap(), "{mark}");
        }
        fs::write(&path, "hallo\n").unwrap();
        for (mark, fits_still) in [(sha256, false), (git, false), ("v1-5", true)] {
            assert_eq!(fits(&path, mark).unwrap(), fits_still, "{mark}");
        }
    }

    #[test]
    fn marks_become_names() {
        assert_eq!(normalised("W/\"abc-1\""), "abc-1");
        assert_eq!(normalised("\"abc\""), "abc");
        assert!(is_name("abc-1.2") && !is_name("") && !is_name("../a") && !is_name("a/b") && !is_name(".."));
    }
}
