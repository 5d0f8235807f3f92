//! The manifest: one immutable signed document per release.
//!
//! The torrent's info dictionary is the file list; the manifest binds it by its full SHA-256
//! info-hash and adds only what a torrent cannot say.

use crate::document::Payload;
use crate::hash::{ContentHash, V1Hash};
use crate::leaf_index::INDEX_BYTES_MAX;
use crate::names::{Name, Version};
use crate::packs;
use crate::path::RelPath;
use crate::rules::{COMPONENTS_MAX, Rules};
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// The most empty folders.
pub const FOLDERS_MAX: usize = 10_000;
/// The longest release notes in bytes.
pub const NOTES_LEN_MAX: usize = 64 << 10;
/// The most arguments of the launch command.
pub const ARGUMENTS_MAX: usize = 64;
/// The longest argument in bytes.
pub const ARGUMENT_LEN_MAX: usize = 1024;

/// The format of a manifest with rules: who does not know them must not install it.
pub const FORMAT_WITH_RULES: u32 = 2;

/// Payload of `manifests/<sha256>.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`crate::document::FORMAT`], or [`FORMAT_WITH_RULES`] if there are any.
    pub format: u32,
    /// The product.
    pub product: Name,
    /// The platform it runs on, or `any`.
    pub platform: Name,
    /// The channel it was made for; promotion makes a new manifest.
    pub channel: Name,
    /// The version, for people.
    pub version: Version,
    /// Rises with every release of this product, platform and channel.
    pub sequence: u64,
    /// When it was published.
    pub created: Time,
    /// Bytes of all files.
    pub total_size: u64,
    /// Number of files, links included.
    pub file_count: u64,
    /// The oldest launcher that can install it, as `major.minor.patch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_launcher: Option<Version>,
    /// What is new, for players. Plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Folders without files, which a torrent cannot list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_folders: Vec<RelPath>,
    /// The content.
    pub torrent: Torrent,
    /// The side file that finds content in whatever files a player has: see
    /// [`crate::leaf_index`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_index: Option<SideFile>,
    /// The list of its packs, for first installs over HTTP: see [`crate::packs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packs: Option<SideFile>,
    /// How to start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,
    /// What becomes of its files once they are installed, and which of them can be left out.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

/// Names the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torrent {
    /// SHA-256 of the info dictionary: the authority. The file is `torrents/<v2>.torrent`.
    pub v2: ContentHash,
    /// SHA-1 of the same bytes, if the torrent is hybrid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v1: Option<V1Hash>,
    /// Bytes per piece: a power of two, at least 16 KiB.
    pub piece_length: u32,
}

/// A file beside the manifest, fetched only when it is needed: `indexes/<sha256>`, `packlists/<sha256>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// SHA-256 of its bytes.
    pub sha256: ContentHash,
    /// How many they are.
    pub length: u64,
}

/// A program of the release and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program's file.
    pub program: RelPath,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

impl Payload for Manifest {
    const FORMAT_MAX: u32 = FORMAT_WITH_RULES;

    fn check(&self) -> Result<(), String> {
        if (self.format == FORMAT_WITH_RULES) == self.rules.is_empty() {
            return Err(format!("rules make it format {FORMAT_WITH_RULES}, and nothing else does"));
        }
        if self.rules.components.len() > COMPONENTS_MAX {
            return Err(format!("it has more than {COMPONENTS_MAX} components"));
        }
        let piece_length = self.torrent.piece_length;
        if !piece_length.is_power_of_two() || piece_length < 16 << 10 {
            return Err(format!("{piece_length} is not a piece length of BEP 52"));
        }
        if self.empty_folders.len() > FOLDERS_MAX {
            return Err(format!("it lists more than {FOLDERS_MAX} empty folders"));
        }
        if self.notes.as_ref().is_some_and(|notes| notes.len() > NOTES_LEN_MAX) {
            return Err(format!("its notes are longer than {NOTES_LEN_MAX} bytes"));
        }
        if self.leaf_index.is_some_and(|index| index.length > INDEX_BYTES_MAX) {
            return Err(format!("its leaf index is longer than {INDEX_BYTES_MAX} bytes"));
        }
        if self.packs.is_some_and(|list| list.length > packs::LIST_BYTES_MAX as u64) {
            return Err(format!(
                "its list of packs is longer than {} bytes",
                packs::LIST_BYTES_MAX
            ));
        }
        if let Some(launch) = &self.launch
            && (launch.arguments.len() > ARGUMENTS_MAX
                || launch.arguments.iter().any(|a| a.len() > ARGUMENT_LEN_MAX || a.contains('\0')))
        {
            return Err("its launch command has too many or too long arguments".to_owned());
        }
        Ok(())
    }
}

/// Where the manifest of that payload hash lies in the repository.
pub fn path(hash: &ContentHash) -> String {
    format!("manifests/{hash}.toml")
}

/// Where the torrent of that v2 info-hash lies in the repository.
pub fn torrent_path(v2: &ContentHash) -> String {
    format!("torrents/{v2}.torrent")
}

/// Where the side file of that SHA-256 lies in the repository.
pub fn index_path(sha256: &ContentHash) -> String {
    format!("indexes/{sha256}")
}

/// Where the content of one file (not empty, no link) lies in the repository.
pub fn object_path(root: &ContentHash, length: u64) -> String {
    format!("objects/{root}-{length}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn text_round_trip_and_unknown_fields() {
        let mut manifest = World::new().manifest();
        manifest.notes = Some("More of \"everything\"\nand '''less'''".into());
        manifest.empty_folders = vec![RelPath::parse("saves/empty").unwrap()];
        manifest.launch = Some(Launch {
            program: RelPath::parse("bin/game").unwrap(),
            arguments: vec!["-x".into()],
        });
        manifest.leaf_index = Some(SideFile { sha256: ContentHash([7; 32]), length: 80 });
        manifest.packs = Some(SideFile { sha256: ContentHash([8; 32]), length: 56 });
        let text = toml::to_string(&manifest).unwrap();
        assert_eq!(toml::from_str::<Manifest>(&text).unwrap(), manifest, "{text}");
        let newer = format!("future = 1\n{text}");
        assert_eq!(toml::from_str::<Manifest>(&newer).unwrap(), manifest);
        assert!(!text.contains("rules"), "without rules nobody can tell: {text}");
        manifest.rules =
            toml::from_str("config = [\"*.ini\"]\n[components.fr]\nfiles = [\"fr/**\"]").unwrap();
        let text = toml::to_string(&manifest).unwrap();
        assert_eq!(toml::from_str::<Manifest>(&text).unwrap(), manifest, "{text}");
    }

    #[test]
    fn bounds() {
        let good = World::new().manifest();
        good.check().unwrap();
        let check = |change: fn(&mut Manifest)| {
            let mut manifest = good.clone();
            change(&mut manifest);
            assert!(manifest.check().is_err(), "{manifest:?}");
        };
        check(|m| m.format = FORMAT_WITH_RULES);
        check(|m| m.rules = toml::from_str("config = [\"a\"]").unwrap());
        check(|m| m.torrent.piece_length = 16_385);
        check(|m| m.torrent.piece_length = 8192);
        check(|m| {
            let sha256 = ContentHash([7; 32]);
            m.leaf_index = Some(SideFile { sha256, length: INDEX_BYTES_MAX + 1 });
        });
        check(|m| {
            let (sha256, length) = (ContentHash([7; 32]), packs::LIST_BYTES_MAX as u64 + 1);
            m.packs = Some(SideFile { sha256, length });
        });
        check(|m| m.notes = Some("n".repeat(NOTES_LEN_MAX + 1)));
        check(|m| {
            let program = RelPath::parse("a").unwrap();
            m.launch = Some(Launch { program, arguments: vec!["\0".into()] });
        });
    }
}
