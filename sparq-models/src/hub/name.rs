//! Names of models on the hub.

use std::{fmt, str::FromStr};

use super::HubError;

/// The revision that a name without one means.
pub(super) const MAIN: &str = "main";

/// `org/name`, with `@revision` behind it where it is not the newest: a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl ModelName {
    /// Whether the revision is a commit, which never changes.
    pub fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl FromStr for ModelName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let bad = || HubError::Name { name: text.to_owned() };
        let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (org, name) = repo.split_once('/').ok_or_else(bad)?;
        let part = |part: &str| {
            let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            part.bytes().all(inside) && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        };
        // A revision becomes part of a path in the cache.
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+".contains(&byte);
        let revision_fits = !revision.is_empty()
            && revision.bytes().all(safe)
            && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        match part(org) && part(name) && revision_fits {
            true => Ok(Self { repo: repo.to_owned(), revision: revision.to_owned() }),
            false => Err(bad()),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            MAIN => f.write_str(&self.repo),
            revision => write!(f, "{}@{revision}", self.repo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for (text, repo, revision) in [
            ("org/name", "org/name", "main"),
            ("meta-llama/Llama-3.2-1B@v1.0", "meta-llama/Llama-3.2-1B", "v1.0"),
            ("a/b_c@refs/pr/7", "a/b_c", "refs/pr/7"),
        ] {
            let name: ModelName = text.parse().unwrap();
            assert_eq!((name.repo.as_str(), name.revision.as_str()), (repo, revision));
            assert_eq!(name.to_string(), text);
            assert!(!name.is_commit());
        }
        let commit: ModelName = format!("a/b@{}", "0123456789abcdef0123".repeat(2)).parse().unwrap();
        assert!(commit.is_commit());
        for path in
            ["model", "./a/b", "../a/b", "/a/b", "a/b/c", "a/", "/b", "a/b@", "a/b@../c", "a b/c", "a/..", ""]
        {
            assert!(path.parse::<ModelName>().is_err(), "{path}");
        }
    }
}
