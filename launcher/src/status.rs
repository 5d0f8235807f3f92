//! What a launcher tells others of itself: the release that it has. Hearsay, for `lan` to show; nothing is
//! decided by it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use updraft_manifests::installed::Installed;
use updraft_manifests::names::Version;

/// Where others ask for it, among the documents.
pub const STATUS_PATH: &str = "status.toml";
/// Its most bytes.
const STATUS_BYTES_MAX: usize = 1024;

/// A release that is installed and whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: Version,
    /// Its sequence number.
    pub sequence: u64,
}

impl Status {
    /// Of an install; `None` while it is on its way from one release to another.
    pub fn of(installed: &Installed) -> Option<Self> {
        let release = &installed.release;
        let whole = installed.toward.is_none();
        whole.then(|| Self { version: release.version.clone(), sequence: release.sequence })
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
        let status = Status { version: Version::parse("1.0 beta").unwrap(), sequence: 7 };
        assert_eq!(Status::parse(&status.to_bytes()), Some(status));
        let check = |text: &str| assert_eq!(Status::parse(text.as_bytes()), None, "{text:?}");
        check("");
        check("version = \"1\"");
        check("version = \"\\u001b[2J\"\nsequence = 1");
        check("version = \"1\\n2\"\nsequence = 1");
        check("version = \"1\"\nsequence = -1");
        check(&format!("version = \"{}\"\nsequence = 1", "1".repeat(65)));
        check(&format!("version = \"1\"\nsequence = 1\n#{}", "x".repeat(STATUS_BYTES_MAX)));
        assert_eq!(Status::parse(&[0xff, 0xfe]), None);
    }
}
