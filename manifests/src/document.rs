//! One signed document is one file: a TOML header with signatures, a separator line, the payload.
//!
//! ```text
//! updraft-document = 1
//! role = "head"
//!
//! [[signatures]]
//! key = "<public key>"
//! signature = "<128 hexadecimal digits>"
//! +++
//! <payload, byte for byte what is signed, hashed and measured>
//! ```
//! [`Signed::parse`] splits, [`Signed::verify`] counts distinct trusted keys over the payload as it
//! was served, and only then is the payload read. Nothing is ever serialised again to be verified.
//! The header is not signed and not trusted: it only says where signatures are to be found.

use crate::hash::{ContentHash, from_hex, hex};
use crate::keys::{PublicKey, Role, SecretKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most signatures in a header: more than any sensible threshold, and a bound on verifying.
pub const SIGNATURES_MAX: usize = 32;

/// The longest header in bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// The format of payloads, but for those that need a newer one ([`Payload::FORMAT_MAX`]).
pub const FORMAT: u32 = 1;

const SEPARATOR: &str = "+++\n";

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Over the role's size cap.
    #[error("the {role} document has {len} bytes; at most {max} are accepted")]
    TooLarge {
        /// The role.
        role: Role,
        /// Its length in bytes.
        len: usize,
        /// The cap in bytes.
        max: usize,
    },
    /// Not of the form above.
    #[error("this is not a signed {role} document ({why}): is the address right?")]
    Malformed {
        /// The role that was expected.
        role: Role,
        /// What is wrong.
        why: String,
    },
    /// Too few good signatures of trusted keys.
    #[error(
        "the {role} document has {good} valid signatures of trusted keys; {threshold} are needed"
    )]
    Signatures {
        /// The role.
        role: Role,
        /// Distinct trusted keys with a valid signature.
        good: usize,
        /// The number needed.
        threshold: u32,
    },
    /// Signed, but not understood.
    #[error("the signed {role} document cannot be used: {why}")]
    Payload {
        /// The role.
        role: Role,
        /// What is wrong.
        why: String,
    },
    /// Signed by a newer publisher.
    #[error(
        "the {role} document has format {format}, newer than this program understands: update it"
    )]
    Newer {
        /// The role.
        role: Role,
        /// The format number found.
        format: u32,
    },
}

/// What is signed by a role: parsed from and formatted to the payload bytes of a document.
pub trait Payload: Sized + Serialize + for<'de> Deserialize<'de> {
    /// The newest format that this code reads. Fields that a reader does not know are passed over, so whatever must
    /// not be needs a newer format.
    const FORMAT_MAX: u32 = FORMAT;

    /// Checks everything that the types do not.
    ///
    /// # Errors
    /// What is wrong, for people.
    fn check(&self) -> Result<(), String>;
}

/// The keys that count for a role, and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// How many distinct keys must sign: at least 1, at most the number of keys.
    pub threshold: u32,
    /// The keys.
    pub keys: BTreeSet<PublicKey>,
}

/// A document with signatures that nobody has checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    role: Role,
    signatures: BTreeMap<PublicKey, [u8; 64]>,
    payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "updraft-document")]
    format: u32,
    role: Role,
    #[serde(default)]
    signatures: Vec<HeaderSignature>,
}

#[derive(Serialize, Deserialize)]
struct HeaderSignature {
    key: String,
    signature: String,
}

impl Signed {
    /// Splits `bytes` as they were served. Signatures that are not well-formed are left out: they
    /// count for nothing, and an unsigned header must not be able to spoil a good document.
    ///
    /// # Errors
    /// [`DocumentError::TooLarge`], [`DocumentError::Malformed`].
    pub fn parse(role: Role, bytes: &[u8]) -> Result<Self, DocumentError> {
        let (len, max) = (bytes.len(), role.document_bytes_max());
        if len > max {
            return Err(DocumentError::TooLarge { role, len, max });
        }
        let malformed = |why: &str| DocumentError::Malformed { role, why: why.to_owned() };
        let (header, payload) =
            split(bytes).ok_or_else(|| malformed("it has no header and separator line"))?;
        let header = std::str::from_utf8(header).map_err(|_| malformed("its header is no text"))?;
        let header: Header =
            toml::from_str(header).map_err(|_| malformed("its header cannot be read"))?;
        if header.format != 1 {
            return Err(DocumentError::Newer { role, format: header.format });
        }
        if header.role != role {
            return Err(malformed(&format!("it is a {} document", header.role)));
        }
        if header.signatures.len() > SIGNATURES_MAX {
            return Err(malformed("it has too many signatures"));
        }
        let signatures = header
            .signatures
            .iter()
            .filter_map(|s| Some((PublicKey::parse(&s.key).ok()?, from_hex(&s.signature)?)))
            .collect();
        Ok(Self { role, signatures, payload: payload.to_vec() })
    }

    /// The role that the header of `bytes` names; `None` if this is no document.
    pub fn role_of(bytes: &[u8]) -> Option<Role> {
        #[derive(Deserialize)]
        struct Named {
            role: Role,
        }
        let header = std::str::from_utf8(split(bytes)?.0).ok()?;
        toml::from_str(header).ok().map(|Named { role }| role)
    }

    /// A document of `payload`, signed by `keys` (all of one role).
    ///
    /// # Errors
    /// [`DocumentError::Payload`] if the payload does not pass its own checks, and
    /// [`DocumentError::TooLarge`]: what is written here can be read by [`Signed::parse`].
    pub fn create<T: Payload>(
        role: Role,
        payload: &T,
        keys: &[&SecretKey],
    ) -> Result<Self, DocumentError> {
        let refused = |why: String| DocumentError::Payload { role, why };
        payload.check().map_err(refused)?;
        let text = toml::to_string(payload).map_err(|error| refused(error.to_string()))?;
        let mut signed = Self { role, signatures: BTreeMap::new(), payload: text.into_bytes() };
        for key in keys {
            signed.sign(key);
        }
        let (len, max) = (signed.to_bytes().len(), role.document_bytes_max());
        if len > max {
            return Err(DocumentError::TooLarge { role, len, max });
        }
        Ok(signed)
    }

    /// Adds the signature of `key`, which must be of this document's role.
    pub fn sign(&mut self, key: &SecretKey) {
        assert_eq!(key.role(), self.role, "a key signs documents of its own role only");
        self.signatures.insert(key.public(), key.sign(&self.payload));
    }

    /// What a key of this role signs, for those who sign elsewhere.
    pub fn message(&self) -> Vec<u8> {
        crate::keys::message(self.role, &self.payload)
    }

    /// Adds a signature that was made elsewhere. False, and nothing added, if it is not that of `key` over
    /// [`Signed::message`].
    pub fn add(&mut self, key: &PublicKey, signature: &[u8; 64]) -> bool {
        let is_good = key.verifies(self.role, &self.payload, signature);
        if is_good {
            self.signatures.insert(*key, *signature);
        }
        is_good
    }

    /// Drops the signatures of keys that count for nobody any more: a header has only so many.
    pub fn keep(&mut self, counts: impl Fn(&PublicKey) -> bool) {
        self.signatures.retain(|key, _| counts(key));
    }

    /// Takes over the good signatures of another copy of the same payload. False if it is another payload.
    pub fn merge(&mut self, other: &Self) -> bool {
        if other.role != self.role || other.payload != self.payload {
            return false;
        }
        for (key, signature) in &other.signatures {
            self.add(key, signature);
        }
        true
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            format: 1,
            role: self.role,
            signatures: self
                .signatures
                .iter()
                .map(|(key, signature)| HeaderSignature {
                    key: key.to_string(),
                    signature: hex(signature),
                })
                .collect(),
        };
        let mut bytes = toml::to_string(&header).expect("plain fields serialise").into_bytes();
        bytes.extend_from_slice(SEPARATOR.as_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// What is signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// SHA-256 of the payload: the document's name.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.payload)
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The payload, whoever signed it: for those who made it, or are about to sign it. Never to be acted on.
    ///
    /// # Errors
    /// [`DocumentError::Newer`], [`DocumentError::Payload`].
    pub fn unverified<T: Payload>(&self) -> Result<T, DocumentError> {
        read_payload(self.role, &self.payload)
    }

    /// The keys that claim to have signed.
    pub fn signers(&self) -> impl Iterator<Item = &PublicKey> {
        self.signatures.keys()
    }

    /// Checks the signatures against `keys`, then reads the payload.
    ///
    /// # Errors
    /// [`DocumentError::Signatures`], [`DocumentError::Newer`], [`DocumentError::Payload`].
    pub fn verify<T: Payload>(self, keys: &KeySet) -> Result<Verified<T>, DocumentError> {
        self.check_signatures(keys)?;
        let value = read_payload(self.role, &self.payload)?;
        Ok(Verified { value, hash: self.hash(), document: self })
    }

    /// How many of `keys` have signed this payload.
    pub fn signed_by(&self, keys: &KeySet) -> usize {
        self.signatures
            .iter()
            .filter(|(key, signature)| {
                keys.keys.contains(key) && key.verifies(self.role, &self.payload, signature)
            })
            .count()
    }

    /// Checks the signatures alone: `keys.threshold` distinct keys of `keys` signed this payload.
    pub(crate) fn check_signatures(&self, keys: &KeySet) -> Result<(), DocumentError> {
        let good = self.signed_by(keys);
        if keys.threshold == 0 || good < keys.threshold as usize {
            let (role, threshold) = (self.role, keys.threshold);
            return Err(DocumentError::Signatures { role, good, threshold });
        }
        Ok(())
    }
}

/// Reads a payload whose signatures are being, or have been, checked.
pub(crate) fn read_payload<T: Payload>(role: Role, payload: &[u8]) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let refused = |why: String| DocumentError::Payload { role, why };
    let text = std::str::from_utf8(payload).map_err(|_| refused("it is not UTF-8".to_owned()))?;
    let Format { format } = toml::from_str(text).map_err(|error| refused(first_line(&error)))?;
    if !(FORMAT..=T::FORMAT_MAX).contains(&format) {
        return Err(DocumentError::Newer { role, format });
    }
    let value: T = toml::from_str(text).map_err(|error| refused(first_line(&error)))?;
    value.check().map_err(refused)?;
    Ok(value)
}

fn first_line(error: &toml::de::Error) -> String {
    crate::names::shown(error.message())
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let separator = SEPARATOR.as_bytes();
    let searched = &bytes[..bytes.len().min(HEADER_BYTES_MAX + separator.len())];
    let at = searched
        .windows(separator.len())
        .enumerate()
        .find(|(at, window)| *window == separator && (*at == 0 || bytes[at - 1] == b'\n'))
        .map(|(at, _)| at)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

/// A value whose signatures were checked. There is no way to make one without checking.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    hash: ContentHash,
    document: Signed,
}

impl<T> Verified<T> {
    /// SHA-256 of the payload.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The whole document, to be stored and passed on.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.document.to_bytes()
    }

    /// Payload bytes.
    pub fn payload(&self) -> &[u8] {
        self.document.payload()
    }

    /// The value itself.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests;
