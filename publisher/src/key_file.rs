//! Secret keys at rest, sealed or plain.
//!
//! A sealed file holds the text of a plain one under XChaCha20-Poly1305, with a key that Argon2id (RFC 9106)
//! derives from a passphrase: a stolen disk or backup signs nothing. Role and public key stand beside it in
//! the clear, and are sealed with it: which key this is can be seen without the passphrase.

use crate::passphrase::{Passphrase, Passphrases};
use crate::{Error, disk};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use std::path::Path;
use updraft_manifests::hash::{from_hex, hex};
use updraft_manifests::keys::{PublicKey, Role, SECRET_KEY_BYTES_MAX, SecretKey};
use zeroize::Zeroizing;

/// Sealed files; plain ones have format 1 ([`SecretKey::to_text`]).
const FORMAT: u32 = 2;
/// 64 MiB and three passes, the second recommendation of RFC 9106: a fraction of a second.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// The most that a file may ask for.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "updraft-secret-key")]
    format: u32,
    role: Role,
    public: PublicKey,
    memory_kib: u32,
    passes: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

/// What a key file tells without a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it signs.
    pub role: Role,
    /// Its public half.
    pub public: PublicKey,
    /// Whether it needs a passphrase.
    pub sealed: bool,
}

/// Which key lies at `path`; `None` if there is no file.
///
/// # Errors
/// [`Error::Disk`]; [`Error::Content`] for a file that is no key.
pub fn look(path: &Path) -> Result<Option<Seen>, Error> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    if let Ok(Sealed { role, public, .. }) = toml::from_str(&text) {
        return Ok(Some(Seen { role, public, sealed: true }));
    }
    let key = SecretKey::parse(&text).map_err(|error| Error::content(path, error))?;
    Ok(Some(Seen { role: key.role(), public: key.public(), sealed: false }))
}

/// Reads the key at `path`, which must be of `role`, if one is named.
///
/// # Errors
/// [`Error::Key`], or [`Error::Content`] where no role is named: what is wrong, and what to do. [`Error::Stopped`] if
/// somebody stops it.
pub fn read(
    role: Option<Role>,
    path: &Path,
    passphrases: &Passphrases,
) -> Result<SecretKey, Error> {
    let refused = |why: String| match role {
        Some(role) => Error::Key { role: role.as_str(), path: path.to_path_buf(), why },
        None => Error::content(path, why),
    };
    let missing = "not found: bring the key to this machine, or name its file in updraft.toml";
    let text = read_text(path).map_err(|error| refused(error.to_string()))?;
    let text = text.ok_or_else(|| refused(missing.to_owned()))?;
    let plain = match toml::from_str::<Sealed>(&text) {
        Ok(sealed) => {
            sealed.check(role).map_err(&refused)?;
            let what = format!("the {} key {}", sealed.role, path.display());
            let opened = passphrases.unlock(&what, |passphrase| sealed.open(passphrase));
            opened.map_err(|error| match error {
                Error::Stopped => error,
                error => refused(error.to_string()),
            })?
        }
        Err(_) => text,
    };
    let key = match role {
        Some(role) => SecretKey::parse_for(role, &plain),
        None => SecretKey::parse(&plain),
    };
    key.map_err(|error| refused(error.to_string()))
}

/// Makes a new key of `role` at `path`, sealed with the passphrase that `seal` chooses, if given. One that an
/// interrupted run left is taken.
///
/// # Errors
/// [`Error::Key`] for a file that is no key of that role; [`Error::Disk`]; those of [`Passphrases::choose`].
pub fn make(
    role: Role,
    path: &Path,
    passphrases: &Passphrases,
    seal: bool,
) -> Result<SecretKey, Error> {
    if path.exists() {
        return read(Some(role), path, passphrases).map_err(|error| match error {
            Error::Key { role, path, why } => {
                Error::Key { role, path, why: format!("{why}; or move it away") }
            }
            other => other,
        });
    }
    let key = SecretKey::from_random(role, *random::<32>()?);
    let text = if seal { sealed(&key, &passphrases.choose()?)? } else { key.to_text() };
    disk::write_secret(path, &text)?;
    Ok(key)
}

/// Writes the key at `path` anew, sealed with `next`, or plain without.
///
/// # Errors
/// Those of [`read`]; [`Error::Disk`]. The file then holds what it held before.
pub fn change(
    path: &Path,
    passphrases: &Passphrases,
    next: Option<&Passphrase>,
) -> Result<Seen, Error> {
    let key = read(None, path, passphrases)?;
    let text = match next {
        Some(next) => sealed(&key, next)?,
        None => key.to_text(),
    };
    disk::replace_secret(path, &text)?;
    Ok(Seen { role: key.role(), public: key.public(), sealed: next.is_some() })
}

impl Sealed {
    /// Everything that can be wrong before a passphrase is asked for.
    fn check(&self, wanted: Option<Role>) -> Result<(), String> {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != self.role) {
            let found = self.role;
            return Err(updraft_manifests::keys::KeyError::Role { wanted, found }.to_string());
        }
        if self.format != FORMAT {
            return Err("it was made by a newer version".to_owned());
        }
        if self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX {
            return Err("it asks for more work than any honest key file".to_owned());
        }
        let is_whole = self.parts().is_some()
            && Params::new(self.memory_kib, self.passes, 1, Some(32)).is_ok();
        is_whole.then_some(()).ok_or_else(|| "it is damaged: take a backup".to_owned())
    }

    fn parts(&self) -> Option<([u8; 16], [u8; 24], Vec<u8>)> {
        let byte = |pair: &[u8]| from_hex::<1>(std::str::from_utf8(pair).ok()?).map(|[byte]| byte);
        let sealed = self.sealed.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
        Some((from_hex(&self.salt)?, from_hex(&self.nonce)?, sealed))
    }

    /// What is bound to the secret.
    fn bound(&self) -> String {
        format!("updraft-secret-key {} {} {}", self.format, self.role, self.public)
    }

    fn open(&self, passphrase: &Passphrase) -> Option<String> {
        let (salt, nonce, sealed) = self.parts()?;
        let cipher = self.cipher(passphrase, &salt)?;
        let bound = self.bound();
        let payload = Payload { msg: &sealed, aad: bound.as_bytes() };
        let plain = Zeroizing::new(cipher.decrypt(&XNonce::from(nonce), payload).ok()?);
        Some(std::str::from_utf8(&plain).ok()?.to_owned())
    }

    fn cipher(&self, passphrase: &Passphrase, salt: &[u8; 16]) -> Option<XChaCha20Poly1305> {
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32)).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
            .ok()?;
        Some(XChaCha20Poly1305::new((&*key).into()))
    }
}

/// The text of a file that only who knows `passphrase` can use.
fn sealed(key: &SecretKey, passphrase: &Passphrase) -> Result<String, Error> {
    let (salt, nonce) = (random::<16>()?, random::<24>()?);
    let mut file = Sealed {
        format: FORMAT,
        role: key.role(),
        public: key.public(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        salt: hex(&*salt),
        nonce: hex(&*nonce),
        sealed: String::new(),
    };
    let failed = || Error::Internal("a key cannot be sealed".to_owned());
    let cipher = file.cipher(passphrase, &salt).ok_or_else(failed)?;
    let text = Zeroizing::new(key.to_text());
    let bound = file.bound();
    let payload = Payload { msg: text.as_bytes(), aad: bound.as_bytes() };
    file.sealed = hex(&cipher.encrypt(&XNonce::from(*nonce), payload).map_err(|_| failed())?);
    let body = toml::to_string(&file).map_err(|_| failed())?;
    let text = format!("# Signs as `{}` for whoever also has the passphrase.\n{body}", file.role);
    assert!(text.len() <= SECRET_KEY_BYTES_MAX, "it can be read back");
    Ok(text)
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| Error::Internal(format!("no randomness from the system: {error}")))?;
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    let Some(bytes) = disk::read_if_there(path, SECRET_KEY_BYTES_MAX)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| Error::content(path, "is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::keys::SECRET_KEY_MARK;

    const RIGHT: &str = "correct horse battery";

    fn only(text: &str) -> Passphrases {
        Passphrases::only(Passphrase::new(text))
    }

    #[test]
    fn only_the_passphrase_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.key");
        let key = make(Role::Release, &path, &only(RIGHT), true).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().any(|line| line.starts_with(SECRET_KEY_MARK)), "scans see it");
        let secret = key.to_text().lines().last().unwrap().to_owned();
        assert!(secret.starts_with("secret") && !text.contains(&secret));
        let seen = look(&path).unwrap().unwrap();
        assert_eq!(seen, Seen { role: Role::Release, public: key.public(), sealed: true });
        // As after a run that was stopped: it is taken, not made again.
        assert_eq!(make(Role::Release, &path, &only(RIGHT), true).unwrap().public(), key.public());
        assert_ne!(sealed(&key, &Passphrase::new(RIGHT)).unwrap(), text, "no two are alike");

        let check = |text: &str, passphrase: &str, why: &str| {
            std::fs::write(&path, text).unwrap();
            let error = read(Some(Role::Release), &path, &only(passphrase)).unwrap_err();
            assert_eq!(error.exit_code(), crate::exit::KEY);
            assert!(error.to_string().contains(why), "{error}");
        };
        // Nobody sits at this test's terminal, or what is asked there fails as well.
        let wrong = Sealed::open(&toml::from_str(&text).unwrap(), &Passphrase::new("x"));
        assert!(wrong.is_none());
        let moved: Sealed = toml::from_str(&text.replace("\"release\"", "\"head\"")).unwrap();
        assert!(moved.open(&Passphrase::new(RIGHT)).is_none(), "its role is sealed with it");
        check(&text.replace("\"release\"", "\"head\""), RIGHT, "holds a head key");
        check(&text.replace("sealed = \"", "sealed = \"x"), RIGHT, "damaged");
        check(&text.replace("salt = \"", "salt = \"00"), RIGHT, "damaged");
        check(&text.replace("passes = 3", "passes = 99"), RIGHT, "more work");
        check(&text.replace("passes = 3", "passes = 0"), RIGHT, "damaged");
        check(&text.replace("key = 2", "key = 3"), RIGHT, "newer");
        check(&text[..text.len() / 2], RIGHT, "fields are wrong");
    }

    #[test]
    fn a_passphrase_is_changed_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.key");
        let key = make(Role::Root, &path, &Passphrases::default(), false).unwrap();
        assert!(!look(&path).unwrap().unwrap().sealed);
        let (one, two) = (Passphrase::new(RIGHT), Passphrase::new("another one of them"));
        assert!(change(&path, &Passphrases::default(), Some(&one)).unwrap().sealed);
        assert!(change(&path, &only(RIGHT), Some(&two)).unwrap().sealed);
        let sealed: Sealed = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(sealed.open(&one).is_none() && sealed.open(&two).is_some());
        assert!(!change(&path, &Passphrases::only(two), None).unwrap().sealed);
        let again = read(Some(Role::Root), &path, &Passphrases::default()).unwrap();
        assert_eq!(again.public(), key.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
