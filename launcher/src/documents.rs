//! The documents of one install, kept by repository path: what it trusts, and what it passes on.
//!
//! Only verified documents are put in. Other launchers ask for them by path over the peer connection;
//! they verify again. What can be asked for is exactly the kinds listed in [`Kind::of`].

use crate::status::{STATUS_PATH, Status};
use crate::tree::Tree;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::keys::Role;
use updraft_manifests::leaf_index;
use updraft_manifests::packs;
use updraft_manifests::patchlist::LIST_BYTES_MAX;
use updraft_protocol::io::{DocumentPart, DocumentStore};
use updraft_protocol::metainfo::TORRENT_BYTES_MAX;

/// Where the documents are, below the install.
pub const DOCUMENTS_FOLDER: &str = ".updraft/documents";

/// Where the documents lie that come and go with releases.
const DROPPED_FOLDERS: [&str; 6] =
    ["manifests", "torrents", "indexes", "patchlists", "deltas", "packlists"];

/// A kind of document, by its path in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `head.toml`
    Head,
    /// `root/<n>.toml`
    Root,
    /// `manifests/<sha256>.toml`
    Manifest,
    /// `torrents/<sha256>.torrent`
    Torrent,
    /// `indexes/<sha256>`, if it is small
    Index,
    /// `patchlists/<sha256>.toml`
    PatchList,
    /// `deltas/<sha256>`
    TorrentDelta,
    /// `packlists/<sha256>`
    PackList,
}

impl Kind {
    /// The kind of document at `path`; `None` for any other path.
    pub fn of(path: &str) -> Option<Self> {
        if path == HEAD_PATH {
            return Some(Self::Head);
        }
        let (folder, name) = path.split_once('/')?;
        let hash = |ending| name.strip_suffix(ending).and_then(ContentHash::from_hex).is_some();
        match folder {
            "root" => {
                let number = name.strip_suffix(".toml")?;
                let plain = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
                (plain && (1..=9).contains(&number.len())).then_some(Self::Root)
            }
            "manifests" => hash(".toml").then_some(Self::Manifest),
            "torrents" => hash(".torrent").then_some(Self::Torrent),
            "indexes" => hash("").then_some(Self::Index),
            "patchlists" => hash(".toml").then_some(Self::PatchList),
            "deltas" => hash("").then_some(Self::TorrentDelta),
            "packlists" => hash("").then_some(Self::PackList),
            _ => None,
        }
    }

    /// The most bytes it may have.
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Head => Role::Head.document_bytes_max(),
            Self::Root => Role::Root.document_bytes_max(),
            Self::Manifest => Role::Release.document_bytes_max(),
            Self::Torrent | Self::TorrentDelta => TORRENT_BYTES_MAX,
            Self::PatchList => LIST_BYTES_MAX,
            Self::PackList => packs::LIST_BYTES_MAX,
            Self::Index => usize::try_from(leaf_index::WHOLE_BYTES_MAX).expect("it is small"),
        }
    }
}

/// The documents of one install.
#[derive(Debug)]
pub struct Documents {
    tree: Tree,
    /// What others are told of this install.
    status: Mutex<Status>,
}

impl DocumentStore for Documents {
    fn part(&self, path: &str, at: u32) -> Option<DocumentPart> {
        if path == STATUS_PATH {
            let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            return DocumentPart::of(&status.to_bytes(), at);
        }
        let kind = Kind::of(path)?;
        DocumentPart::of_file(self.open_document(path).ok()?, at, kind.bytes_max())
    }
}

impl Documents {
    /// Over the install at `dir`, whose state folder exists.
    ///
    /// # Errors
    /// From the file system.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let tree = Tree::open(dir)?;
        for folder in ["root"].iter().chain(&DROPPED_FOLDERS) {
            tree.make_folders(&format!("{DOCUMENTS_FOLDER}/{folder}"))?;
        }
        Ok(Self { tree, status: Mutex::default() })
    }

    /// From now on others are told this of the install.
    pub fn set_status(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The document at `path`, if it is kept here and a document at all.
    pub fn read(&self, path: &str) -> Option<Bytes> {
        let kind = Kind::of(path)?;
        let file = self.open_document(path).ok()?;
        let max = kind.bytes_max() as u64;
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= max && !bytes.is_empty()).then(|| bytes.into())
    }

    fn open_document(&self, path: &str) -> io::Result<File> {
        self.tree.open_file(&format!("{DOCUMENTS_FOLDER}/{path}"))
    }

    /// Keeps a verified document, atomically.
    ///
    /// # Errors
    /// From the file system, or for a path that is no document's.
    pub fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        if Kind::of(path).is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a document's path"));
        }
        let full = format!("{DOCUMENTS_FOLDER}/{path}");
        let fresh = format!("{full}.new");
        let mut file = self.tree.create_file(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        self.tree.rename(&fresh, &full)?;
        self.tree.sync_folder(crate::tree::parent(&full))
    }

    /// Drops every document of a release or patch whose path is not in `keep`.
    ///
    /// # Errors
    /// From the file system.
    pub fn keep_only(&self, keep: &[String]) -> io::Result<()> {
        for folder in DROPPED_FOLDERS {
            for name in self.tree.list(&format!("{DOCUMENTS_FOLDER}/{folder}"))? {
                let path = format!("{folder}/{name}");
                if !keep.contains(&path) {
                    self.tree.remove_file(&format!("{DOCUMENTS_FOLDER}/{path}"))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_can_be_asked_for() {
        let hash = "ab".repeat(32);
        for (path, kind) in [
            ("head.toml", Some(Kind::Head)),
            ("root/1.toml", Some(Kind::Root)),
            ("root/120.toml", Some(Kind::Root)),
            (&format!("manifests/{hash}.toml"), Some(Kind::Manifest)),
            (&format!("torrents/{hash}.torrent"), Some(Kind::Torrent)),
            ("root/0.toml", None),
            ("root/01.toml", None),
            ("root/.toml", None),
            ("root/../state", None),
            ("root/../../secret.toml", None),
            ("../head.toml", None),
            ("/head.toml", None),
            ("state", None),
            ("", None),
            (&format!("indexes/{hash}"), Some(Kind::Index)),
            (&format!("patchlists/{hash}.toml"), Some(Kind::PatchList)),
            (&format!("deltas/{hash}"), Some(Kind::TorrentDelta)),
            (&format!("manifests/{hash}.torrent"), None),
            (&format!("objects/{hash}-1"), None),
        ] {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
    }

    #[test]
    fn kept_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let documents = Documents::open(dir.path()).unwrap();
        let paths: Vec<String> =
            ["ab", "cd"].iter().map(|h| format!("manifests/{}.toml", h.repeat(32))).collect();
        for path in &paths {
            documents.write(path, path.as_bytes()).unwrap();
        }
        documents.write("head.toml", b"head").unwrap();
        assert!(documents.write("elsewhere", b"x").is_err());
        documents.keep_only(&paths[1..]).unwrap();
        assert_eq!(documents.read(&paths[0]), None);
        assert_eq!(documents.read(&paths[1]).unwrap(), paths[1].as_bytes());
        assert_eq!(documents.read("head.toml").unwrap(), &b"head"[..]);
        assert_eq!(documents.read("elsewhere"), None);
        let get = |path| documents.part(path, 0).map(|part| part.data);
        assert_eq!(get("elsewhere"), None);
        assert_eq!(get(STATUS_PATH).unwrap(), "");
        let version = updraft_manifests::names::Version::parse("2").unwrap();
        let (version, sequence) = (Some(version), Some(2));
        documents.set_status(Status { name: None, version, sequence });
        assert_eq!(get(STATUS_PATH).unwrap(), "version = \"2\"\nsequence = 2\n");
    }
}
