//! Keys and roles. Randomness is an argument: whoever makes a key brings 32 random bytes.
//!
//! A signature covers `"updraft signed document v1\0" role "\0" payload`, so what was signed in one
//! role says nothing in another, and no signature of another program means anything here.

use crate::hash::{ContentHash, from_hex, hex};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Lists the keys and thresholds of all roles. Kept offline.
    Root,
    /// Signs manifests.
    Release,
    /// Signs the releases of the launcher itself; its keys are never release keys.
    Launcher,
    /// Signs the head, often and online; can only choose among signed manifests.
    Head,
}

impl Role {
    /// The role's name in documents and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Release => "release",
            Self::Launcher => "launcher",
            Self::Head => "head",
        }
    }

    /// The most bytes a document of this role may have, signatures included. Check it before reading.
    pub fn document_bytes_max(self) -> usize {
        match self {
            Self::Root => 64 << 10,
            Self::Head => 256 << 10,
            Self::Release | Self::Launcher => 1 << 20,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a usable public key.
    #[error("`{0}` is not an Ed25519 public key (64 lower-case hexadecimal digits)")]
    Public(String),
    /// Not a secret key file.
    #[error("this is not an Updraft secret key file: {0}")]
    Secret(String),
    /// A key file of another role.
    #[error("this key file holds a {found} key where a {wanted} key is needed")]
    Role {
        /// The role asked for.
        wanted: Role,
        /// The role in the file.
        found: Role,
    },
}

/// An Ed25519 public key that is on the curve and not of small order. Its text form is hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads the text form.
    ///
    /// # Errors
    /// [`KeyError::Public`] for other text, points off the curve and weak keys.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        from_hex(text)
            .filter(|bytes| VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak()))
            .map(Self)
            .ok_or_else(|| KeyError::Public(crate::names::shown(text)))
    }

    /// SHA-256 of the key: a name for people to compare.
    pub fn fingerprint(&self) -> ContentHash {
        ContentHash::of(&self.0)
    }

    /// True if `signature` is this key's over `payload` in `role` (strict verification).
    pub(crate) fn verifies(&self, role: Role, payload: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(&message(role, payload), &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A secret key and the one role it signs for. Wiped from memory when dropped; not shown by `Debug`.
pub struct SecretKey {
    role: Role,
    key: SigningKey,
}

/// The longest secret key file in bytes.
pub const SECRET_KEY_BYTES_MAX: usize = 4096;

/// The line that marks a secret key file; `publish` refuses builds that hold one.
pub const SECRET_KEY_MARK: &str = "updraft-secret-key";

#[derive(Serialize, Deserialize)]
struct SecretText {
    #[serde(rename = "updraft-secret-key")]
    format: u32,
    role: Role,
    secret: String,
}

impl SecretKey {
    /// The key of these 32 random bytes.
    pub fn from_random(role: Role, random: [u8; 32]) -> Self {
        Self { role, key: SigningKey::from_bytes(&random) }
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError::Secret`]; the text is not quoted in it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let refused = |why: &str| KeyError::Secret(why.to_owned());
        if text.len() > SECRET_KEY_BYTES_MAX {
            return Err(refused("it is too long"));
        }
        // The parser's own message would quote the secret.
        let file: SecretText = toml::from_str(text).map_err(|_| refused("its fields are wrong"))?;
        if file.format != 1 {
            return Err(refused("it was made by a newer version"));
        }
        let bytes = from_hex(&file.secret).ok_or_else(|| refused("its `secret` is damaged"))?;
        Ok(Self::from_random(file.role, bytes))
    }

    /// As [`SecretKey::parse`], for one role only.
    ///
    /// # Errors
    /// As `parse`, and [`KeyError::Role`].
    pub fn parse_for(role: Role, text: &str) -> Result<Self, KeyError> {
        let key = Self::parse(text)?;
        if key.role == role {
            Ok(key)
        } else {
            Err(KeyError::Role { wanted: role, found: key.role })
        }
    }

    /// The key file's text. Whoever holds it can sign: write it for its owner's eyes only.
    pub fn to_text(&self) -> String {
        let file = SecretText { format: 1, role: self.role, secret: hex(self.key.as_bytes()) };
        let body = toml::to_string(&file).expect("plain fields serialise");
        format!("# Whoever holds this file can sign as `{}`. Keep it secret.\n{body}", self.role)
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    /// This key's signature over `payload` in its role.
    pub(crate) fn sign(&self, payload: &[u8]) -> [u8; 64] {
        self.key.sign(&message(self.role, payload)).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, {:?})", self.role, self.public())
    }
}

/// What is signed.
pub(crate) fn message(role: Role, payload: &[u8]) -> Vec<u8> {
    [b"updraft signed document v1\0", role.as_str().as_bytes(), b"\0", payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files() {
        let key = SecretKey::from_random(Role::Head, [7; 32]);
        let text = key.to_text();
        assert_eq!(SecretKey::parse(&text).unwrap().public(), key.public());
        assert!(text.contains(SECRET_KEY_MARK));
        assert!(!format!("{key:?}").contains(&"07".repeat(32)));
        assert_eq!(
            SecretKey::parse_for(Role::Root, &text).unwrap_err(),
            KeyError::Role { wanted: Role::Root, found: Role::Head }
        );
        for bad in ["", "role = \"head\"", &text.replace("07", "0"), &text.replace("= 1", "= 2")] {
            let error = SecretKey::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("0707"), "{error}");
        }
    }

    #[test]
    fn signatures_hold_in_their_role_only() {
        let key = SecretKey::from_random(Role::Head, [7; 32]);
        let signature = key.sign(b"payload");
        assert!(key.public().verifies(Role::Head, b"payload", &signature));
        assert!(!key.public().verifies(Role::Root, b"payload", &signature));
        assert!(!key.public().verifies(Role::Head, b"payloae", &signature));
    }

    #[test]
    fn weak_public_keys_are_refused() {
        // The neutral element verifies anything under lax rules.
        assert!(PublicKey::parse(&format!("01{}", "00".repeat(31))).is_err());
        assert!(PublicKey::parse(&"00".repeat(32)).is_err());
        assert!(PublicKey::parse("zz").is_err());
        let good = SecretKey::from_random(Role::Root, [1; 32]).public();
        assert_eq!(PublicKey::parse(&good.to_string()), Ok(good));
    }
}
