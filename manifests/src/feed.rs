//! The feed: all that a launcher has to be told to follow a product.
//!
//! As one link: `updraft:<product>?root=<fingerprint>&url=<repository>&url=<mirror>`. As one file:
//! TOML with `updraft-feed = 1`, `product`, `root`, `urls`.

use crate::hash::ContentHash;
use crate::head::as_folder;
use crate::names::Name;
use serde::{Deserialize, Serialize};
use url::Url;

/// The longest feed, link or file, in bytes.
pub const FEED_BYTES_MAX: usize = 16 << 10;
/// The most repository URLs.
pub const URLS_MAX: usize = 16;

/// Repository URLs, product, and the fingerprint of its first root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The product.
    pub product: Name,
    /// SHA-256 of the payload of `root/1.toml`: what all trust hangs on.
    pub root: ContentHash,
    /// Repositories, each an http(s) URL ending in `/`: at least one.
    pub urls: Vec<Url>,
}

/// A text that is no feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not an Updraft feed ({0}): use the link or the feed.toml that the publisher gave you"
)]
pub struct FeedError(String);

#[derive(Serialize, Deserialize)]
struct FeedFile {
    #[serde(rename = "updraft-feed")]
    format: u32,
    product: Name,
    root: ContentHash,
    urls: Vec<String>,
}

impl Feed {
    /// Checks and takes the parts.
    ///
    /// # Errors
    /// [`FeedError`] if there is no URL, too many, too long ones, or one that is not http(s).
    pub fn new(product: Name, root: ContentHash, urls: Vec<Url>) -> Result<Self, FeedError> {
        if urls.is_empty() {
            return Err(FeedError("it names no repository URL (in a shell a feed link stands in quotes: it may have a `&` in it)".to_owned()));
        }
        if urls.len() > URLS_MAX {
            return Err(FeedError(format!("it names more than {URLS_MAX} URLs")));
        }
        if let Some(url) = urls.iter().find(|url| !matches!(url.scheme(), "http" | "https")) {
            return Err(FeedError(format!("`{}:` is not http or https", url.scheme())));
        }
        let feed = Self { product, root, urls: urls.into_iter().map(as_folder).collect() };
        // Escapes make a URL longer. What is written of it has to be read again.
        if feed.to_link().len().max(feed.to_toml().len()) > FEED_BYTES_MAX {
            return Err(FeedError("its URLs are too long".to_owned()));
        }
        Ok(feed)
    }

    /// Reads either form: text that starts with `updraft:` is a link, all else is the file.
    ///
    /// # Errors
    /// [`FeedError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, FeedError> {
        if text.len() > FEED_BYTES_MAX {
            return Err(FeedError("it is too long".to_owned()));
        }
        let text = text.trim();
        if text.starts_with("updraft:") { Self::parse_link(text) } else { Self::parse_file(text) }
    }

    fn parse_link(text: &str) -> Result<Self, FeedError> {
        let refused = |why: String| FeedError(why);
        let link = Url::parse(text).map_err(|error| refused(error.to_string()))?;
        let product =
            Name::parse(link.path().trim_matches('/')).map_err(|e| refused(e.to_string()))?;
        let (mut root, mut urls) = (None, Vec::new());
        for (key, value) in link.query_pairs() {
            match key.as_ref() {
                "root" if root.is_some() => return Err(refused("it has two roots".to_owned())),
                "root" => root = Some(parse_root(&value)?),
                "url" => urls.push(parse_url(&value)?),
                _ => {} // Later versions may say more.
            }
        }
        let root = root.ok_or_else(|| refused("its `root` is missing".to_owned()))?;
        Self::new(product, root, urls)
    }

    fn parse_file(text: &str) -> Result<Self, FeedError> {
        let file: FeedFile = toml::from_str(text)
            .map_err(|error| FeedError(crate::names::shown(error.message())))?;
        if file.format != 1 {
            return Err(FeedError(format!(
                "its format {} is newer than this program",
                file.format
            )));
        }
        let urls = file.urls.iter().map(|url| parse_url(url)).collect::<Result<_, _>>()?;
        Self::new(file.product, file.root, urls)
    }

    /// The one-line form.
    pub fn to_link(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("root", &self.root.to_string());
        for url in &self.urls {
            query.append_pair("url", url.as_str());
        }
        format!("updraft:{}?{}", self.product, query.finish())
    }

    /// The file form.
    pub fn to_toml(&self) -> String {
        let urls = self.urls.iter().map(Url::to_string).collect();
        let file = FeedFile { format: 1, product: self.product.clone(), root: self.root, urls };
        toml::to_string(&file).expect("plain fields serialise")
    }

    /// The info-hash at which launchers of this product meet, whatever release they have.
    pub fn rendezvous(&self) -> [u8; 20] {
        rendezvous(&self.root)
    }
}

/// The rendezvous info-hash of the product whose first root has this fingerprint.
pub fn rendezvous(root: &ContentHash) -> [u8; 20] {
    let digest = ContentHash::of(&[b"updraft rendezvous v1\0".as_slice(), &root.0].concat());
    let mut out = [0; 20];
    out.copy_from_slice(&digest.0[..20]);
    out
}

fn parse_root(text: &str) -> Result<ContentHash, FeedError> {
    ContentHash::from_hex(text)
        .ok_or_else(|| FeedError("its `root` is not 64 hexadecimal digits".to_owned()))
}

fn parse_url(text: &str) -> Result<Url, FeedError> {
    Url::parse(text)
        .map_err(|error| FeedError(format!("`{}` is no URL: {error}", crate::names::shown(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_round_trip() {
        let urls = ["http://10.0.0.1:7600", "https://cdn.example/a b/?x=1&y=2"];
        let urls = urls.map(|url| Url::parse(url).unwrap()).to_vec();
        let feed = Feed::new(Name::parse("game").unwrap(), ContentHash::of(b"root"), urls).unwrap();
        assert_eq!(feed.urls[1].as_str(), "https://cdn.example/a%20b/");
        assert_eq!(Feed::parse(&feed.to_link()).unwrap(), feed);
        assert_eq!(Feed::parse(&format!(" {}\n", feed.to_link())).unwrap(), feed);
        assert_eq!(Feed::parse(&feed.to_toml()).unwrap(), feed);
    }

    #[test]
    fn refusals() {
        let root = ContentHash::of(b"");
        for bad in [
            "",
            "http://example.org/",
            "updraft:",
            "updraft:game",
            &format!("updraft:game?root={root}"),
            &format!("updraft:game?root={root}&root={root}&url=http://a/"),
            &format!("updraft:Game?root={root}&url=http://a/"),
            &format!("updraft:game?root={root}&url=file:///etc"),
            "updraft:game?root=12&url=http://a/",
            // Readable as it stands, but not any more as it would be written.
            &format!("updraft:game?root={root}&url=http://a/{}x", "+".repeat(6000)),
            "updraft-feed = 2\nproduct = \"a\"\nroot = \"\"\nurls = []",
        ] {
            assert!(Feed::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(updraft:)?.{0,200}") {
            let _ = Feed::parse(&text);
        }
    }
}
