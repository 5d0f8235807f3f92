//! The feed argument: a link, a file, or the address of a feed file.

use crate::error::Error;
use crate::http::{Answer, Http};
use std::path::Path;
use updraft_manifests::feed::{FEED_BYTES_MAX, Feed};
use updraft_manifests::hash::ContentHash;
use url::Url;

/// Reads a feed from what the player gave: `updraft:…`, the path of a feed file, or the `http(s)` URL
/// of one. Plain http can be changed on its way, so such a URL must name the root's fingerprint:
/// `http://host/feed.toml#<64 hexadecimal digits>`; with https it may. Without `http` no URL is asked.
///
/// # Errors
/// [`Error::Usage`] if it is none of these, [`Error::Network`] if it cannot be fetched.
pub async fn read(text: &str, http: Option<&Http>) -> Result<Feed, Error> {
    let usage = |error: &dyn std::fmt::Display| Error::Usage(format!("{text}: {error}"));
    if text.starts_with("updraft:") {
        return Feed::parse(text).map_err(|error| usage(&error));
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        let url = Url::parse(text).map_err(|error| usage(&error))?;
        let http = http.ok_or_else(|| {
            usage(&"nothing is asked beyond your own network: give the feed link or file instead")
        })?;
        return download(&url, http).await;
    }
    let path = Path::new(text);
    let length = std::fs::metadata(path).map_err(|error| {
        Error::Usage(format!(
            "cannot read the feed {text}: {error}; give a feed link (updraft:…), the path of a feed \
             file, or its URL"
        ))
    })?;
    if !length.is_file() || length.len() > FEED_BYTES_MAX as u64 {
        return Err(usage(&"this is no feed file"));
    }
    let content = std::fs::read_to_string(path).map_err(|error| usage(&error))?;
    Feed::parse(&content).map_err(|error| usage(&error))
}

async fn download(url: &Url, http: &Http) -> Result<Feed, Error> {
    let pinned = url.fragment().map(|text| text.strip_prefix("root=").unwrap_or(text));
    let pinned = match pinned {
        Some(text) => Some(ContentHash::from_hex(text).ok_or_else(|| {
            Error::Usage(format!("{url}: what follows `#` must be the root's fingerprint"))
        })?),
        None if url.scheme() == "https" => None,
        None => {
            return Err(Error::Usage(format!(
                "{url}: a feed that comes over plain http could be anybody's; use the feed link or \
                 file, or add `#` and the root's fingerprint"
            )));
        }
    };
    let failed = |why: String| Error::Network { what: format!("the feed {url}"), why };
    let bytes = match http.get(url, FEED_BYTES_MAX, false).await.map_err(failed)? {
        Answer::Found(bytes) => bytes,
        Answer::Missing => return Err(failed("there is nothing at that address".into())),
    };
    let usage = |error: &dyn std::fmt::Display| Error::Usage(format!("{url}: {error}"));
    let content = std::str::from_utf8(&bytes).map_err(|_| usage(&"this is no feed file"))?;
    let feed = Feed::parse(content).map_err(|error| usage(&error))?;
    match pinned {
        Some(root) if root != feed.root => {
            Err(usage(&format!("the feed there has the fingerprint {}, not {root}", feed.root)))
        }
        _ => Ok(feed),
    }
}
