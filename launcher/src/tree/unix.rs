//! [`Tree`] over `openat` and its kin: no component may be a symlink. Linux looks at all of them in one call
//! (`openat2`), elsewhere each is opened with `O_NOFOLLOW`.

use super::{Node, Stat, components};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A folder held open; all work below it goes through this handle.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    root: OwnedFd,
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Tree {
    /// Opens an existing folder. The folder's own path may lead through symlinks: the player chose
    /// it.
    ///
    /// # Errors
    /// If it is not there, not a folder, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, root })
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
        let (folder, name) = match self.parent_of(path) {
            Ok(found) => found,
            Err(error) if is_no_way(&error) => return Ok(Node::Missing),
            Err(error) => return Err(error),
        };
        let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Node::Missing),
            Err(error) => return Err(error.into()),
        };
        let nanos = |seconds: i128, nanos: i128| {
            i64::try_from(seconds * 1_000_000_000 + nanos).unwrap_or(i64::MAX)
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Node::File(Stat {
                len: u64::try_from(stat.st_size).unwrap_or(0),
                mtime_ns: nanos(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
                ctime_ns: nanos(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
                executable: stat.st_mode & RawMode::from(0o100u16) != 0,
            }),
            FileType::Directory => Node::Folder,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&folder, name, Vec::new())?;
                Node::Symlink(String::from_utf8_lossy(target.as_bytes()).into_owned())
            }
            _ => Node::Other,
        })
    }

    /// Moves `from` to `to` in one step; an existing file (or empty folder, for a folder) at `to`
    /// is replaced. Both parents must be folders.
    ///
    /// # Errors
    /// From the file system.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_folder, from_name) = self.parent_of(from)?;
        let (to_folder, to_name) = self.parent_of(to)?;
        Ok(rustix::fs::renameat(&from_folder, from_name, &to_folder, to_name)?)
    }

    /// Makes the folder `path` and all above it.
    ///
    /// # Errors
    /// From the file system; a file or symlink in the way is an error.
    pub fn make_folders(&self, path: &str) -> io::Result<()> {
        let mut at = self.root.try_clone()?;
        for part in components(path)? {
            match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = rustix::fs::openat(&at, part, FOLDER, Mode::empty())?;
        }
        Ok(())
    }

    /// Removes a file or symlink; a missing one is fine.
    ///
    /// # Errors
    /// From the file system.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        let (folder, name) = match self.parent_of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the folder if it is empty. True if it is gone afterwards.
    ///
    /// # Errors
    /// Whatever the file system answers but "not found" and "not empty".
    pub fn remove_folder(&self, path: &str) -> io::Result<bool> {
        let (folder, name) = match self.parent_of(path) {
            Err(error) if is_no_way(&error) => return Ok(true),
            found => found?,
        };
        match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            // Not a folder (any more): no folder of that name is left.
            Err(Errno::NOTDIR) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        let (folder, name) = self.parent_of(path)?;
        // NONBLOCK: a pipe somebody put there must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(&folder, name, flags, Mode::empty())?))
    }

    /// Opens a regular file for writing, new or emptied.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn create_file(&self, path: &str) -> io::Result<File> {
        let (folder, name) = self.parent_of(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o666))?))
    }

    /// Makes `to` a clone of the file `from`, which shares its blocks until either is written; false
    /// where the file system or the system cannot do that.
    ///
    /// # Errors
    /// From the file system.
    pub fn clone_file(&self, from: &str, to: &str) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            let source = self.open_file(from)?;
            let clone = self.create_file(to)?;
            let done = rustix::fs::ioctl_ficlone(&clone, &source);
            if done.is_err() {
                drop(clone);
                self.remove_file(to)?;
            }
            match done {
                Ok(()) => Ok(true),
                Err(
                    Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS,
                ) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (from, to);
            Ok(false)
        }
    }

    /// Makes a symlink at `path`, where nothing may be yet.
    ///
    /// # Errors
    /// From the file system.
    pub fn make_symlink(&self, target: &str, path: &str) -> io::Result<()> {
        let (folder, name) = self.parent_of(path)?;
        Ok(rustix::fs::symlinkat(target, &folder, name)?)
    }

    /// Lets everybody run who may read, or nobody; durable.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn set_executable(&self, path: &str, executable: bool) -> io::Result<()> {
        let file = self.open_file(path)?;
        let mode = rustix::fs::fstat(&file)?.st_mode & RawMode::from(0o7777u16);
        let readers = (mode & RawMode::from(0o444u16)) >> 2;
        let wanted = if executable { mode | readers } else { mode & !RawMode::from(0o111u16) };
        if wanted != mode {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted))?;
        }
        // Also when it is so already: a run that was stopped may not have come to it.
        file.sync_all()
    }

    /// Makes the content of a file durable.
    ///
    /// # Errors
    /// From the file system; a symlink is an error.
    pub fn sync_file(&self, path: &str) -> io::Result<()> {
        self.open_file(path)?.sync_all()
    }

    /// Makes the names in the folder durable; a missing folder is fine. Empty path: the root.
    ///
    /// # Errors
    /// From the file system.
    pub fn sync_folder(&self, path: &str) -> io::Result<()> {
        match self.open_folder(path) {
            Ok(folder) => Ok(rustix::fs::fsync(&folder)?),
            Err(error) if is_no_way(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names in a folder, sorted; empty for a missing one. Names that are not UTF-8 come out
    /// with replacement characters.
    ///
    /// # Errors
    /// From the file system.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let folder = match self.open_folder(path) {
            Ok(folder) => folder,
            Err(error) if is_no_way(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
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

    fn open_folder(&self, path: &str) -> io::Result<OwnedFd> {
        if path.is_empty() {
            return Ok(rustix::fs::openat(&self.root, ".", FOLDER, Mode::empty())?);
        }
        self.walk(&components(path)?)
    }

    fn parent_of<'p>(&self, path: &'p str) -> io::Result<(Folder<'_>, &'p str)> {
        let mut parts = components(path)?;
        let name = parts.pop().expect("split gives at least one part");
        let folder = if parts.is_empty() {
            Folder::Root(&self.root)
        } else {
            Folder::Below(self.walk(&parts)?)
        };
        Ok((folder, name))
    }

    /// Opens the folder below the root that these names lead to, through no symlink.
    fn walk(&self, parts: &[&str]) -> io::Result<OwnedFd> {
        #[cfg(target_os = "linux")]
        if parts.len() > 1 {
            use rustix::fs::{ResolveFlags, openat2};
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match openat2(&self.root, parts.join("/"), FOLDER, Mode::empty(), within) {
                // An old kernel, or a sandbox that does not know the call; or a race that it gave up.
                Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
                opened => return Ok(opened?),
            }
        }
        let mut at = rustix::fs::openat(&self.root, parts[0], FOLDER, Mode::empty())?;
        for part in &parts[1..] {
            at = rustix::fs::openat(&at, *part, FOLDER, Mode::empty())?;
        }
        Ok(at)
    }
}

/// A folder to work in.
enum Folder<'t> {
    Root(&'t OwnedFd),
    Below(OwnedFd),
}

impl AsFd for Folder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => root.as_fd(),
            Self::Below(folder) => folder.as_fd(),
        }
    }
}

/// True if the error says that no such folder lies on the way: missing, a file, or a symlink.
fn is_no_way(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].iter().any(|no| code == Some(no.raw_os_error()))
}
