//! Models by path, or by name from the hub.

use std::path::{Path, PathBuf};

use sparq_models::{Error, Result};

use crate::output::{self, Progress};

/// The folder of a model: the path where it exists, else the folder that the cache of the hub has for
/// this name, fetched where it must be. With `offline` nothing is fetched.
#[cfg(feature = "hub")]
pub(crate) fn folder(model: &Path, offline: bool, progress: &mut Progress) -> Result<PathBuf> {
    use sparq_models::hub::{Hub, HubEvent, ModelName};

    let name = model.to_str().and_then(|text| text.parse::<ModelName>().ok());
    let Some(name) = name.filter(|_| !model.exists()) else {
        return Ok(model.to_owned());
    };
    let hub = match offline {
        true => Hub::from_env().offline(),
        false => Hub::from_env(),
    };
    let found = hub.model(&name, &mut |event| match event {
        HubEvent::Download { file, done, total } => progress.download(file, done, total),
        HubEvent::FromCache => {
            output::say(format!("note: the hub cannot be reached; taking `{name}` from the cache"));
        }
    });
    progress.clear();
    found.map_err(Error::Hub)
}

/// The folder of a model: the path.
///
/// # Errors
/// [`Error::NoHub`] for a name of the hub.
#[cfg(not(feature = "hub"))]
pub(crate) fn folder(model: &Path, _offline: bool, _progress: &mut Progress) -> Result<PathBuf> {
    let text = model.to_string_lossy();
    match !model.exists() && text.matches('/').count() == 1 && !text.starts_with(['.', '/', '~']) {
        true => Err(Error::NoHub { name: text.into_owned() }),
        false => Ok(model.to_owned()),
    }
}
