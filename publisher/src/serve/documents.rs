//! Documents for launchers that ask for them over a peer connection.

use std::fs::File;
use std::path::PathBuf;
use updraft_manifests::hash::from_hex;
use updraft_manifests::keys::Role;
use updraft_manifests::leaf_index;
use updraft_manifests::patchlist::LIST_BYTES_MAX;
use updraft_protocol::io::{DocumentPart, DocumentStore};
use updraft_protocol::metainfo::TORRENT_BYTES_MAX;

/// The documents of one repository.
#[derive(Debug)]
pub(crate) struct RepositoryDocuments {
    pub(crate) dir: PathBuf,
}

impl DocumentStore for RepositoryDocuments {
    fn part(&self, path: &str, at: u32) -> Option<DocumentPart> {
        let max = bytes_max(path)?;
        DocumentPart::of_file(File::open(self.dir.join(path)).ok()?, at, max)
    }
}

/// The cap of the document that `path` names; `None` if it names none.
fn bytes_max(path: &str) -> Option<usize> {
    let is_hash = |text: &str| from_hex::<32>(text).is_some();
    if path == "head.toml" {
        return Some(Role::Head.document_bytes_max());
    }
    let (folder, name) = path.split_once('/')?;
    match folder {
        "root" => {
            let number = name.strip_suffix(".toml")?;
            let is_number = number.len() <= 10
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| Role::Root.document_bytes_max())
        }
        "manifests" => {
            is_hash(name.strip_suffix(".toml")?).then(|| Role::Release.document_bytes_max())
        }
        "patchlists" => is_hash(name.strip_suffix(".toml")?).then_some(LIST_BYTES_MAX),
        "torrents" => is_hash(name.strip_suffix(".torrent")?).then_some(TORRENT_BYTES_MAX),
        "deltas" => is_hash(name).then_some(TORRENT_BYTES_MAX),
        // Larger ones are for HTTP, by ranges.
        "indexes" => is_hash(name)
            .then(|| usize::try_from(leaf_index::WHOLE_BYTES_MAX).expect("it is small")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_only() {
        let hash = "0".repeat(64);
        for good in [
            "head.toml",
            "root/1.toml",
            &format!("manifests/{hash}.toml"),
            &format!("torrents/{hash}.torrent"),
            &format!("indexes/{hash}"),
            &format!("deltas/{hash}"),
        ] {
            assert!(bytes_max(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "root/../../keys/head.key",
            "root/.toml",
            "objects/x",
            "manifests/../x.toml",
            "../updraft.toml",
        ] {
            assert!(bytes_max(bad).is_none(), "{bad}");
        }
    }
}
