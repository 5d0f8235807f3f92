//! File contents in the repository: `objects/<root>-<length>`, each written once.
//!
//! Copies, never hard links: a later build that edits its file in place would change what was signed.
//! Where the file system can share blocks, the copy is a reflink and costs nothing.

use crate::batch::Batch;
use crate::{Error, disk};
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use updraft_manifests::hash::ContentHash;

/// A file of the build, and what its content was found to be.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes.
    pub length: u64,
    /// When it was last written, as the scan saw it.
    pub modified: Option<SystemTime>,
    /// Its BEP 52 `pieces root`.
    pub root: ContentHash,
}

/// Adds objects to the folder `objects/` of one repository.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    batch: Batch,
    /// Bytes of objects that were not there.
    pub added_bytes: u64,
    /// Objects that were not there.
    pub added: u64,
}

impl Objects {
    /// The objects of the repository at `repository`.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn open(repository: &Path) -> Result<Self, Error> {
        let folder = repository.join("objects");
        disk::make_folder(&folder)?;
        let batch = Batch::new(folder.clone());
        Ok(Self { folder, batch, added_bytes: 0, added: 0 })
    }

    /// Stores the content of `source`, unless it is there. Complete only after [`Objects::finish`].
    ///
    /// # Errors
    /// [`Error::BuildChanged`] if the file is no longer what was hashed; [`Error::Disk`].
    pub fn add(&mut self, source: &Source) -> Result<(), Error> {
        let path = self.folder.join(format!("{}-{}", source.root, source.length));
        let there = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == source.length)
        };
        if there(&path) || self.batch.holds(&path) {
            return check_unchanged(source);
        }
        let temporary = disk::temporary(&path);
        let _ = fs::remove_file(&temporary);
        fs::copy(&source.path, &temporary).map_err(|error| {
            // Which of the two failed decides what to do: full disk, or unreadable build.
            let path = if File::open(&source.path).is_err() { &source.path } else { &path };
            Error::Disk { action: "copy", path: path.clone(), source: error }
        })?;
        check_unchanged(source)?;
        if !there(&temporary) {
            return Err(Error::BuildChanged { path: source.path.clone() });
        }
        plain_permissions(&temporary, source.modified)?;
        self.added += 1;
        self.added_bytes += source.length;
        self.batch.add(path, source.length)
    }

    /// Makes durable what was added.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn finish(&mut self) -> Result<(), Error> {
        self.batch.finish()
    }
}

/// The copy was taken of what was hashed, as far as size and time can tell. `verify` can tell more.
fn check_unchanged(source: &Source) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(&source.path).map_err(Error::disk("read", &source.path))?;
    if metadata.len() != source.length || metadata.modified().ok() != source.modified {
        return Err(Error::BuildChanged { path: source.path.clone() });
    }
    Ok(())
}

/// A copy takes the mode of its source along, but a web server has to read objects and nobody has to
/// run them.
fn plain_permissions(path: &Path, modified: Option<SystemTime>) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
            .map_err(Error::disk("write", path))?;
    }
    // Nor could it be flushed, given its name or replaced on Windows.
    #[cfg(windows)]
    #[expect(clippy::permissions_set_readonly_false, reason = "not built for Unix")]
    {
        let mut permissions = fs::metadata(path).map_err(Error::disk("read", path))?.permissions();
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions).map_err(Error::disk("write", path))?;
    }
    // The content's own time, so that a mirror tool that compares times has nothing to do.
    if let Some(modified) = modified
        && let Ok(file) = File::options().write(true).open(path)
    {
        let _ = file.set_times(FileTimes::new().set_modified(modified));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path, root: u8) -> Source {
        let metadata = fs::metadata(path).unwrap();
        Source {
            path: path.to_path_buf(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            root: ContentHash([root; 32]),
        }
    }

    #[test]
    fn stored_once_and_apart_from_the_build() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "content").unwrap();
        let mut objects = Objects::open(dir.path()).unwrap();
        let source = source(&file, 1);
        objects.add(&source).unwrap();
        objects.add(&source).unwrap();
        assert_eq!(objects.added, 1);
        let path = dir.path().join(format!("objects/{}-7", source.root));
        assert!(!path.exists(), "no name before its content is durable");
        objects.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        let mut again = Objects::open(dir.path()).unwrap();
        again.add(&source).unwrap();
        again.finish().unwrap();
        assert_eq!(again.added, 0);
        fs::write(&file, "changed").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }

    #[test]
    fn a_torn_object_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "content").unwrap();
        let source = source(&file, 1);
        let mut objects = Objects::open(dir.path()).unwrap();
        let path = dir.path().join(format!("objects/{}-7", source.root));
        fs::write(&path, "con").unwrap();
        objects.add(&source).unwrap();
        objects.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }

    #[test]
    fn a_moving_build_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "content").unwrap();
        let mut source = source(&file, 1);
        source.length = 6;
        let mut objects = Objects::open(dir.path()).unwrap();
        assert!(matches!(objects.add(&source), Err(Error::BuildChanged { .. })));
        fs::remove_file(&file).unwrap();
        let error = objects.add(&source).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}
