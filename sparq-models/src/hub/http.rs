//! Asking a hub: one request for what it says about a model, one for a file.
//!
//! Redirects are followed here, because what the hub says of a large file stands in the answer that leads to
//! the file's place.

use std::io::Read;
use std::time::Duration;

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, Uri},
    tls::{TlsConfig, TlsProvider},
};

use super::{Hub, mark};

/// How long the hub may take to accept a connection, and to begin an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers that lead on to another one, in a row.
const REDIRECTS: usize = 10;

/// A connection to a hub.
pub(super) struct Http<'a> {
    agent: Agent,
    hub: &'a Hub,
}

/// What a hub answers about a file, and the file itself unless it was not asked for.
pub(super) struct Answer {
    pub(super) status: u16,
    /// What the file's content is known by: its name in the cache.
    pub(super) mark: Option<String>,
    /// Size of the whole file in bytes, where the hub states it.
    pub(super) size: Option<u64>,
    /// The commit that the file is of, where the hub states it.
    pub(super) commit: Option<String>,
    /// After how many seconds the hub wants to be asked again, where it says so.
    pub(super) retry_after: Option<u64>,
    /// The first byte of the body within the file.
    pub(super) start: u64,
    /// Whether what is known of the file was enough, so that this is not the file.
    pub(super) is_enough: bool,
    body: Body,
}

impl Answer {
    /// The bytes from `start` on.
    pub(super) fn reader(self) -> impl Read {
        self.body.into_reader()
    }
}

impl<'a> Http<'a> {
    pub(super) fn new(hub: &'a Hub) -> Self {
        let agent = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .tls_config(TlsConfig::builder().provider(TlsProvider::Rustls).build())
            .user_agent(concat!("sparq/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: agent.into(), hub }
    }

    /// What is at `url`.
    pub(super) fn get(&self, url: &str) -> Result<Response<Body>, ureq::Error> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let response = self.request(&url, 0)?;
            match next(&url, &response) {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(ureq::Error::TooManyRedirects)
    }

    /// The file at `url` from byte `start` on. `is_enough` sees what the hub says of the file as soon as that
    /// is known; where it is, the file's own place is not asked.
    pub(super) fn file(
        &self,
        url: &str,
        start: u64,
        is_enough: impl Fn(&str, Option<u64>) -> bool,
    ) -> Result<Answer, ureq::Error> {
        let mut url = url.to_owned();
        let (mut linked, mut size, mut commit) = (None, None, None);
        for _ in 0..REDIRECTS {
            let response = self.request(&url, start)?;
            let headers = response.headers();
            let next = next(&url, &response);
            linked = linked.or_else(|| text(headers, "x-linked-etag").map(mark::normalised));
            size = size.or_else(|| text(headers, "x-linked-size")?.parse().ok());
            commit = commit.or_else(|| text(headers, "x-repo-commit").map(str::to_owned));
            let known = linked.as_deref().is_some_and(|mark| is_enough(mark, size));
            if let (Some(next), false) = (next, known) {
                url = next;
                continue;
            }
            let range = text(headers, "content-range").and_then(range);
            let length = || text(headers, "content-length")?.parse().ok();
            let whole = match (response.status().as_u16(), range) {
                (206, Some((_, total))) => total,
                (200, _) => length(),
                _ => None,
            };
            return Ok(Answer {
                status: response.status().as_u16(),
                mark: linked.or_else(|| text(headers, "etag").map(mark::normalised)),
                size: size.or(whole),
                commit,
                retry_after: retry_after(headers),
                start: range.map_or(0, |(start, _)| start),
                is_enough: known,
                body: response.into_body(),
            });
        }
        Err(ureq::Error::TooManyRedirects)
    }

    fn request(&self, url: &str, start: u64) -> Result<Response<Body>, ureq::Error> {
        // What counts are the bytes of the file.
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        let is_hub = origin(url).is_some() && origin(url) == origin(&self.hub.endpoint);
        // A token is for the hub, not for the places that it leads to.
        if let (Some(token), true) = (&self.hub.token, is_hub) {
            request = request.header("Authorization", format!("Bearer {}", token.value));
        }
        request.call()
    }
}

/// Where an answer leads to, if it does.
fn next(url: &str, response: &Response<Body>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = text(response.headers(), "location")?;
    match location.starts_with('/') && !location.starts_with("//") {
        true => Some(format!("{}{location}", origin(url)?)),
        false => Some(location.to_owned()),
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The seconds after which a hub wants to be asked again: `Retry-After`, or what is left of the time that its
/// limit of requests is for, where none of them is left.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let plain = text(headers, "retry-after").and_then(|seconds| seconds.trim().parse().ok());
    plain.or_else(|| {
        let mut fields = text(headers, "ratelimit")?.split(';').map(str::trim);
        fields.clone().find(|field| *field == "r=0")?;
        fields.find_map(|field| field.strip_prefix("t="))?.parse().ok()
    })
}

/// First byte and size of the whole in `bytes FIRST-LAST/SIZE`; the size may be left open.
fn range(header: &str) -> Option<(u64, Option<u64>)> {
    let (place, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = place.split_once('-')?;
    Some((first.trim().parse().ok()?, size.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_a_file_are_read() {
        assert_eq!(range("bytes 5-9/100"), Some((5, Some(100))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("bytes */100"), None);
        assert_eq!(range("pages 1-2/3"), None);
    }

    #[test]
    fn the_wait_that_a_hub_asks_for_is_read() {
        let after = |name: &'static str, value: &'static str| {
            retry_after(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(after("retry-after", "120"), Some(120));
        assert_eq!(after("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(after("ratelimit", "\"api\";r=0;t=55"), Some(55));
        assert_eq!(after("ratelimit", "\"api\";r=499;t=55"), None);
        assert_eq!(after("etag", "1"), None);
    }

    #[test]
    fn a_token_goes_to_the_hub_alone() {
        assert_eq!(origin("http://a:1/b?c"), Some("http://a:1".to_owned()));
        assert_ne!(origin("http://a:1/b"), origin("https://a:1/b"));
        assert_eq!(origin("no address"), None);
    }
}
