//! What a launcher tells others of itself: the release that it has, and what its player calls the machine. Hearsay,
//! to be shown by `lan` and on the page of a room's host; nothing is decided by it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use updraft_manifests::installed::Installed;
use updraft_manifests::names::Version;

/// Where others ask for it, among the documents.
pub const STATUS_PATH: &str = "status.toml";
/// Its most bytes.
const STATUS_BYTES_MAX: usize = 1024;
/// The longest name in characters.
const NAME_CHARS_MAX: usize = 32;

/// What is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the player calls this machine, if they want others to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<MachineName>,
    /// The version of the release that is installed and whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Its sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// A name for people: one line of 1 to 32 characters, none of them for control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

impl std::str::FromStr for MachineName {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=NAME_CHARS_MAX).contains(&text.chars().count());
        if fits && text.trim() == text && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a name has 1 to 32 characters, none of them for control")
        }
    }
}

impl TryFrom<String> for MachineName {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> Self {
        name.0
    }
}

impl Status {
    /// Of a machine of this name, and of its install; that counts as none while it is on its way from one release to
    /// another.
    pub fn of(name: Option<&MachineName>, installed: Option<&Installed>) -> Self {
        let installed = installed.filter(|installed| installed.toward.is_none());
        let release = installed.map(|installed| &installed.release);
        Self {
            name: name.cloned(),
            version: release.map(|release| release.version.clone()),
            sequence: release.map(|release| release.sequence),
        }
    }

    /// As others are told.
    pub fn to_bytes(&self) -> Bytes {
        toml::to_string(self).expect("plain fields serialise").into()
    }

    /// What another launcher said, if that is well-formed: then it is safe to print.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > STATUS_BYTES_MAX {
            return None;
        }
        toml::from_str(std::str::from_utf8(bytes).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_printed_only_if_it_is_harmless() {
        let status = Status {
            name: Some("Anna's <b>box</b>".parse().unwrap()),
            version: Some(Version::parse("1.0 beta").unwrap()),
            sequence: Some(7),
        };
        assert_eq!(Status::parse(&status.to_bytes()), Some(status));
        assert_eq!(Status::parse(b""), Some(Status::default()));
        let check = |text: &str| assert_eq!(Status::parse(text.as_bytes()), None, "{text:?}");
        check("version = \"\\u001b[2J\"\nsequence = 1");
        check("version = \"1\\n2\"\nsequence = 1");
        check("version = \"1\"\nsequence = -1");
        check("name = \"\\u001b[2J\"");
        check("name = \"\"");
        check(&format!("name = \"{}\"", "n".repeat(33)));
        check(&format!("version = \"{}\"\nsequence = 1", "1".repeat(65)));
        check(&format!("version = \"1\"\nsequence = 1\n#{}", "x".repeat(STATUS_BYTES_MAX)));
        assert_eq!(Status::parse(&[0xff, 0xfe]), None);
    }
}
