//! Where the hub and its cache are, by the variables that all Hugging Face tools read.

use std::{env, fs, path::PathBuf, time::Duration};

/// The hub that is asked where no other is named.
const ENDPOINT: &str = "https://huggingface.co";

/// A hub and the cache for what comes from it.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The folder that holds `models--ORG--NAME`.
    pub(super) cache: PathBuf,
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    pub(super) offline: bool,
    /// Before a request that came to nothing is made again; later waits are longer.
    pub(super) wait: Duration,
}

/// What proves who asks.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: String,
    /// Where it comes from, for messages.
    pub(super) source: String,
}

impl std::fmt::Debug for Token {
    /// Without the value, which is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Hub {
    /// The hub that the environment names: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_variables(&|name| env::var(name).ok())
    }

    pub(super) fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |names: &[&str]| {
            let value = |&name: &&str| variable(name).filter(|value| !value.trim().is_empty());
            names.iter().find_map(|name| Some(((*name).to_owned(), value(name)?.trim().to_owned())))
        };
        let path = |names: &[&str]| get(names).map(|(_, value)| expanded(&value, variable));
        let home = path(&["HF_HOME"]).unwrap_or_else(|| {
            let cache = path(&["XDG_CACHE_HOME"]);
            cache.or_else(|| Some(env::home_dir()?.join(".cache"))).unwrap_or_default().join("huggingface")
        });
        let token = get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        let token = token.map(|(source, value)| Token { value, source }).or_else(|| {
            let file = path(&["HF_TOKEN_PATH"]).unwrap_or_else(|| home.join("token"));
            let value = fs::read_to_string(&file).ok()?.trim().to_owned();
            (!value.is_empty()).then(|| Token { value, source: format!("`{}`", file.display()) })
        });
        let on = |value: &str| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        let endpoint = get(&["HF_ENDPOINT"]).map_or(ENDPOINT.to_owned(), |(_, value)| value);
        Self {
            cache: path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            wait: Duration::from_secs(1),
            offline: get(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).is_some_and(|(_, value)| on(&value)),
        }
    }

    /// Asks nothing of the hub, so that only what is cached can be used.
    pub fn offline(self) -> Self {
        Self { offline: true, ..self }
    }
}

/// The absolute path, with the user's folder for `~` and values for `$NAME` and `${NAME}`, as Python's
/// `expanduser` and `expandvars` make it: what has no value stays.
fn expanded(path: &str, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let home = || variable("HOME").map(PathBuf::from).or_else(env::home_dir);
    let path = match path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => match home() {
            Some(home) => format!("{}{rest}", home.to_string_lossy().trim_end_matches('/')),
            None => path.to_owned(),
        },
        None => path.to_owned(),
    };
    let (mut expanded, mut rest) = (String::new(), path.as_str());
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, next) = match after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some(braced) => braced,
            None => {
                let is_other = |character: char| !character.is_ascii_alphanumeric() && character != '_';
                after.split_at(after.find(is_other).unwrap_or(after.len()))
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[before.len()..rest.len() - next.len()]),
        }
        rest = next;
    }
    expanded.push_str(rest);
    let expanded = PathBuf::from(expanded);
    std::path::absolute(&expanded).unwrap_or(expanded)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Hub {
        Hub::from_variables(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_mean_what_they_mean_to_other_tools() {
        assert_eq!(hub(&[]).endpoint, "https://huggingface.co");
        assert!(hub(&[]).cache.ends_with("huggingface/hub"));
        assert_eq!(hub(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        let named = hub(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "http://localhost:1/"), ("HF_TOKEN", " t\n")]);
        assert_eq!(
            (named.cache.as_path(), named.endpoint.as_str()),
            (Path::new("/h/hub"), "http://localhost:1")
        );
        let token = named.token.unwrap();
        assert_eq!((token.value.as_str(), token.source.as_str()), ("t", "HF_TOKEN"));
        assert!(!format!("{token:?}").contains("\"t\""));
        assert_eq!(hub(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
        for (value, offline) in [("1", true), ("TRUE", true), ("0", false), ("", false)] {
            assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert!(hub(&[]).offline().offline);
    }

    #[test]
    fn folders_may_be_named_by_variables() {
        let cache =
            |name: &str, value: &str| hub(&[("HOME", "/u"), ("D", "/d"), ("A_1", "x"), (name, value)]).cache;
        for (name, value, expected) in [
            ("HF_HOME", "$HOME/h", "/u/h/hub"),
            ("HF_HOME", "~/h", "/u/h/hub"),
            ("HF_HOME", "~", "/u/hub"),
            ("HF_HOME", "${D}/$A_1-${A_1}y", "/d/x-xy/hub"),
            ("HF_HUB_CACHE", "$D/c", "/d/c"),
            ("HUGGINGFACE_HUB_CACHE", "~/c", "/u/c"),
            ("XDG_CACHE_HOME", "$HOME/.c", "/u/.c/huggingface/hub"),
            // What has no value stays, as a `$` that begins no name does.
            ("HF_HUB_CACHE", "/c/$NO/${NO}/$/${D/a~", "/c/$NO/${NO}/$/${D/a~"),
        ] {
            assert_eq!(cache(name, value), Path::new(expected), "{name}={value}");
        }
    }

    #[test]
    fn the_token_may_lie_in_a_file() {
        let home = tempfile::tempdir().unwrap();
        let of = |variables: &[(&str, &str)]| hub(variables).token.map(|token| token.value);
        let path = home.path().to_str().unwrap();
        assert_eq!(of(&[("HF_HOME", path)]), None);
        fs::write(home.path().join("token"), "from file\n").unwrap();
        assert_eq!(of(&[("HF_HOME", path)]).as_deref(), Some("from file"));
        assert_eq!(of(&[("HF_HOME", path), ("HF_TOKEN", "set")]).as_deref(), Some("set"));
        let elsewhere = home.path().join("other");
        fs::write(&elsewhere, "other").unwrap();
        let variables = [("HF_HOME", path), ("HF_TOKEN_PATH", elsewhere.to_str().unwrap())];
        assert_eq!(of(&variables).as_deref(), Some("other"));
    }
}
