//! The record of what an install holds: written after a commit, read before everything else.
//!
//! A sealed text: a TOML header, a separator line, then one line per file (`root length mtime flags
//! path target`, tabs between). Lines, because a hundred thousand files must be read in a moment.
//!
//! A release with rules makes it format 2: the flags tell the place, too, and after the target comes the root and
//! length of what a player's configuration was made from, if another version lies beside it.

use crate::hash::ContentHash;
use crate::names::{Name, Version};
use crate::path::RelPath;
use crate::places::{Bytes, Place};
use crate::rules::{Rules, beside};
use crate::sealed::{self, SealError};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The largest record in bytes: a million files with long names.
pub const INSTALLED_BYTES_MAX: usize = 256 << 20;

/// What an install folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Which release.
    pub release: InstalledRelease,
    /// The manifest of another release, some of whose files have replaced this one's already: the
    /// folder is neither until that update is through.
    pub toward: Option<ContentHash>,
    /// Every file and link that the release lists, in the torrent's order.
    pub files: Vec<InstalledFile>,
}

/// The release that an install folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledRelease {
    /// The product.
    pub product: Name,
    /// The platform of the manifest.
    pub platform: Name,
    /// The channel it follows.
    pub channel: Name,
    /// The version.
    pub version: Version,
    /// The manifest's sequence.
    pub sequence: u64,
    /// SHA-256 of the manifest's payload.
    pub manifest: ContentHash,
    /// The torrent's full v2 info-hash.
    pub torrent: ContentHash,
    /// Folders without files that the release lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_folders: Vec<RelPath>,
    /// The release's rules.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

/// One file or link, and what the disk said about it when it was last known to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledFile {
    /// Its path in the release.
    pub path: RelPath,
    /// Where it lies.
    pub place: Place,
    /// Bytes; 0 for a link.
    pub length: u64,
    /// BEP 52 `pieces root`; `None` for empty files and links.
    pub root: Option<ContentHash>,
    /// Modification time in nanoseconds since 1970, as the file system gave it right after the commit.
    /// 0 if unknown.
    pub mtime_ns: i64,
    /// Marked executable.
    pub executable: bool,
    /// A link's target, from the install folder.
    pub symlink: Option<RelPath>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "updraft-installed")]
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    toward: Option<ContentHash>,
    #[serde(flatten)]
    release: InstalledRelease,
}

const SEPARATOR: &str = "+++\n";
/// The newest format that is read.
const FORMAT_MAX: u32 = 2;

impl Installed {
    /// The sealed text.
    pub fn to_text(&self) -> String {
        let is_special = |file: &InstalledFile| file.place != Place::Own;
        let special = !self.release.rules.is_empty() || self.files.iter().any(is_special);
        let format = if special { FORMAT_MAX } else { 1 };
        let header = Header { format, toward: self.toward, release: self.release.clone() };
        let mut text = toml::to_string(&header).expect("plain fields serialise");
        text.push_str(SEPARATOR);
        for file in &self.files {
            let root = file.root.map_or_else(|| "-".to_owned(), |root| root.to_string());
            let flag = if file.executable { 'x' } else { '-' };
            let target = file.symlink.as_ref().map_or("", RelPath::as_str);
            let InstalledFile { path, length, mtime_ns, .. } = file;
            let place = place_text(file.place);
            writeln!(
                text,
                "{root}\t{length}\t{mtime_ns}\t{flag}{}\t{path}\t{target}{}",
                place.0, place.1
            )
            .expect("writing to a String cannot fail");
        }
        sealed::seal(text)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`SealError`]: damaged, from a newer version, or not a record.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > INSTALLED_BYTES_MAX {
            return Err(SealError::Content("it is too large".to_owned()));
        }
        let text = sealed::open(bytes)?;
        let wrong = |what: &str| SealError::Content(what.to_owned());
        let (header, lines) = text.split_once(SEPARATOR).ok_or_else(|| wrong("no file list"))?;
        let header: Header =
            toml::from_str(header).map_err(|e| SealError::Content(e.message().to_owned()))?;
        if !(1..=FORMAT_MAX).contains(&header.format) {
            return Err(SealError::Newer);
        }
        let files = lines
            .lines()
            .map(|line| parse_line(line).ok_or_else(|| wrong(&crate::names::shown(line))))
            .collect::<Result<_, _>>()?;
        Ok(Self { release: header.release, toward: header.toward, files })
    }
}

fn parse_line(line: &str) -> Option<InstalledFile> {
    let mut fields = line.split('\t');
    let root = match fields.next()? {
        "-" => None,
        text => Some(ContentHash::from_hex(text)?),
    };
    let length = fields.next()?.parse().ok()?;
    let mtime_ns = fields.next()?.parse().ok()?;
    let (executable, place) = match fields.next()?.split_at_checked(1)? {
        ("x", place) => (true, place),
        ("-", place) => (false, place),
        _ => return None,
    };
    let path = RelPath::parse(fields.next()?).ok()?;
    let symlink = match fields.next()? {
        "" => None,
        target => Some(RelPath::parse(target).ok()?),
    };
    let place = match place {
        "" => Place::Own,
        "p" => Place::Players,
        "a" => Place::Absent,
        "b" => {
            beside(&path)?;
            Place::Beside { base: base(fields.next()?, fields.next()?)? }
        }
        _ => return None,
    };
    fields.next().is_none().then_some(InstalledFile {
        path,
        place,
        length,
        root,
        mtime_ns,
        executable,
        symlink,
    })
}

/// What the flags and the end of a line say of a place.
fn place_text(place: Place) -> (&'static str, String) {
    match place {
        Place::Own => ("", String::new()),
        Place::Players => ("p", String::new()),
        Place::Absent => ("a", String::new()),
        Place::Beside { base: None } => ("b", "\t?\t0".to_owned()),
        Place::Beside { base: Some(Bytes { length, root }) } => {
            let root = root.map_or_else(|| "-".to_owned(), |root| root.to_string());
            ("b", format!("\t{root}\t{length}"))
        }
    }
}

fn base(root: &str, length: &str) -> Option<Option<Bytes>> {
    let length = length.parse().ok()?;
    Some(match root {
        "?" => None,
        "-" => Some(Bytes { length, root: None }),
        text => Some(Bytes { length, root: Some(ContentHash::from_hex(text)?) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn installed() -> Installed {
        let name = |text| Name::parse(text).unwrap();
        let path = |text| RelPath::parse(text).unwrap();
        Installed {
            release: InstalledRelease {
                product: name("game"),
                platform: name("any"),
                channel: name("stable"),
                version: Version::parse("1.0").unwrap(),
                sequence: 3,
                manifest: ContentHash::of(b"m"),
                torrent: ContentHash::of(b"t"),
                empty_folders: vec![path("saves")],
                rules: Rules::default(),
            },
            toward: None,
            files: vec![
                InstalledFile {
                    path: path("bin/a b"),
                    place: Place::Own,
                    length: 5,
                    root: Some(ContentHash::of(b"a")),
                    mtime_ns: -1,
                    executable: true,
                    symlink: None,
                },
                InstalledFile {
                    path: path("link"),
                    place: Place::Own,
                    length: 0,
                    root: None,
                    mtime_ns: 0,
                    executable: false,
                    symlink: Some(path("bin/a b")),
                },
            ],
        }
    }

    #[test]
    fn round_trip() {
        let text = installed().to_text();
        assert_eq!(Installed::parse(text.as_bytes()).unwrap(), installed());
    }

    #[test]
    fn places_and_rules() {
        let mut installed = installed();
        let plain = installed.to_text();
        assert!(plain.contains("updraft-installed = 1") && !plain.contains("rules"), "{plain}");
        let base = |root| Some(Bytes { length: 7, root });
        for place in [
            Place::Absent,
            Place::Players,
            Place::Beside { base: None },
            Place::Beside { base: base(None) },
            Place::Beside { base: base(Some(ContentHash::of(b"b"))) },
        ] {
            installed.files[0].place = place;
            let text = installed.to_text();
            assert!(text.contains("updraft-installed = 2"), "{text}");
            assert_eq!(Installed::parse(text.as_bytes()).unwrap(), installed, "{text}");
        }
        installed.release.rules = toml::from_str("[components.fr]\nfiles = [\"fr/**\"]").unwrap();
        installed.toward = Some(ContentHash::of(b"next"));
        let text = installed.to_text();
        assert_eq!(Installed::parse(text.as_bytes()).unwrap(), installed, "{text}");
    }

    #[test]
    fn newer_and_foreign_files() {
        let newer = sealed::open(installed().to_text().as_bytes())
            .unwrap()
            .replace("updraft-installed = 1", "updraft-installed = 3");
        assert_eq!(Installed::parse(sealed::seal(newer).as_bytes()), Err(SealError::Newer));
        assert!(Installed::parse(b"").is_err());
        assert!(Installed::parse(sealed::seal("+++\n".into()).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn damage_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = installed().to_text().into_bytes();
            let at = at.index(bytes.len());
            prop_assert!(Installed::parse(&bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Installed::parse(&bytes), Err(SealError::Damaged));
        }

        #[test]
        fn any_sealed_text(lines in "[-a-f0-9\tx/\n.]{0,200}") {
            let header = installed().to_text();
            let header = header.split_once("+++\n").unwrap().0;
            let _ = Installed::parse(sealed::seal(format!("{header}+++\n{lines}")).as_bytes());
        }
    }
}
