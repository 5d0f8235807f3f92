//! One release as the launcher handles it: what it is called, and its files.

use crate::apply::Target;
use std::sync::Arc;
use updraft_manifests::document::Verified;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::installed::InstalledRelease;
use updraft_manifests::manifest::{Manifest, SideFile, object_path};
use updraft_manifests::patchlist::PatchListRef;
use updraft_manifests::path::{RelPath, is_launcher_folder};
use updraft_manifests::plan::{Content, NewFile};
use updraft_protocol::metainfo::{Info, Metainfo};
use url::Url;

/// A release whose torrent fits what was signed.
#[derive(Debug, Clone)]
pub struct Release {
    /// What it is called.
    pub identity: InstalledRelease,
    /// The torrent.
    pub info: Arc<Info>,
    /// Its files and links, in the torrent's order.
    pub files: Vec<NewFile>,
    /// What finds its content in old files, if the manifest is at hand and names it.
    pub leaf_index: Option<SideFile>,
    /// The list of its packs, likewise.
    pub packs: Option<SideFile>,
    /// The patches that lead to it, if the head is at hand and names some.
    pub patches: Option<PatchListRef>,
}

/// What a manifest calls its release.
pub fn identity(manifest: &Verified<Manifest>) -> InstalledRelease {
    InstalledRelease {
        product: manifest.product.clone(),
        platform: manifest.platform.clone(),
        channel: manifest.channel.clone(),
        version: manifest.version.clone(),
        sequence: manifest.sequence,
        manifest: manifest.hash(),
        torrent: manifest.torrent.v2,
        empty_folders: manifest.empty_folders.clone(),
        rules: manifest.rules.clone(),
    }
}

/// What tests install: a release of this sequence and version, told from others by `hash`.
#[cfg(test)]
pub(crate) fn sample(sequence: u64, hash: ContentHash) -> InstalledRelease {
    use updraft_manifests::names::{Name, Version};
    InstalledRelease {
        product: Name::parse("p").unwrap(),
        platform: Name::any_platform(),
        channel: Name::parse("stable").unwrap(),
        version: Version::parse(&sequence.to_string()).unwrap(),
        sequence,
        manifest: hash,
        torrent: hash,
        empty_folders: vec![],
        rules: Default::default(),
    }
}

impl Release {
    /// Reads the torrent of a release: its info dictionary must have the signed SHA-256, and its
    /// names must be safe on every platform.
    ///
    /// # Errors
    /// In words: why these bytes are not that release, or why it cannot be installed.
    pub fn parse(identity: InstalledRelease, torrent: &[u8]) -> Result<Self, String> {
        let info = Metainfo::parse(torrent).map_err(|error| error.to_string())?.info;
        if info.hashes.v2.is_none_or(|hash| hash.0 != identity.torrent.0) {
            return Err(format!("the torrent served is not {}", identity.torrent));
        }
        if info.single_file {
            return Err("its torrent is a single file, not a folder".into());
        }
        let files = info.files.iter().map(new_file).collect::<Result<Vec<_>, _>>()?;
        for folder in &identity.empty_folders {
            not_ours(folder)?;
        }
        let (leaf_index, packs, patches) = (None, None, None);
        Ok(Self { identity, info: Arc::new(info), files, leaf_index, packs, patches })
    }

    /// Checks what the manifest says of the content besides its hash, its rules among it.
    ///
    /// # Errors
    /// In words: the first thing that does not fit.
    pub fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let info = &self.info;
        let v1 = info.hashes.v1.map(|hash| hash.0);
        let size: u64 = info.files.iter().map(|file| file.length).sum();
        for (what, fits) in [
            ("v1 info-hash", v1 == manifest.torrent.v1.map(|hash| hash.0)),
            ("piece length", info.geometry.piece_length() == manifest.torrent.piece_length),
            ("size", size == manifest.total_size),
            ("file count", info.files.len() as u64 == manifest.file_count),
        ] {
            if !fits {
                return Err(format!("its torrent and its manifest differ in the {what}"));
            }
        }
        manifest.rules.check(&self.files)
    }

    /// What the journal calls it.
    pub fn target(&self) -> Target {
        Target {
            manifest: self.identity.manifest.to_string(),
            torrent: self.identity.torrent.to_string(),
            version: self.identity.version.to_string(),
            sequence: self.identity.sequence,
        }
    }

    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.files.iter().map(|file| length(&file.content)).sum()
    }

    /// Where each file's content is in the repository at `base`, by file number.
    pub fn object_urls(&self, base: &Url) -> Vec<Option<Url>> {
        let url = |file: &NewFile| match file.content {
            Content::File { length, root: Some(root), .. } if length > 0 => {
                base.join(&object_path(&root, length)).ok()
            }
            Content::File { .. } | Content::Symlink { .. } => None,
        };
        self.files.iter().map(url).collect()
    }
}

/// Bytes of a file; 0 of a link.
pub fn length(content: &Content) -> u64 {
    match content {
        Content::File { length, .. } => *length,
        Content::Symlink { .. } => 0,
    }
}

/// The text of a link at `path` to `target`, both from the install folder.
pub fn link_text(path: &RelPath, target: &RelPath) -> String {
    let up = "../".repeat(path.ancestors().count());
    format!("{up}{target}")
}

fn new_file(entry: &updraft_protocol::metainfo::FileEntry) -> Result<NewFile, String> {
    let path = RelPath::from_components(&entry.path).map_err(|error| error.to_string())?;
    not_ours(&path)?;
    let content = match &entry.symlink {
        Some(target) => Content::Symlink {
            target: RelPath::from_components(target).map_err(|error| error.to_string())?,
        },
        None => Content::File {
            length: entry.length,
            root: entry.root.filter(|_| entry.length > 0).map(|root| ContentHash(root.0)),
            executable: entry.executable,
        },
    };
    Ok(NewFile { path, content })
}

/// The launcher's own folder is no place for release files.
fn not_ours(path: &RelPath) -> Result<(), String> {
    let first = path.components().next().unwrap_or_default();
    if is_launcher_folder(first) {
        return Err(format!("it lists `{path}`, which is the launcher's own folder"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_to_their_folder() {
        let path = |text| RelPath::parse(text).unwrap();
        assert_eq!(link_text(&path("a"), &path("b/c")), "b/c");
        assert_eq!(link_text(&path("x/y/a"), &path("x/b")), "../../x/b");
    }

    #[test]
    fn the_state_folder_is_refused() {
        let path = |text| RelPath::parse(text).unwrap();
        assert!(not_ours(&path(".updraft/state")).is_err());
        assert!(not_ours(&path(".Updraft")).is_err());
        assert!(not_ours(&path("updraf~1/state")).is_err());
        assert!(not_ours(&path("data/.updraft")).is_ok());
    }
}
