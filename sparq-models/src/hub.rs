//! Models by name from the Hugging Face hub, through the cache that all Hugging Face tools share.
//!
//! The [`hf_hub`] crate knows how the cache is laid out. This module decides which files a model needs, goes
//! on with downloads that broke off, checks what came, tells the reasons apart for which a hub refuses, and
//! does without the hub where the cache holds the model.

mod checked;
mod error;
mod fetch;
mod files;
mod http;
mod mark;
mod name;
mod patience;
mod settings;

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

pub use error::HubError;
pub use name::ModelName;
pub use settings::Hub;

use crate::checkpoint::index::Index;
use checked::Checked;
use fetch::Fetch;
use http::{Http, retry_after};
use patience::Patience;

type Result<T> = std::result::Result<T, HubError>;

/// What happens while a model is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubEvent<'a> {
    /// So many bytes of a file are there.
    Download {
        /// Name of the file.
        file: &'a str,
        /// Bytes that are there, of earlier attempts included.
        done: u64,
        /// Size of the file in bytes.
        total: u64,
    },
    /// The hub does not help, and what the cache holds is taken.
    FromCache {
        /// Why.
        reason: &'a str,
    },
    /// The hub cannot answer now, and is asked again.
    Waiting {
        /// Why.
        reason: &'a str,
        /// After which time.
        wait: Duration,
    },
    /// Files that models often have are not in the cache, and nobody knows whether this one has them: they
    /// were never asked for, and the hub is switched off.
    NeverFetched {
        /// Their names.
        files: &'a str,
    },
}

/// What the hub says about a model.
#[derive(Debug, Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

/// How much of the hub and of the cache is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// A model that is whole in the cache is taken, whatever the hub answers.
    Cache,
    /// What the cache holds is compared with the hub's marks, and fetched anew where it differs.
    Hub,
}

impl Hub {
    /// The folder of a model, with all the files that are needed: those that the cache lacks are
    /// fetched. `events` sees how far that is.
    ///
    /// A model whose files are all cached costs one question for its newest commit; none where the
    /// revision is a commit or the hub is switched off. It is taken from the cache whatever the answer is.
    ///
    /// # Errors
    /// See [`HubError`]. What came before an error is kept; a file counts as there when it is complete.
    pub fn model(&self, name: &ModelName, events: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf> {
        let complete = self.cached(name).and_then(|folder| match files::missing(&folder) {
            None => Ok(folder),
            Some(file) => Err(Absent { missing: file, commits: Vec::new() }),
        });
        let patience = Patience::new(self.wait);
        match (complete, self.offline) {
            (Ok(folder), true) => {
                let files = files::never_fetched(&folder);
                if !files.is_empty() {
                    events(HubEvent::NeverFetched { files: &files.join(", ") });
                }
                Ok(folder)
            }
            (Ok(folder), false) if name.is_commit() => Ok(folder),
            (Ok(folder), false) => {
                self.fetch_model(name, Trust::Cache, Patience::none(), events).or_else(|error| {
                    events(HubEvent::FromCache { reason: &error.to_string() });
                    Ok(folder)
                })
            }
            (Err(absent), true) => Err(self.not_complete(name, absent)),
            (Err(_), false) => self.fetch_model(name, Trust::Cache, patience, events),
        }
    }

    /// Like [`Hub::model`], and what the cache holds is compared with what the hub has, by size and hash: what
    /// differs is fetched anew. A file is hashed again only when its size or time changed since.
    ///
    /// Where the hub cannot be reached, a model whose files in the cache are whole is taken from there.
    ///
    /// # Errors
    /// As [`Hub::model`].
    pub fn pull(&self, name: &ModelName, events: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf> {
        if self.offline {
            return self.model(name, events);
        }
        self.fetch_model(name, Trust::Hub, Patience::new(self.wait), events).or_else(|error| {
            let folder = self
                .cached(name)
                .ok()
                .filter(|folder| error.is_of_the_moment() && files::missing(folder).is_none());
            match folder {
                Some(folder) if files::damaged(&folder).is_none() => {
                    events(HubEvent::FromCache { reason: &error.to_string() });
                    Ok(folder)
                }
                _ => Err(error),
            }
        })
    }

    fn not_complete(&self, name: &ModelName, absent: Absent) -> HubError {
        let Absent { missing, commits } = absent;
        let commits = commits.into_iter().map(|commit| format!("{}@{commit}", name.repo)).collect();
        HubError::Offline { model: name.to_string(), missing, commits, cache: self.cache.clone() }
    }

    /// The folder that the cache has for a model, complete or not; else what there is of the model.
    fn cached(&self, name: &ModelName) -> std::result::Result<PathBuf, Absent> {
        let repo = repo(name, &name.revision);
        let model = self.cache.join(repo.folder_name());
        let absent = |missing: String| match commits(&model) {
            commits if commits.is_empty() => Absent { missing: "files at all".to_owned(), commits },
            commits => Absent { missing, commits },
        };
        let noted = || fs::read_to_string(model.join("refs").join(&name.revision)).ok();
        let commit = match name.is_commit() {
            true => name.revision.clone(),
            false => noted().map(|commit| commit.trim().to_owned()).ok_or_else(|| {
                absent(format!("refs/{0}, which notes what commit `{0}` is", name.revision))
            })?,
        };
        let folder = Cache::new(self.cache.clone()).repo(repo).pointer_path(&commit);
        match folder.is_dir() && !commit.is_empty() {
            true => Ok(folder),
            false => Err(absent(format!("files of commit `{}`", crate::shorten(&commit)))),
        }
    }

    fn fetch_model(
        &self,
        name: &ModelName,
        trust: Trust,
        mut patience: Patience,
        events: &mut dyn FnMut(HubEvent<'_>),
    ) -> Result<PathBuf> {
        let http = Http::new(self);
        let info = loop {
            match self.info(name, &http) {
                Ok(info) => break info,
                Err(error) => patience.after(error, events)?,
            }
        };
        patience.renew();
        let listed: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        let weights = files::required(name, &listed)?;
        let model = self.cache.join(repo(name, &info.sha).folder_name());
        // By commit, so that a change on the hub meanwhile does not mix two versions.
        let mut fetch = Fetch {
            hub: self,
            http: &http,
            name,
            commit: &info.sha,
            check: trust == Trust::Hub,
            checked: Checked::read(&model),
            model,
            patience,
            events,
        };
        for file in files::small(&listed) {
            fetch.file(file)?;
        }
        for file in files::absent(&listed) {
            fetch.note_absence(file);
        }
        let path = fetch.file(&weights.file)?;
        if weights.is_index {
            let index = Index::read(&path).map_err(|error| HubError::Index {
                model: name.to_string(),
                message: error.to_string(),
                hint: error.hint().unwrap_or_default(),
            })?;
            for (shard, _) in index.shards() {
                fetch.file(shard)?;
            }
        }
        fetch.checked.write();
        let folder = fetch.snapshot();
        self.point(name, &info.sha)?;
        Ok(folder)
    }

    /// Notes in the cache which commit a branch or tag is, once all of it is there.
    fn point(&self, name: &ModelName, commit: &str) -> Result<()> {
        let by_name = repo(name, &name.revision);
        let noted = self.cache.join(by_name.folder_name()).join("refs").join(&name.revision);
        if name.is_commit() || fs::read_to_string(&noted).is_ok_and(|noted| noted.trim() == commit) {
            return Ok(());
        }
        let cache = Cache::new(self.cache.clone()).repo(by_name);
        cache.create_ref(commit).map_err(|source| HubError::Cache { path: noted, source })
    }

    /// Commit and files of the model. Here the hub also says why it refuses.
    fn info(&self, name: &ModelName, http: &Http<'_>) -> Result<Info> {
        let url = format!("{}/api/{}", self.endpoint, repo(name, &name.revision).api_url());
        let mut response = http.get(&url).map_err(|error| self.unreachable(name, "", error))?;
        let header = |header: &str| {
            let value = response.headers().get(header);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let wait = retry_after(response.headers());
        match response.status().as_u16() {
            200 => {}
            404 if code == "RevisionNotFound" => {
                let revision = name.revision.clone();
                return Err(HubError::NoRevision { model: name.repo.clone(), revision });
            }
            404 => {
                let endpoint = self.endpoint.clone();
                return Err(HubError::NoModel { model: name.repo.clone(), endpoint });
            }
            status => return Err(self.status(name, "", (status, wait), &message)),
        }
        let text = response.body_mut().read_to_string();
        let text = text.map_err(|error| self.answer(name, error.to_string()))?;
        let info = serde_json::from_str(&text).map_err(|error| match text.trim_start().starts_with('<') {
            true => self.answer(name, "a web page instead".to_owned()),
            false => self.answer(name, error.to_string()),
        });
        let info: Info = info?;
        match info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !info.sha.is_empty() {
            true => Ok(info),
            false => Err(self.answer(name, "it names no commit".to_owned())),
        }
    }

    /// What a status means that the hub refuses with, and the seconds after which it wants to be asked again.
    fn status(
        &self,
        name: &ModelName,
        file: &str,
        (status, retry_after): (u16, Option<u64>),
        message: &str,
    ) -> HubError {
        let model = name.to_string();
        let page = format!("{}/{}", self.endpoint, name.repo);
        match (status, &self.token) {
            (401, None) => HubError::NoToken { model, page },
            (401, Some(token)) => HubError::BadToken { model, token: token.source.clone() },
            (403, _) => HubError::Gated { model, page },
            (404, _) => HubError::NoFile { model, file: file.to_owned() },
            _ => {
                let message = format!("status {status} {}", crate::shorten(message)).trim().to_owned();
                let endpoint = self.endpoint.clone();
                match status {
                    // As in huggingface_hub.
                    408 | 429 | 500 | 502 | 503 | 504 => {
                        HubError::Busy { endpoint, model, status, retry_after, message }
                    }
                    _ => HubError::Answer { endpoint, model, status: Some(status), message },
                }
            }
        }
    }

    /// What it means that a request came to nothing: for a file or, with an empty name, for the model.
    fn unreachable(&self, name: &ModelName, file: &str, error: ureq::Error) -> HubError {
        match error {
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::Tls(_) => {
                HubError::Connection { endpoint: self.endpoint.clone(), message: error.to_string() }
            }
            error if file.is_empty() => self.answer(name, error.to_string()),
            error => self.answer(name, format!("`{file}`: {error}")),
        }
    }

    fn answer(&self, name: &ModelName, message: String) -> HubError {
        HubError::Answer { endpoint: self.endpoint.clone(), model: name.to_string(), status: None, message }
    }
}

/// What the cache has of a model that it does not have.
struct Absent {
    /// The first thing that is missing.
    missing: String,
    /// The commits that there are folders of.
    commits: Vec<String>,
}

/// The commits that the cache has folders of, sorted.
fn commits(model: &Path) -> Vec<String> {
    let entries = fs::read_dir(model.join("snapshots")).into_iter().flatten().flatten();
    let mut commits: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    commits.sort_unstable();
    commits
}

/// A model at a revision, as the crate names it.
fn repo(name: &ModelName, revision: &str) -> Repo {
    Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_owned())
}
