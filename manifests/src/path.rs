//! Paths below an install folder that mean the same file on every platform.
//!
//! What Windows, macOS or Linux would refuse, rewrite or redirect is refused everywhere: a release
//! made on one platform must not break, or escape, on another.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use unicode_normalization::UnicodeNormalization;

/// The longest component in UTF-8 bytes (ext4, APFS and NTFS all hold 255 units).
pub const COMPONENT_LEN_MAX: usize = 255;
/// The longest path in UTF-8 bytes; leaves room for the install folder under Linux' 4096.
pub const PATH_LEN_MAX: usize = 2048;
/// The deepest path.
pub const DEPTH_MAX: usize = 64;

/// The launcher's own folder at the top of an install, which is no place for files of a release.
pub const LAUNCHER_FOLDER: &str = ".updraft";
/// How the short names begin that Windows may give that folder: `UPDRAF~1`.
const LAUNCHER_FOLDER_SHORT: &str = "UPDRAF~";

/// True if `name`, at the top of an install, may be the launcher's own folder on some platform.
pub fn is_launcher_folder(name: &str) -> bool {
    let start = name.get(..LAUNCHER_FOLDER_SHORT.len()).unwrap_or_default();
    name.eq_ignore_ascii_case(LAUNCHER_FOLDER) || start.eq_ignore_ascii_case(LAUNCHER_FOLDER_SHORT)
}

/// A path below some folder: `/`-separated components that cannot leave it on any platform.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// Why a path was refused, with the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path `{path}` {reason}")]
pub struct PathError {
    /// The path, shortened and escaped for display.
    pub path: String,
    /// What is wrong with it.
    pub reason: PathFault,
}

/// What can be wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing between two separators, or nothing at all.
    #[error("is empty or has an empty component")]
    Empty,
    /// `.` or `..`.
    #[error("has a component `.` or `..`")]
    Dots,
    /// A character that some platform forbids or gives a meaning.
    #[error(
        "has a character that Windows forbids (one of \\ : * ? \" < > |) or a control character"
    )]
    Character,
    /// Windows drops these silently, so that two names become one.
    #[error("has a component that ends with a dot or a space, which Windows drops")]
    Trailing,
    /// `CON`, `NUL`, `COM1`…
    #[error("has a name that Windows reserves for a device")]
    Reserved,
    /// Over [`COMPONENT_LEN_MAX`].
    #[error("has a component of more than 255 bytes")]
    ComponentLong,
    /// Over [`PATH_LEN_MAX`] or [`DEPTH_MAX`].
    #[error("is longer than 2048 bytes or deeper than 64 folders")]
    Long,
    /// The file name is no Unicode text.
    #[error("is not valid Unicode")]
    NotUnicode,
}

impl RelPath {
    /// Checks `text`, components separated by `/`.
    ///
    /// # Errors
    /// [`PathError`] naming the path and the first fault.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(PathError { path: crate::names::shown(text), reason }),
        }
    }

    /// Checks and joins `components`; a component that holds a `/` is refused.
    ///
    /// # Errors
    /// As [`RelPath::parse`].
    pub fn from_components<S: AsRef<str>>(components: &[S]) -> Result<Self, PathError> {
        let parts: Vec<&str> = components.iter().map(AsRef::as_ref).collect();
        let joined = parts.join("/");
        if parts.iter().any(|part| part.contains('/')) {
            let path = crate::names::shown(&joined);
            return Err(PathError { path, reason: PathFault::Character });
        }
        Self::parse(&joined)
    }

    /// The path with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().expect("split yields at least one part")
    }

    /// The folder that holds it; `None` directly below the install folder.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Every folder above it, outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The place below `base`, with the platform's separators.
    pub fn under(&self, base: &Path) -> PathBuf {
        let mut path = base.to_path_buf();
        path.extend(self.components());
        path
    }

    /// Equal for paths that some file system takes for the same: case folded, Unicode composed.
    pub fn key(&self) -> PathKey {
        PathKey(folded(&self.0))
    }
}

/// What two paths share when a case-insensitive or normalising file system cannot tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey(String);

/// The one spelling of all that such a file system takes for the same.
pub(crate) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Lower, upper, lower: reaches one spelling for ß/SS, ς/σ, ſ/s and their like, which is what
    // the case tables of NTFS and APFS come to, or stricter.
    let folded: String = text.nfd().collect::<String>().to_lowercase().to_uppercase();
    folded.to_lowercase().nfc().collect()
}

fn fault(text: &str) -> Option<PathFault> {
    if text.len() > PATH_LEN_MAX || text.split('/').count() > DEPTH_MAX {
        return Some(PathFault::Long);
    }
    text.split('/').find_map(component_fault)
}

fn component_fault(part: &str) -> Option<PathFault> {
    if part.is_empty() {
        Some(PathFault::Empty)
    } else if part == "." || part == ".." {
        Some(PathFault::Dots)
    } else if part.len() > COMPONENT_LEN_MAX {
        Some(PathFault::ComponentLong)
    } else if part.chars().any(|c| c.is_control() || r#"\:*?"<>|"#.contains(c)) {
        Some(PathFault::Character)
    } else if part.ends_with(['.', ' ']) {
        Some(PathFault::Trailing)
    } else if is_reserved(part) {
        Some(PathFault::Reserved)
    } else {
        None
    }
}

/// Windows opens a device for these, whatever the extension or case.
fn is_reserved(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end_matches(' ').to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$") {
        return true;
    }
    stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")).is_some_and(|n| {
        matches!(n, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
    })
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for RelPath {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, PathError> {
        Self::parse(&text)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

/// Two names of one tree that cannot live beside each other on every platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// The same path twice.
    #[error("`{0}` is listed twice")]
    Same(RelPath),
    /// Differ only in letter case or Unicode form.
    #[error("`{0}` and `{1}` differ only in letter case or Unicode form: rename one")]
    Twins(String, String),
    /// One is a file (or a link), the other lies below it.
    #[error("`{0}` is a file and also a folder of `{1}`")]
    FileIsFolder(String, RelPath),
}

/// The names of one tree, each checked against all before it.
#[derive(Debug, Default)]
pub struct NameSet {
    seen: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    name: String,
    is_folder: bool,
}

impl NameSet {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file or a link.
    ///
    /// # Errors
    /// [`Clash`] with a name added before; the set may then hold some of the path's folders.
    pub fn file(&mut self, path: &RelPath) -> Result<(), Clash> {
        self.folders_of(path)?;
        self.add(path.as_str(), false, path)
    }

    /// Adds a folder; adding one again is fine.
    ///
    /// # Errors
    /// As [`NameSet::file`].
    pub fn folder(&mut self, path: &RelPath) -> Result<(), Clash> {
        self.folders_of(path)?;
        self.add(path.as_str(), true, path)
    }

    fn folders_of(&mut self, path: &RelPath) -> Result<(), Clash> {
        path.ancestors().try_for_each(|folder| self.add(folder, true, path))
    }

    fn add(&mut self, name: &str, is_folder: bool, whole: &RelPath) -> Result<(), Clash> {
        let key = folded(name);
        match self.seen.get(&key) {
            None => {
                self.seen.insert(key, Seen { name: name.to_owned(), is_folder });
                Ok(())
            }
            Some(seen) if seen.name != name => {
                Err(Clash::Twins(seen.name.clone(), name.to_owned()))
            }
            Some(seen) if seen.is_folder && is_folder => Ok(()),
            Some(seen) if !seen.is_folder && !is_folder => Err(Clash::Same(whole.clone())),
            Some(_) => Err(Clash::FileIsFolder(name.to_owned(), whole.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<PathFault>) {
        assert_eq!(RelPath::parse(text).err().map(|e| e.reason), expected, "{text:?}");
    }

    #[test]
    fn refusals() {
        for good in ["a", "a/b.c", "Ünï/çøde", ".hidden", "a b", "console", "com10", "nul1", "...a"]
        {
            check(good, None);
        }
        check("", Some(PathFault::Empty));
        check("/a", Some(PathFault::Empty));
        check("a//b", Some(PathFault::Empty));
        check("a/", Some(PathFault::Empty));
        check("a/../b", Some(PathFault::Dots));
        check(".", Some(PathFault::Dots));
        check("a\\b", Some(PathFault::Character));
        check("C:/x", Some(PathFault::Character));
        check("a\0", Some(PathFault::Character));
        check("a\u{85}b", Some(PathFault::Character));
        check("a./b", Some(PathFault::Trailing));
        check("... ", Some(PathFault::Trailing));
        for name in ["con", "NUL.txt", "Aux.tar.gz", "com1", "LPT9.x", "COM²", "nul .txt", "CONIN$"]
        {
            check(name, Some(PathFault::Reserved));
            check(&format!("a/{name}/b"), Some(PathFault::Reserved));
        }
        check(&"x".repeat(256), Some(PathFault::ComponentLong));
        check(&"x".repeat(255), None);
        check(&vec!["y"; 65].join("/"), Some(PathFault::Long));
        check(&vec!["y".repeat(200); 11].join("/"), Some(PathFault::Long));
    }

    #[test]
    fn the_launchers_own_folder_has_several_names() {
        for own in [".updraft", ".Updraft", "UPDRAF~1", "updraf~2"] {
            assert!(is_launcher_folder(own), "{own}");
        }
        for other in ["updraft", ".updraft2", "updraf", "ü", "updra~1"] {
            assert!(!is_launcher_folder(other), "{other}");
        }
    }

    #[test]
    fn components_may_not_smuggle_separators() {
        assert!(RelPath::from_components(&["a", "b/c"]).is_err());
        assert!(RelPath::from_components(&["a", ".."]).is_err());
        assert!(RelPath::from_components::<&str>(&[]).is_err());
        let path = RelPath::from_components(&["a", "b", "c"]).unwrap();
        assert_eq!(path.as_str(), "a/b/c");
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(path.under(Path::new("/g")), Path::new("/g").join("a").join("b").join("c"));
    }

    #[test]
    fn twins() {
        for (a, b) in [
            ("Readme", "README"),
            ("é", "e\u{301}"),
            ("straße", "STRASSE"),
            ("σ", "ς"),
            ("K", "\u{212a}"),
        ] {
            let (a, b) = (RelPath::parse(a).unwrap(), RelPath::parse(b).unwrap());
            assert_eq!(a.key(), b.key(), "{a} {b}");
            let mut set = NameSet::new();
            set.file(&a).unwrap();
            assert!(matches!(set.file(&b), Err(Clash::Twins(..))));
        }
        let path = |text| RelPath::parse(text).unwrap();
        let mut set = NameSet::new();
        set.file(&path("Data/a")).unwrap();
        assert!(matches!(set.file(&path("data/b")), Err(Clash::Twins(..))));
        assert!(matches!(set.file(&path("Data")), Err(Clash::FileIsFolder(..))));
        assert!(matches!(set.file(&path("Data/a/b")), Err(Clash::FileIsFolder(..))));
        assert!(matches!(set.file(&path("Data/a")), Err(Clash::Same(..))));
        set.folder(&path("Data")).unwrap();
        set.folder(&path("empty")).unwrap();
    }

    proptest! {
        #[test]
        fn never_leaves_the_folder(text in "[a./\\\\: \u{0}b~\u{e9}]{0,12}") {
            if let Ok(path) = RelPath::parse(&text) {
                let base = Path::new("/base");
                let full = path.under(base);
                prop_assert!(full.starts_with(base) && full != base);
                prop_assert!(full.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
                prop_assert_eq!(path.components().count(), full.components().count() - 2);
            }
        }
    }
}
