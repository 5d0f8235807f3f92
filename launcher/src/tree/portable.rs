//! [`Tree`] over plain paths, for systems without `openat`: every parent is looked at before each
//! step and must be a real folder (no symlink, no junction).

use super::{Node, Stat, components};
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A folder; all work below it goes through checked parents.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
}

impl Tree {
    /// Opens an existing folder. The folder's own path may lead through symlinks: the player chose
    /// it.
    ///
    /// # Errors
    /// If it is not there, not a folder, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        fs::read_dir(&path)?;
        Ok(Self { path })
    }

    /// Where the folder is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What lies at `path`. A parent that is missing or not a folder makes it [`Node::Missing`].
    ///
    /// # Errors
    /// Whatever the file system answers but "not found".
    pub fn node(&self, path: &str) -> io::Result<Node> {
        let full = match self.checked(path) {
            Ok(full) => full,
            Err(error) if is_no_way(&error) => return Ok(Node::Missing),
            Err(error) => return Err(error),
        };
        let meta = match fs::symlink_metadata(&full) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Node::Missing),
            Err(error) => return Err(error),
        };
        Ok(if meta.file_type().is_symlink() {
            Node::Symlink(fs::read_link(&full)?.to_string_lossy().replace('\\', "/"))
        } else if meta.is_dir() {
            Node::Folder
        } else if meta.is_file() {
            Node::File(Stat {
                len: meta.len(),
                mtime_ns: nanos(meta.modified().unwrap_or(UNIX_EPOCH)),
                ctime_ns: 0,
                executable: false,
            })
        } else {
            Node::Other
        })
    }

    /// Moves `from` to `to`; an existing file at `to` is replaced. Both parents must be folders.
    ///
    /// # Errors
    /// From the file system.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.checked(from)?, self.checked(to)?);
        if fs::symlink_metadata(&to).is_ok_and(|meta| meta.is_dir()) {
            fs::remove_dir(&to)?;
        }
        fs::rename(from, to)
    }

    /// Makes the folder `path` and all above it.
    ///
    /// # Errors
    /// From the file system; a file or symlink in the way is an error.
    pub fn make_folders(&self, path: &str) -> io::Result<()> {
        let mut at = self.path.clone();
        for part in components(path)? {
            at.push(part);
            match fs::create_dir(&at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folder(&at)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes a file or symlink; a missing one is fine.
    ///
    /// # Errors
    /// From the file system.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        let full = match self.checked(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        match fs::remove_file(&full) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // A symlink to a folder is removed as a folder on Windows.
                match fs::symlink_metadata(&full) {
                    Ok(meta) if meta.file_type().is_symlink() => fs::remove_dir(&full),
                    _ => Err(error),
                }
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder if it is empty. True if it is gone afterwards.
    ///
    /// # Errors
    /// Whatever the file system answers but "not found" and "not empty".
    pub fn remove_folder(&self, path: &str) -> io::Result<bool> {
        let full = match self.checked(path) {
            Err(error) if is_no_way(&error) => return Ok(true),
            found => found?,
        };
        match fs::remove_dir(&full) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(true),
                io::ErrorKind::DirectoryNotEmpty => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        let full = self.checked(path)?;
        no_link(&fs::symlink_metadata(&full)?, &full)?;
        File::open(full)
    }

    /// Opens a regular file for writing, new or emptied.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn create_file(&self, path: &str) -> io::Result<File> {
        let full = self.checked(path)?;
        if let Ok(meta) = fs::symlink_metadata(&full) {
            no_link(&meta, &full)?;
        }
        File::create(full)
    }

    /// Files are not cloned on this system: always false.
    ///
    /// # Errors
    /// If a path leads out of the folder.
    pub fn clone_file(&self, from: &str, to: &str) -> io::Result<bool> {
        self.checked(from)?;
        self.checked(to)?;
        Ok(false)
    }

    /// Symlinks are not made on this system: they need rights that players do not have.
    ///
    /// # Errors
    /// Always.
    pub fn make_symlink(&self, target: &str, path: &str) -> io::Result<()> {
        self.checked(path)?;
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("cannot make the symlink `{path}` to `{target}` on this system"),
        ))
    }

    /// There is no such bit on this system: nothing happens.
    ///
    /// # Errors
    /// If the path leads out of the folder.
    pub fn set_executable(&self, path: &str, _executable: bool) -> io::Result<()> {
        self.checked(path).map(|_| ())
    }

    /// Makes the content of a file durable.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn sync_file(&self, path: &str) -> io::Result<()> {
        let full = self.checked(path)?;
        no_link(&fs::symlink_metadata(&full)?, &full)?;
        File::options().write(true).open(full)?.sync_all()
    }

    /// Folders cannot be synced on this system; the file system's journal keeps names in order.
    ///
    /// # Errors
    /// If the path leads out of the folder.
    pub fn sync_folder(&self, path: &str) -> io::Result<()> {
        if path.is_empty() { Ok(()) } else { components(path).map(|_| ()) }
    }

    /// The names in a folder, sorted; empty for a missing one.
    ///
    /// # Errors
    /// From the file system.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let full = if path.is_empty() { Ok(self.path.clone()) } else { self.checked(path) };
        let full = match full {
            Ok(full) => full,
            Err(error) if is_no_way(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        match fs::symlink_metadata(&full) {
            Ok(meta) if meta.is_dir() => {}
            _ => return Ok(Vec::new()),
        }
        let mut names = fs::read_dir(full)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Removes a file, or a folder and all below it; a missing one is fine.
    ///
    /// # Errors
    /// From the file system.
    pub fn remove_all(&self, path: &str) -> io::Result<()> {
        match self.node(path)? {
            Node::Missing => Ok(()),
            Node::Folder => {
                for name in self.list(path)? {
                    self.remove_all(&format!("{path}/{name}"))?;
                }
                self.remove_folder(path).map(|_| ())
            }
            Node::File(_) | Node::Symlink(_) | Node::Other => self.remove_file(path),
        }
    }

    fn checked(&self, path: &str) -> io::Result<PathBuf> {
        let mut parts = components(path)?;
        let name = parts.pop().expect("split gives at least one part");
        let mut at = self.path.clone();
        for part in parts {
            at.push(part);
            folder(&at)?;
        }
        at.push(name);
        Ok(at)
    }
}

fn folder(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        Ok(())
    } else {
        let text = format!("{} is not a folder", path.display());
        Err(io::Error::new(io::ErrorKind::NotADirectory, text))
    }
}

fn no_link(meta: &Metadata, path: &Path) -> io::Result<()> {
    if meta.file_type().is_symlink() {
        return Err(io::Error::other(format!("{} is a symlink", path.display())));
    }
    Ok(())
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn is_no_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
