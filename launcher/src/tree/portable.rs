//! [`Tree`] over plain paths, for systems without `openat`: every parent is looked at before each
//! step and must be a real folder (no symlink, no junction).

use super::{Node, Stat, components};
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use updraft_protocol::io::held::{may_be_held, patiently};

/// The folder, in the launcher's own, of files that could only be moved away.
const HELD_FOLDER: &str = ".updraft/held";
/// The most of them.
const HELD_MAX: u32 = 1000;

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
        // Without the `\\?\` that no player knows; for long paths the standard library adds it itself.
        let path = dunce::canonicalize(path)?;
        fs::read_dir(&path)?;
        let tree = Self { path };
        tree.remove_held();
        Ok(tree)
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

    /// Moves `from` to `to`; an existing file at `to` is replaced, also one that is marked read-only or that
    /// another program holds, as far as the system lets it be moved away. Both parents must be folders.
    ///
    /// # Errors
    /// From the file system, when somebody still holds a file after two seconds and a half.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.checked(from)?, self.checked(to)?);
        if fs::symlink_metadata(&to).is_ok_and(|meta| meta.is_dir()) {
            patiently(|| fs::remove_dir(&to))?;
        }
        let was_read_only = set_read_only(&to, false)?;
        let done = patiently(|| fs::rename(&from, &to)).or_else(|error| {
            if !may_be_held(&error) || !to.is_file() {
                return Err(error);
            }
            // A program that runs cannot be replaced, but it can be moved.
            self.move_away(&to).and_then(|()| fs::rename(&from, &to)).map_err(|_| error)
        });
        if done.is_err() && was_read_only {
            // What stays is as it was.
            let _ = set_read_only(&to, true);
        }
        done
    }

    /// Moves a file to where [`Tree::remove_held`] finds it when nobody holds it any more.
    fn move_away(&self, file: &Path) -> io::Result<()> {
        self.make_folders(HELD_FOLDER)?;
        for number in 0..HELD_MAX {
            let away = self.checked(&format!("{HELD_FOLDER}/{number}"))?;
            // What is held there since an earlier time stays.
            let _ = fs::remove_file(&away);
            if fs::symlink_metadata(&away).is_err() {
                fs::rename(file, &away)?;
                let _ = fs::remove_file(&away);
                return Ok(());
            }
        }
        Err(io::Error::other("too many files are held by other programs"))
    }

    /// Removes what was moved away because somebody held it, as far as nobody does now.
    fn remove_held(&self) {
        let names = self.list(HELD_FOLDER).unwrap_or_default();
        for path in names.iter().map(|name| format!("{HELD_FOLDER}/{name}")) {
            if let Ok(away) = self.checked(&path) {
                let _ = fs::remove_file(away);
            }
        }
        if let Ok(folder) = self.checked(HELD_FOLDER) {
            let _ = fs::remove_dir(folder);
        }
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
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folder_at(&at)?,
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
        // Old versions and other file systems than NTFS remove no read-only file.
        let was_read_only = set_read_only(&full, false)?;
        match patiently(|| fs::remove_file(&full)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if was_read_only {
                    // What stays is as it was.
                    let _ = set_read_only(&full, true);
                }
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
        match patiently(|| fs::remove_dir(&full)) {
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

    /// Symlinks are not made on this system: they need rights that players do not have. See [`crate::links`].
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
            folder_at(&at)?;
        }
        at.push(name);
        Ok(at)
    }
}

/// Sets or clears the attribute of a file that forbids to replace it. True if that changed it.
fn set_read_only(path: &Path, read_only: bool) -> io::Result<bool> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(false) };
    let mut permissions = meta.permissions();
    if !meta.is_file() || permissions.readonly() == read_only {
        return Ok(false);
    }
    permissions.set_readonly(read_only);
    fs::set_permissions(path, permissions).map(|()| true)
}

fn folder_at(path: &Path) -> io::Result<()> {
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

#[cfg(windows)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::windows::fs::OpenOptionsExt as _;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(dir.path().join(name), *name).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn paths_may_be_longer_than_260_letters() {
        let (dir, tree) = tree(&["new"]);
        let folder = ["x".repeat(120), "y".repeat(120), "z".repeat(120)].join("/");
        tree.make_folders(&folder).unwrap();
        let file = format!("{folder}/file");
        tree.rename("new", &file).unwrap();
        assert!(matches!(tree.node(&file), Ok(Node::File(stat)) if stat.len == 3));
        tree.rename(&file, "back").unwrap();
        tree.remove_all(&"x".repeat(120)).unwrap();
        assert_eq!(tree.list("").unwrap(), ["back"]);
        assert!(!dir.path().to_string_lossy().starts_with(r"\\?\"));
        assert!(!tree.path().to_string_lossy().starts_with(r"\\?\"), "{}", tree.path().display());
    }

    #[test]
    fn a_read_only_file_is_replaced_and_removed() {
        let (dir, tree) = tree(&["new", "old", "other"]);
        for name in ["old", "other"] {
            assert!(set_read_only(&dir.path().join(name), true).unwrap());
        }
        tree.rename("new", "old").unwrap();
        tree.remove_file("other").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("old")).unwrap(), "new");
        assert_eq!(tree.list("").unwrap(), ["old"]);
    }

    #[test]
    fn a_file_that_is_open_is_moved_away() {
        let (dir, tree) = tree(&["new", "old"]);
        // As a program that runs: nobody may write, but it may be moved. FILE_SHARE_READ | FILE_SHARE_DELETE.
        let held = File::options().read(true).share_mode(1 | 4).open(dir.path().join("old"));
        tree.rename("new", "old").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("old")).unwrap(), "new");
        drop(held.unwrap());
        drop(Tree::open(dir.path()).unwrap());
        assert_eq!(tree.list(HELD_FOLDER).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_nobody_else_may_touch_is_named_as_such() {
        let (dir, tree) = tree(&["new", "old"]);
        set_read_only(&dir.path().join("old"), true).unwrap();
        let held = File::options().read(true).share_mode(0).open(dir.path().join("old")).unwrap();
        let error = tree.rename("new", "old").unwrap_err();
        assert!(may_be_held(&error), "{error}");
        drop(held);
        assert!(fs::metadata(dir.path().join("old")).unwrap().permissions().readonly());
        assert_eq!(fs::read_to_string(dir.path().join("old")).unwrap(), "old");
        tree.rename("new", "old").unwrap();
    }
}
