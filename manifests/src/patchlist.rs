//! The patch list: the patches that lead to one release, and what spares its torrent.
//!
//! It needs no signature of its own: the head names it by hash and length, and what a patch makes
//! counts only by the roots of the signed release. So patches may come after their release, and a newer
//! head may name another list.

use crate::document::FORMAT;
use crate::hash::{ContentHash, V1Hash};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most patches of a list.
pub const OFFERS_MAX: usize = 64;
/// The largest patch list in bytes.
pub const LIST_BYTES_MAX: usize = 64 << 10;

/// How the head names a patch list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchListRef {
    /// SHA-256 of the file; it lies at `patchlists/<hash>.toml`.
    pub hash: ContentHash,
    /// Its bytes.
    pub length: u64,
}

/// Content of `patchlists/<sha256>.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchList {
    /// [`FORMAT`].
    pub format: u32,
    /// The release that they lead to, by the v2 info-hash of its torrent.
    pub to: ContentHash,
    /// What there is.
    #[serde(default, rename = "patch")]
    pub patches: Vec<Offer>,
    /// Its torrent as differences, see [`crate::torrent_delta`].
    #[serde(default, rename = "torrent", skip_serializing_if = "Vec::is_empty")]
    pub torrents: Vec<TorrentDelta>,
}

/// The release's torrent as the difference to that of an earlier release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TorrentDelta {
    /// The earlier release, by the v2 info-hash of its torrent.
    pub from: ContentHash,
    /// SHA-256 of the file; it lies at `deltas/<hash>`.
    pub hash: ContentHash,
    /// Its bytes.
    pub length: u64,
}

impl TorrentDelta {
    /// Where it lies in the repository.
    pub fn path(&self) -> String {
        delta_path(&self.hash)
    }
}

/// Where the torrent delta with that hash lies in the repository.
pub fn delta_path(hash: &ContentHash) -> String {
    format!("deltas/{hash}")
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The release that it starts from, by the v2 info-hash of its torrent.
    pub from: ContentHash,
    /// The version of its format, [`crate::patch::VERSION`] or another: then it is to be skipped.
    pub version: u8,
    /// The features that a reader must know, see [`crate::patch::FEATURES_KNOWN`].
    #[serde(default)]
    pub features: u32,
    /// Bytes of the patch file.
    pub size: u64,
    /// Bytes of all files that it makes.
    pub makes: u64,
    /// Bytes of memory that applying takes at most.
    pub memory: u64,
    /// The patch file's `pieces root`: it lies at `objects/<root>-<size>`.
    pub root: ContentHash,
    /// The v2 info-hash of its own torrent, at `torrents/<v2>.torrent`.
    pub v2: ContentHash,
    /// The v1 info-hash of its own torrent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v1: Option<V1Hash>,
}

/// Why a patch list was refused. An update goes on without patches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchListError {
    /// Other bytes than the head names.
    #[error("the patch list served is not the one that the head names ({0}): try another source")]
    Hash(ContentHash),
    /// Not what a publisher writes.
    #[error("the patch list cannot be read: {0}; tell the publisher")]
    Content(String),
}

impl PatchListRef {
    /// Where the list lies in the repository.
    pub fn path(&self) -> String {
        path(&self.hash)
    }
}

/// Where the patch list with that hash lies in the repository.
pub fn path(hash: &ContentHash) -> String {
    format!("patchlists/{hash}.toml")
}

impl PatchList {
    /// Reads the list that `named` names; `to` is the release's torrent, as its manifest says.
    ///
    /// # Errors
    /// [`PatchListError`].
    pub fn parse(
        bytes: &[u8],
        named: &PatchListRef,
        to: &ContentHash,
    ) -> Result<Self, PatchListError> {
        if bytes.len() as u64 != named.length || ContentHash::of(bytes) != named.hash {
            return Err(PatchListError::Hash(named.hash));
        }
        let content = |why: &str| PatchListError::Content(why.to_owned());
        if bytes.len() > LIST_BYTES_MAX {
            return Err(content("it is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| content("it is not UTF-8 text"))?;
        let list: Self = toml::from_str(text).map_err(|error| content(&error.to_string()))?;
        if list.format != FORMAT {
            return Err(content("it has another format"));
        }
        if list.to != *to {
            return Err(content("it is of another release"));
        }
        for from in [
            list.patches.iter().map(|patch| patch.from).collect::<Vec<_>>(),
            list.torrents.iter().map(|delta| delta.from).collect(),
        ] {
            let mut seen = BTreeSet::new();
            if from.len() > OFFERS_MAX || !from.iter().all(|from| seen.insert(from)) {
                return Err(content("it names too many patches, or two from one release"));
            }
        }
        Ok(list)
    }

    /// The file's bytes and how the head names them.
    pub fn encode(&self) -> (Vec<u8>, PatchListRef) {
        let text = toml::to_string(self).expect("a patch list has only what TOML can say");
        let bytes = text.into_bytes();
        let named = PatchListRef { hash: ContentHash::of(&bytes), length: bytes.len() as u64 };
        (bytes, named)
    }

    /// The torrent as the difference to that one, if it is offered.
    pub fn torrent_from(&self, from: &ContentHash) -> Option<&TorrentDelta> {
        self.torrents.iter().find(|delta| delta.from == *from)
    }

    /// The patch from the release with that torrent, if this program can read it.
    pub fn usable_from(&self, from: &ContentHash) -> Option<&Offer> {
        self.patches.iter().find(|offer| {
            offer.from == *from
                && offer.version == crate::patch::VERSION
                && offer.features & !crate::patch::FEATURES_KNOWN == 0
                && offer.memory <= crate::patch::MEMORY_MAX
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> PatchList {
        let hash = |text: &str| ContentHash::of(text.as_bytes());
        let offer = |from: &str| Offer {
            from: hash(from),
            version: crate::patch::VERSION,
            features: 0,
            size: 1000,
            makes: 2000,
            memory: crate::patch::MEMORY_MAX,
            root: hash("root"),
            v2: hash("v2"),
            v1: Some(V1Hash([1; 20])),
        };
        let delta = |from| TorrentDelta { from: hash(from), hash: hash("delta"), length: 100 };
        PatchList {
            format: FORMAT,
            to: hash("to"),
            patches: vec![offer("a"), offer("b")],
            torrents: vec![delta("a"), delta("b")],
        }
    }

    fn check(change: impl FnOnce(&mut PatchList), expected: &str) {
        let mut list = list();
        let to = list.to;
        change(&mut list);
        let (bytes, named) = list.encode();
        let error = PatchList::parse(&bytes, &named, &to).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn bad_lists() {
        check(|list| list.format = 2, "another format");
        check(|list| list.to = ContentHash::of(b"x"), "another release");
        check(|list| list.patches[1].from = list.patches[0].from, "two from one");
        check(|list| list.torrents[1].from = list.torrents[0].from, "two from one");
        let (bytes, named) = list().encode();
        let other = PatchListRef { hash: ContentHash::of(b"x"), ..named };
        let error = PatchList::parse(&bytes, &other, &list().to).unwrap_err();
        assert_eq!(error, PatchListError::Hash(other.hash));
    }

    #[test]
    fn read_as_written() {
        let (bytes, named) = list().encode();
        let read = PatchList::parse(&bytes, &named, &list().to).unwrap();
        assert_eq!(read, list());
        assert_eq!(read.usable_from(&ContentHash::of(b"b")), Some(&read.patches[1]));
        assert_eq!(read.usable_from(&ContentHash::of(b"c")), None);
        assert_eq!(read.torrent_from(&ContentHash::of(b"b")), Some(&read.torrents[1]));
    }

    #[test]
    fn what_is_newer_is_skipped() {
        let a = ContentHash::of(b"a");
        let usable = |change: fn(&mut Offer)| {
            let mut list = list();
            change(&mut list.patches[0]);
            list.usable_from(&a).is_some()
        };
        assert!(usable(|_| {}));
        assert!(!usable(|offer| offer.version += 1));
        assert!(!usable(|offer| offer.features = 1 << 31));
        assert!(!usable(|offer| offer.memory = 1 << 40));
    }
}
