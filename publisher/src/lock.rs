//! One publisher at a time writes to a repository.
//!
//! The lock keeps others out wherever the file system's locks reach: this machine, NFS, SMB. Where they do
//! not reach another machine, or somebody has removed the lock file, two may be at work. So the lock also
//! remembers what the head was when it was taken, and a new head is only put in that one's place: whoever
//! comes second is told, and its release does not get a number that another release has already.

use crate::{Error, disk};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::head::HEAD_PATH;
use updraft_manifests::keys::Role;

/// The lock's name in the repository.
const LOCK_NAME: &str = ".lock";

/// The right to write to the repository, until it is dropped.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: File,
    /// The head's file, and SHA-256 of all of it as we know it.
    path: PathBuf,
    head: Option<ContentHash>,
    /// The next head's number is above this one.
    pub(crate) head_floor: u64,
}

impl RepositoryLock {
    /// Takes the lock of the repository at `dir`, which need not have a head yet.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has it, [`Error::Content`] if there is no such folder.
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            let why = "there is no such folder: check `repository` in updraft.toml, or run \
                       `updraft-publisher init`";
            return Err(Error::content(dir, why));
        }
        let file = lock_file(&dir.join(LOCK_NAME))?;
        let path = dir.join(HEAD_PATH);
        let head = hash(&path)?;
        Ok(Self { _file: file, path, head, head_floor: 0 })
    }

    /// Writes the head that follows the one that was there when the lock was taken.
    ///
    /// # Errors
    /// [`Error::Overtaken`] if there is another one by now, which stays.
    pub(crate) fn put_head(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if hash(&self.path)? != self.head {
            return Err(Error::Overtaken { path: self.path.clone() });
        }
        disk::write_atomic(&self.path, bytes)?;
        self.head = Some(ContentHash::of(bytes));
        Ok(())
    }
}

fn hash(path: &Path) -> Result<Option<ContentHash>, Error> {
    let bytes = disk::read_if_there(path, Role::Head.document_bytes_max())?;
    Ok(bytes.map(|bytes| ContentHash::of(&bytes)))
}

/// Takes a lock file, made if it is not there, until it is dropped or the process ends, however it ends.
///
/// # Errors
/// [`Error::Busy`] if another process has it.
pub(crate) fn lock_file(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::disk("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: disk::folder_of(path).into() }),
        Err(TryLockError::Error(source)) => {
            Err(Error::Disk { action: "lock", path: path.into(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::BUSY;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RepositoryLock::take(dir.path()).unwrap();
        assert_eq!(RepositoryLock::take(dir.path()).unwrap_err().exit_code(), BUSY);
        drop(lock);
        RepositoryLock::take(dir.path()).unwrap();
        assert!(RepositoryLock::take(&dir.path().join("no")).is_err());
    }

    #[test]
    fn a_head_takes_the_place_of_the_one_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let head = || std::fs::read(dir.path().join(HEAD_PATH)).unwrap();
        let mut first = RepositoryLock::take(dir.path()).unwrap();
        first.put_head(b"1").unwrap();
        first.put_head(b"2").unwrap();
        // Where locks do not reach, or nobody minds them.
        std::fs::remove_file(dir.path().join(LOCK_NAME)).unwrap();
        let mut second = RepositoryLock::take(dir.path()).unwrap();
        second.put_head(b"3").unwrap();
        let error = first.put_head(b"4").unwrap_err();
        assert_eq!(error.exit_code(), BUSY);
        assert_eq!(head(), b"3");
        second.put_head(b"5").unwrap();
        std::fs::remove_file(dir.path().join(HEAD_PATH)).unwrap();
        assert!(second.put_head(b"6").is_err(), "it was removed");
    }
}
