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

    /// Drops the signatures of keys that count for nobody any more: a header has only so many.
    pub fn keep(&mut self, counts: impl Fn(&PublicKey) -> bool) {
        self.signatures.retain(|key, _| counts(key));
    }

    /// Takes over the signatures of another copy of the same payload. False if it is another payload.
    pub fn merge(&mut self, other: &Self) -> bool {
        if other.role != self.role || other.payload != self.payload {
            return false;
        }
        for (key, signature) in &other.signatures {
            self.signatures.entry(*key).or_insert(*signature);
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
mod tests {
    use super::*;
    use crate::head::Head;
    use crate::testing::World;
    use proptest::prelude::*;

    fn keys(of: &[&SecretKey], threshold: u32) -> KeySet {
        KeySet { threshold, keys: of.iter().map(|key| key.public()).collect() }
    }

    #[test]
    fn thresholds_count_distinct_trusted_keys() {
        let [a, b, c] = [1, 2, 3].map(|seed| SecretKey::from_random(Role::Head, [seed; 32]));
        let head = World::new().head();
        let signed = Signed::create(Role::Head, &head, &[&a, &c]).unwrap();
        let verify = |set: KeySet| signed.clone().verify::<Head>(&set);
        assert!(verify(keys(&[&a], 1)).is_ok());
        assert!(verify(keys(&[&a, &b, &c], 2)).is_ok());
        assert!(matches!(
            verify(keys(&[&a, &b], 2)),
            Err(DocumentError::Signatures { good: 1, threshold: 2, .. })
        ));
        assert!(verify(keys(&[&b], 1)).is_err());
        assert!(verify(keys(&[&a], 0)).is_err(), "a threshold of nothing trusts nobody");

        let mut other = Signed::create(Role::Head, &head, &[&b]).unwrap();
        assert!(other.merge(&signed));
        assert!(other.verify::<Head>(&keys(&[&a, &b, &c], 3)).is_ok());

        // The same signature written twice in a header counts once.
        let text = String::from_utf8(signed.to_bytes()).unwrap();
        let (header, payload) = text.split_once("+++\n").unwrap();
        let block = header.split_once("[[signatures]]").unwrap().1.split("[[").next().unwrap();
        let twice = format!("{header}\n[[signatures]]{block}\n+++\n{payload}");
        let twice = Signed::parse(Role::Head, twice.as_bytes()).unwrap();
        assert!(twice.verify::<Head>(&keys(&[&a, &b], 2)).is_err());
    }

    #[test]
    fn the_payload_is_kept_as_served() {
        let key = SecretKey::from_random(Role::Head, [1; 32]);
        let signed = Signed::create(Role::Head, &World::new().head(), &[&key]).unwrap();
        let bytes = signed.to_bytes();
        let again = Signed::parse(Role::Head, &bytes).unwrap();
        assert_eq!(again, signed);
        assert_eq!(again.to_bytes(), bytes);
        assert!(matches!(Signed::parse(Role::Root, &bytes), Err(DocumentError::Malformed { .. })));
        let large = vec![b'a'; Role::Head.document_bytes_max() + 1];
        assert!(matches!(Signed::parse(Role::Head, &large), Err(DocumentError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn damage_is_noticed(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
            let key = SecretKey::from_random(Role::Head, [1; 32]);
            let set = keys(&[&key], 1);
            let signed = Signed::create(Role::Head, &World::new().head(), &[&key]).unwrap();
            let mut bytes = signed.to_bytes();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            // A flip in the unsigned header may do no harm; the payload never differs.
            if let Ok(verified) = Signed::parse(Role::Head, &bytes).and_then(|s| s.verify::<Head>(&set)) {
                prop_assert_eq!(verified.hash(), signed.hash());
                prop_assert!(!cut);
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Signed::parse(Role::Root, &bytes);
            let _ = Signed::parse(Role::Root, &[b"updraft-document = 1\nrole = \"root\"\n+++\n", &bytes[..]].concat())
                .map(|signed| read_payload::<crate::root::Root>(Role::Root, signed.payload()));
        }
    }
}
