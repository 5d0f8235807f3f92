//! The manifest of a launcher: one immutable signed document per version and platform.
//!
//! The launcher is delivered by the same tree as the product, but signed by a role of its own. Its
//! programs come as one zip archive; the manifest names the archive and every file that comes out of
//! it, so that neither the archive format nor what unpacks it has to be believed.

use crate::document::Payload;
use crate::hash::ContentHash;
use crate::names::{Name, Version};
use crate::path::RelPath;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The largest archive in bytes.
pub const ARCHIVE_BYTES_MAX: u64 = 512 << 20;
/// The most bytes of all unpacked files.
pub const UNPACKED_BYTES_MAX: u64 = 2 << 30;
/// The most files of one launcher.
pub const FILES_MAX: usize = 1024;

/// Payload of a `manifests/<sha256>.toml` that is signed by the role launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherManifest {
    /// [`crate::document::FORMAT`].
    pub format: u32,
    /// The product whose launcher it is.
    pub product: Name,
    /// The platform it runs on.
    pub platform: Name,
    /// `major.minor.patch`; rises with every sequence.
    pub version: Version,
    /// Rises with every launcher of this product and platform.
    pub sequence: u64,
    /// When it was published.
    pub created: Time,
    /// What to fetch.
    pub archive: Archive,
    /// The program to start.
    pub program: RelPath,
    /// All that is in the archive.
    pub files: Vec<LauncherFile>,
}

/// A zip archive; it lies at `launchers/<sha256>.zip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// SHA-256 of its bytes.
    pub sha256: ContentHash,
    /// How many they are.
    pub length: u64,
}

/// One file of a launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherFile {
    /// Where it lies in the launcher's folder.
    pub path: RelPath,
    /// Its bytes.
    pub length: u64,
    /// Their SHA-256.
    pub sha256: ContentHash,
    /// Whether it is a program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Archive {
    /// Where it lies in the repository.
    pub fn path(&self) -> String {
        format!("launchers/{}.zip", self.sha256)
    }
}

impl Payload for LauncherManifest {
    fn check(&self) -> Result<(), String> {
        if three_numbers(self.version.as_str()).is_none() {
            return Err(format!("its version `{}` is not major.minor.patch", self.version));
        }
        if self.sequence == 0 {
            return Err("launchers count from 1".to_owned());
        }
        if self.archive.length == 0 || self.archive.length > ARCHIVE_BYTES_MAX {
            return Err(format!("its archive is empty or larger than {ARCHIVE_BYTES_MAX} bytes"));
        }
        if self.files.len() > FILES_MAX {
            return Err(format!("it lists more than {FILES_MAX} files"));
        }
        let sum = self.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.length));
        if sum.is_none_or(|sum| sum > UNPACKED_BYTES_MAX) {
            return Err(format!("its files are larger than {UNPACKED_BYTES_MAX} bytes"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twin) = self.files.iter().find(|file| !seen.insert(&file.path)) {
            return Err(format!("it lists `{}` twice", twin.path));
        }
        if !self.files.iter().any(|file| file.path == self.program) {
            return Err(format!("its program `{}` is not among its files", self.program));
        }
        Ok(())
    }
}

/// The numbers of a `major.minor.patch`.
pub fn three_numbers(version: &str) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = version
        .split('.')
        .map(|part| {
            let plain =
                part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            plain.then(|| part.parse().ok()).flatten()
        })
        .collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn text_round_trip() {
        let manifest = World::new().launcher();
        manifest.check().unwrap();
        let text = toml::to_string(&manifest).unwrap();
        assert_eq!(toml::from_str::<LauncherManifest>(&text).unwrap(), manifest, "{text}");
        // A path that leaves the folder is no path.
        let escaping = text.replace("data/strings", "../strings");
        assert!(toml::from_str::<LauncherManifest>(&escaping).is_err());
    }

    #[test]
    fn bounds() {
        let check = |change: fn(&mut LauncherManifest)| {
            let mut manifest = World::new().launcher();
            change(&mut manifest);
            assert!(manifest.check().is_err(), "{manifest:?}");
        };
        check(|m| m.version = Version::parse("1.0").unwrap());
        check(|m| m.version = Version::parse("1.0.0-rc1").unwrap());
        check(|m| m.version = Version::parse("01.0.0").unwrap());
        check(|m| m.sequence = 0);
        check(|m| m.archive.length = 0);
        check(|m| m.archive.length = ARCHIVE_BYTES_MAX + 1);
        check(|m| m.files[1].length = u64::MAX);
        check(|m| m.files.push(m.files[0].clone()));
        check(|m| m.program = RelPath::parse("elsewhere").unwrap());
    }
}
