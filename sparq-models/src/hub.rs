//! Models by name from the Hugging Face hub, through the cache that all Hugging Face tools share.
//!
//! The [`hf_hub`] crate talks to the hub and lays the cache out. This module decides which files a
//! model needs, goes on with downloads that broke off, checks what came, and tells the reasons apart
//! for which a hub refuses.

mod error;
mod files;
mod name;
mod settings;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use hf_hub::{
    Cache, CacheRepo, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};
use serde::Deserialize;

pub use error::HubError;
pub use name::ModelName;
pub use settings::Hub;

use files::Weights;

type Result<T> = std::result::Result<T, HubError>;

/// How long the hub may take to accept a connection, and to begin an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts at one file that get further than the one before.
const ATTEMPTS: usize = 20;

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
    /// The hub cannot be reached, and what the cache holds is taken.
    FromCache,
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

impl Hub {
    /// The folder of a model, with all the files that are needed: those that the cache lacks are
    /// fetched. `events` sees how far that is.
    ///
    /// A model whose files are all cached costs one question for its newest commit; none where the
    /// revision is a commit or the hub is switched off.
    ///
    /// # Errors
    /// See [`HubError`]. What came before an error is kept; a file counts as there when it is complete.
    pub fn model(&self, name: &ModelName, events: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf> {
        let cached = self.cached(name);
        let missing = cached.as_deref().map_or(Some("files at all".to_owned()), files::missing);
        let complete = cached.filter(|_| missing.is_none());
        match (complete, self.offline) {
            (Some(folder), offline) if offline || name.is_commit() => Ok(folder),
            (Some(folder), _) => match self.fetch_model(name, events) {
                Err(HubError::Connection { .. }) => {
                    events(HubEvent::FromCache);
                    Ok(folder)
                }
                fetched => fetched,
            },
            (None, true) => Err(HubError::Offline {
                model: name.to_string(),
                missing: missing.unwrap_or_default(),
                cache: self.cache.clone(),
            }),
            (None, false) => self.fetch_model(name, events),
        }
    }

    /// The folder that the cache has for a model, complete or not.
    fn cached(&self, name: &ModelName) -> Option<PathBuf> {
        let repo = repo(name, &name.revision);
        let commit = match name.is_commit() {
            true => name.revision.clone(),
            false => {
                let refs = self.cache.join(repo.folder_name()).join("refs");
                fs::read_to_string(refs.join(&name.revision)).ok()?.trim().to_owned()
            }
        };
        let folder = Cache::new(self.cache.clone()).repo(repo).pointer_path(&commit);
        folder.is_dir().then_some(folder)
    }

    fn fetch_model(&self, name: &ModelName, events: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf> {
        let api = self.api().map_err(|error| self.refused(name, "", error))?;
        let info = self.info(name, &api)?;
        let listed: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        let no_file = |file: &str| HubError::NoFile { model: name.to_string(), file: file.to_owned() };
        if !listed.iter().any(|file| file == "config.json") {
            return Err(no_file("config.json"));
        }
        let weights =
            files::weights(&listed).ok_or_else(|| no_file("weights in safetensors or PyTorch files"))?;

        // By commit, so that a change on the hub meanwhile does not mix two versions.
        let repo = repo(name, &info.sha);
        let cache = Cache::new(self.cache.clone()).repo(repo.clone());
        let mut fetch = Fetch {
            hub: self,
            name,
            commit: &info.sha,
            api: &api,
            remote: api.repo(repo),
            cache: &cache,
            events,
        };
        for file in files::small(&listed) {
            fetch.file(file)?;
        }
        match weights {
            Weights::Single(file) => drop(fetch.file(&file)?),
            Weights::Index(index) => {
                let path = fetch.file(index)?;
                let shards = files::shards(&path)
                    .ok_or_else(|| self.answer(name, format!("`{index}` names no shards")))?;
                for shard in shards {
                    fetch.file(&shard)?;
                }
            }
        }
        self.point(name, &info.sha)?;
        Ok(cache.pointer_path(&info.sha))
    }

    /// Notes in the cache which commit a branch or tag is, once all of it is there.
    fn point(&self, name: &ModelName, commit: &str) -> Result<()> {
        if name.is_commit() {
            return Ok(());
        }
        let by_name = repo(name, &name.revision);
        // The crate notes the commit under its own name, which no other tool does.
        let by_commit = self.cache.join(by_name.folder_name()).join("refs").join(commit);
        let _ = fs::remove_file(by_commit);
        let cache = Cache::new(self.cache.clone()).repo(by_name);
        cache.create_ref(commit).map_err(|source| HubError::Cache { path: self.cache.clone(), source })
    }

    fn api(&self) -> std::result::Result<Api, ApiError> {
        ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.as_ref().map(|token| token.value.clone()))
            // Repeating is ours to do: the crate begins at 0 again where nothing came at all.
            .with_retries(0)
            .with_progress(false)
            .with_user_agent("sparq", env!("CARGO_PKG_VERSION"))
            .build()
    }

    /// Commit and files of the model. Here the hub also says why it refuses.
    fn info(&self, name: &ModelName, api: &Api) -> Result<Info> {
        let request = api.repo(repo(name, &name.revision)).info_request();
        let request = request
            .config()
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build();
        let mut response = request.call().map_err(|error| self.refused(name, "", Box::new(error).into()))?;
        let header = |header: &str| {
            let value = response.headers().get(header);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (code, message) = (header("x-error-code"), header("x-error-message"));
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
            status => return Err(self.status(name, "", status, &message)),
        }
        let text = response.body_mut().read_to_string();
        let text = text.map_err(|error| self.answer(name, error.to_string()))?;
        let info: Info = serde_json::from_str(&text).map_err(|error| self.answer(name, error.to_string()))?;
        match info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !info.sha.is_empty() {
            true => Ok(info),
            false => Err(self.answer(name, "it names no commit".to_owned())),
        }
    }

    /// What a status means that the hub refuses with.
    fn status(&self, name: &ModelName, file: &str, status: u16, message: &str) -> HubError {
        let model = name.to_string();
        let page = format!("{}/{}", self.endpoint, name.repo);
        match (status, &self.token) {
            (401, None) => HubError::NoToken { model, page },
            (401, Some(token)) => HubError::BadToken { model, token: token.source.clone() },
            (403, _) => HubError::Gated { model, page },
            (404, _) => HubError::NoFile { model, file: file.to_owned() },
            _ => self.answer(name, format!("status {status} {message}").trim().to_owned()),
        }
    }

    /// What an error of the crate means, for a file or, with an empty name, for the model.
    fn refused(&self, name: &ModelName, file: &str, error: ApiError) -> HubError {
        let interrupted = |message: String| HubError::Interrupted {
            model: name.to_string(),
            file: file.to_owned(),
            message,
        };
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(status) => self.status(name, file, status, ""),
                ref error @ (ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::Tls(_)) => {
                    HubError::Connection { endpoint: self.endpoint.clone(), message: error.to_string() }
                }
                error => self.answer(name, error.to_string()),
            },
            ApiError::IoError(source) => match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::NotFound => HubError::Cache { path: self.cache.clone(), source },
                _ => interrupted(source.to_string()),
            },
            ApiError::LockAcquisition(lock) => HubError::Locked { lock },
            error => self.answer(name, error.to_string()),
        }
    }

    fn answer(&self, name: &ModelName, message: String) -> HubError {
        HubError::Answer { endpoint: self.endpoint.clone(), model: name.to_string(), message }
    }
}

/// A model at a revision, as the crate names it.
fn repo(name: &ModelName, revision: &str) -> Repo {
    Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_owned())
}

/// Fetching the files of one commit.
struct Fetch<'a> {
    hub: &'a Hub,
    name: &'a ModelName,
    commit: &'a str,
    api: &'a Api,
    remote: ApiRepo,
    cache: &'a CacheRepo,
    events: &'a mut dyn FnMut(HubEvent<'_>),
}

impl Fetch<'_> {
    /// The path of a file in the cache; it is fetched where it is missing.
    fn file(&mut self, file: &str) -> Result<PathBuf> {
        let pointer = self.cache.pointer_path(self.commit).join(file);
        let mut furthest = 0;
        for _ in 0..ATTEMPTS {
            if pointer.exists() {
                return Ok(pointer);
            }
            let before = furthest;
            match self.attempt(file, &pointer, &mut furthest) {
                Err(HubError::Interrupted { .. }) if furthest > before => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(pointer),
            }
        }
        let message = format!("after {ATTEMPTS} attempts");
        Err(HubError::Interrupted { model: self.name.to_string(), file: file.to_owned(), message })
    }

    /// One attempt, which goes on where an earlier one ended. `furthest` grows with what came.
    fn attempt(&mut self, file: &str, pointer: &Path, furthest: &mut u64) -> Result<()> {
        let (hub, name) = (self.hub, self.name);
        let refused = |error| hub.refused(name, file, error);
        let metadata = self.api.metadata(&self.remote.url(file)).map_err(refused)?;
        let (etag, size) = (metadata.etag(), metadata.size() as u64);
        // It becomes a name in the cache.
        if etag.is_empty()
            || etag.contains("..")
            || etag.starts_with('/')
            || metadata.commit_hash() != self.commit
        {
            return Err(hub.answer(name, format!("`{file}` has the mark `{etag}` of another version")));
        }
        let blob = self.cache.blob_path(etag);
        let in_cache = |source| HubError::Cache { path: blob.clone(), source };
        if !self.held(&blob, size).map_err(in_cache)? {
            let bar = Bar { file, done: 0, total: size, furthest, events: &mut *self.events };
            self.remote.download_with_progress(file, bar).map_err(refused)?;
        }
        // A server that ends early or repeats itself must not leave a file that looks whole.
        let came = fs::metadata(&blob).map_err(in_cache)?.len();
        if came != size {
            let _ = fs::remove_file(pointer);
            fs::remove_file(&blob).map_err(in_cache)?;
            let message = format!("{came} bytes came of {size}");
            return Err(HubError::Interrupted { model: name.to_string(), file: file.to_owned(), message });
        }
        match pointer.exists() {
            true => Ok(()),
            false => link(&blob, pointer).map_err(in_cache),
        }
    }

    /// Whether all of a file is there already: of another commit, or of a download that ended just
    /// before its last step. Leftovers that cannot be right are taken away.
    fn held(&self, blob: &Path, size: u64) -> io::Result<bool> {
        let length = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
        if length(blob) == Some(size) {
            return Ok(true);
        }
        let part = blob.with_extension("part");
        match length(&part) {
            Some(length) if length == size => fs::rename(part, blob).map(|()| true),
            Some(length) if length > size => fs::remove_file(part).map(|()| false),
            _ => Ok(false),
        }
    }
}

/// Makes `pointer`, in `snapshots/COMMIT`, stand for `blob`, in `blobs`, as all tools of the hub do.
fn link(blob: &Path, pointer: &Path) -> io::Result<()> {
    if let Some(folder) = pointer.parent() {
        fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    {
        // A link whose target went away is in the way of a new one.
        let _ = fs::remove_file(pointer);
        let name = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer)
    }
    #[cfg(not(unix))]
    fs::copy(blob, pointer).map(drop)
}

/// Passes on how far a file is.
struct Bar<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    furthest: &'a mut u64,
    events: &'a mut dyn FnMut(HubEvent<'_>),
}

impl hf_hub::api::Progress for Bar<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        *self.furthest = self.done.max(*self.furthest);
        (self.events)(HubEvent::Download { file: self.file, done: self.done, total: self.total });
    }

    fn finish(&mut self) {}
}
