//! One launcher per install: a lock that the system drops when the process ends, however it ends.

use crate::error::Error;
use crate::tree::Tree;
use std::fs::{File, TryLockError};

/// The lock file, below the install.
const LOCK_PATH: &str = ".updraft/lock";

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the install.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process holds it.
    pub fn take(tree: &Tree) -> Result<Self, Error> {
        Self::take_at(tree, LOCK_PATH)
    }

    /// Takes the lock at `below`.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process holds it.
    pub fn take_at(tree: &Tree, below: &str) -> Result<Self, Error> {
        let path = tree.path().join(below);
        let file = tree.create_file(below).map_err(Error::disk("open the lock", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(tree.path().to_path_buf())),
            Err(TryLockError::Error(source)) => Err(Error::disk("take the lock", path)(source)),
        }
    }

    /// True if somebody holds it now.
    pub fn is_taken(tree: &Tree) -> bool {
        tree.exists(LOCK_PATH).unwrap_or(false)
            && tree
                .open_file(LOCK_PATH)
                .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.make_folders(".updraft").unwrap();
        assert!(!Lock::is_taken(&tree));
        let lock = Lock::take(&tree).unwrap();
        assert!(Lock::is_taken(&tree));
        assert!(matches!(Lock::take(&tree), Err(Error::Busy(_))));
        drop(lock);
        Lock::take(&tree).unwrap();
    }
}
