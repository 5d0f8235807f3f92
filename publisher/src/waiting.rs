//! Documents that lack signatures: they wait in the publisher's folder, are signed there or on other
//! machines, and the command that made them goes on when there are enough.

use crate::home::Home;
use crate::signers::{Signers, missing};
use crate::{Error, disk};
use std::path::PathBuf;
use updraft_manifests::document::{KeySet, Payload, Signed};
use updraft_manifests::keys::{PublicKey, Role, SecretKey};

/// Where they lie, in the publisher's folder.
const FOLDER: &str = "waiting";

/// A document that lacks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The file.
    pub path: PathBuf,
    /// Its role.
    pub role: Role,
    /// How many more have to sign.
    pub missing: usize,
    /// Keys that have not signed and count.
    pub keys: Vec<PublicKey>,
    /// Keys that have signed and do not count.
    pub strangers: Vec<PublicKey>,
    /// What waited under that name before and does not any more: its version, and how many had signed it.
    pub replaced: Option<(String, usize)>,
}

/// `payload` with the signatures that every one of `sets` asks for: those that can be made here, with `also`, and
/// those that the document of that `name` has got since an earlier run, if `is_same` says that it is the same
/// but for what every run makes new.
///
/// # Errors
/// [`Error::Waiting`] if there are not enough: the document then waits. [`Error::Key`], [`Error::Signer`],
/// [`Error::Disk`]; [`Error::Usage`] for a payload that no launcher would take.
pub fn signed<T: Payload>(
    home: &Home,
    name: &str,
    payload: &T,
    is_same: impl Fn(&T, &T) -> bool,
    signers: &Signers,
    sets: &[&KeySet],
    also: &[&SecretKey],
) -> Result<Signed, Error> {
    let path = path(home, name);
    let role = signers.role();
    let there = disk::read_if_there(&path, role.document_bytes_max())?
        .and_then(|bytes| Signed::parse(role, &bytes).ok());
    let is_it =
        |document: &Signed| document.unverified().is_ok_and(|before| is_same(&before, payload));
    let (mut document, replaced) = match there {
        Some(before) if is_it(&before) => (before, None),
        other => {
            let new = Signed::create(role, payload, &[]);
            let new = new.map_err(|error| Error::Usage(error.to_string()))?;
            (new, other.map(|other| (version_of(&other), other.signers().count())))
        }
    };
    let counts = |key: &PublicKey| sets.iter().any(|set| set.keys.contains(key));
    let strangers = document.signers().filter(|key| !counts(key)).copied().collect();
    document.keep(counts);
    signers.sign(&mut document, sets, also)?;
    let missing = missing(&document, sets);
    if missing == 0 {
        return Ok(document);
    }
    disk::make_folder(disk::folder_of(&path))?;
    disk::write_if_changed(&path, &document.to_bytes())?;
    let has_signed = |key: &PublicKey| document.signers().any(|signer| signer == key);
    let mut keys: Vec<_> = sets.iter().flat_map(|set| set.keys.iter().copied()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| !has_signed(key));
    Err(Error::Waiting(vec![Waiting { path, role, missing, keys, strangers, replaced }]))
}

/// The version of what a document is about, for people.
fn version_of(document: &Signed) -> String {
    let text = String::from_utf8_lossy(document.payload());
    let table = text.parse::<toml::Table>().unwrap_or_default();
    match table.get("version") {
        Some(toml::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "another one".to_owned(),
    }
}

/// Removes the document of that `name`: what it was for is done.
///
/// # Errors
/// [`Error::Disk`].
pub fn done(home: &Home, name: &str) -> Result<(), Error> {
    let path = path(home, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::disk("remove", &path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.dir.join(FOLDER).join(format!("{name}.toml"))
}
