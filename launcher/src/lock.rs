//! One launcher per install: a lock that the system drops when the process ends, however it ends.

use crate::error::Error;
use crate::tree::Tree;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;

/// The lock file, below the install.
const LOCK_PATH: &str = ".updraft/lock";
/// Locked, by several at once, while the game runs.
const PLAYING_PATH: &str = ".updraft/playing";

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

/// Says that the game runs, or that it must not be started; as long as this lives.
#[derive(Debug)]
pub struct Playing {
    _file: File,
}

impl Playing {
    /// Says that the game runs, beside others who say so; `None` if it must not now.
    ///
    /// # Errors
    /// From the file system.
    pub fn begin(tree: &Tree) -> Result<Option<Self>, Error> {
        let path = tree.path().join(PLAYING_PATH);
        let file = tree.create_file(PLAYING_PATH).map_err(Error::disk("open", &path))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Error::disk("take the lock", path)(source)),
        }
    }

    /// Keeps the game from being started; `None` if it runs, `Some(None)` if nobody ever started it here.
    ///
    /// # Errors
    /// From the file system.
    pub fn prevent(tree: &Tree) -> Result<Option<Option<Self>>, Error> {
        let path = tree.path().join(PLAYING_PATH);
        let file = match tree.open_file(PLAYING_PATH) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(None)),
            Err(error) => return Err(Error::disk("open", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Some(Self { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Error::disk("take the lock", path)(source)),
        }
    }
}

/// True if the game runs.
pub fn is_playing(tree: &Tree) -> bool {
    matches!(Playing::prevent(tree), Ok(None))
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

    #[test]
    fn an_update_and_a_game_keep_out_of_each_others_way() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.make_folders(".updraft").unwrap();
        assert!(Playing::prevent(&tree).unwrap().unwrap().is_none() && !is_playing(&tree));
        let (first, second) = (Playing::begin(&tree).unwrap(), Playing::begin(&tree).unwrap());
        assert!(first.is_some() && second.is_some() && is_playing(&tree));
        drop(first);
        assert!(is_playing(&tree) && Playing::prevent(&tree).unwrap().is_none());
        drop(second);
        assert!(!is_playing(&tree));
        let update = Playing::prevent(&tree).unwrap().unwrap();
        assert!(Playing::begin(&tree).unwrap().is_none());
        drop(update);
        assert!(Playing::begin(&tree).unwrap().is_some());
    }
}
