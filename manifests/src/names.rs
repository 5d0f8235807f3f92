//! Short identifiers that end up in file names, URLs and terminals.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest [`Name`] in bytes: it is one part of file names and state keys.
pub const NAME_LEN_MAX: usize = 64;

/// The longest [`Version`] in bytes.
pub const VERSION_LEN_MAX: usize = 64;

/// A product, platform or channel: lower-case letters, digits, `.`, `_`, `-`; starts with a letter
/// or digit. Safe in paths, URLs and TOML keys on every platform.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A version as people write it: printable, without spaces at the ends. Compared by nobody: order is
/// the sequence number's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// A text that is no [`Name`] or [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a name.
    #[error(
        "`{0}` is not a valid name: use 1 to 64 of a-z, 0-9, `.`, `_`, `-`, starting with a letter or digit"
    )]
    Name(String),
    /// Not a version.
    #[error("`{0}` is not a valid version: use 1 to 64 printable characters without outer spaces")]
    Version(String),
}

impl Name {
    /// Checks and takes `text`.
    ///
    /// # Errors
    /// [`NameError::Name`] with a shortened copy of what was given.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let starts = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if starts && text.len() <= NAME_LEN_MAX && text.bytes().all(ok) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Name(shown(text)))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The platform of builds that run everywhere, and the default of `publish`.
    pub fn any_platform() -> Self {
        Self("any".to_owned())
    }
}

impl Version {
    /// Checks and takes `text`.
    ///
    /// # Errors
    /// [`NameError::Version`] with a shortened copy of what was given.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let good = !text.is_empty()
            && text.len() <= VERSION_LEN_MAX
            && text.trim() == text
            && !text.chars().any(char::is_control);
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Version(shown(text))) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A quotable form of hostile text: short, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}
text_type!(Name);
text_type!(Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["game", "0ad", "windows-x86_64", "a.b"] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Game", "-a", ".", "..", "a/b", "a b", "é", &"a".repeat(65)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Version::parse("1.0 (β)").is_ok());
        for bad in ["", " 1", "1\n", &"1".repeat(65)] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }
}
