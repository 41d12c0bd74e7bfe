//! Models by path, or by name from the hub.

use std::path::{Path, PathBuf};

use sparq_models::{Error, Result};

#[cfg(feature = "hub")]
use crate::output;
use crate::output::Progress;

/// The folder of a model: the path where it exists, else the folder that the cache of the hub has for
/// this name, fetched where it must be. With `offline` nothing is fetched.
#[cfg(feature = "hub")]
pub(crate) fn folder(model: &Path, offline: bool, progress: &mut Progress) -> Result<PathBuf> {
    use sparq_models::hub::Hub;

    match offline {
        true => with_hub(model, progress, |name, events| Hub::from_env().offline().model(name, events)),
        false => with_hub(model, progress, |name, events| Hub::from_env().model(name, events)),
    }
}

/// As [`folder`], with what the cache holds compared with the hub, and fetched anew where it differs.
#[cfg(feature = "hub")]
pub(crate) fn checked_folder(model: &Path, progress: &mut Progress) -> Result<PathBuf> {
    use sparq_models::hub::Hub;

    with_hub(model, progress, |name, events| Hub::from_env().pull(name, events))
}

/// The path where it exists, else what `find` finds for the name.
#[cfg(feature = "hub")]
fn with_hub(
    model: &Path,
    progress: &mut Progress,
    find: impl FnOnce(
        &sparq_models::hub::ModelName,
        &mut dyn FnMut(sparq_models::hub::HubEvent<'_>),
    ) -> std::result::Result<PathBuf, sparq_models::hub::HubError>,
) -> Result<PathBuf> {
    use sparq_models::hub::{HubEvent, ModelName};

    let name = model.to_str().and_then(|text| text.parse::<ModelName>().ok());
    let Some(name) = name.filter(|_| !model.exists()) else {
        return Ok(model.to_owned());
    };
    let found = find(&name, &mut |event| match event {
        HubEvent::Download { file, done, total } => progress.download(file, done, total),
        HubEvent::FromCache { reason } => {
            progress.clear();
            output::say(format!("note: {reason}; taking `{name}` from the cache"));
        }
        HubEvent::Waiting { reason, wait } => {
            progress.clear();
            output::say(format!("note: {reason}; asking again in {} s", wait.as_secs()));
        }
        HubEvent::NeverFetched { files } => output::say(format!(
            "note: the cache has no {files} of `{name}`: if the model has them, they were never fetched \
             (`sparq pull {name}`)"
        )),
    });
    progress.clear();
    found.map_err(Error::Hub)
}

/// The folder of a model: the path.
///
/// # Errors
/// [`Error::NoHub`] for a name of the hub.
#[cfg(not(feature = "hub"))]
pub(crate) fn folder(model: &Path, _offline: bool, progress: &mut Progress) -> Result<PathBuf> {
    checked_folder(model, progress)
}

/// The folder of a model: the path.
///
/// # Errors
/// [`Error::NoHub`] for a name of the hub.
#[cfg(not(feature = "hub"))]
pub(crate) fn checked_folder(model: &Path, _progress: &mut Progress) -> Result<PathBuf> {
    let text = model.to_string_lossy();
    match !model.exists() && text.matches('/').count() == 1 && !text.starts_with(['.', '/', '~']) {
        true => Err(Error::NoHub { name: text.into_owned() }),
        false => Ok(model.to_owned()),
    }
}
