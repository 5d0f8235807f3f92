//! The install folder, reached only through handles and never through symlinks.
//!
//! Every path here is relative to the folder, its components parted by `/`. A parent that is a
//! symlink, or anything else but a folder, is an error and not a way out: nothing outside the
//! folder is ever read or written, whatever the player, a mod or a hostile release put in the way.

#[cfg(not(unix))]
mod portable;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub use portable::Tree;
#[cfg(unix)]
pub use unix::Tree;

use std::io;

/// What lies at a path; a symlink is never looked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Nothing.
    Missing,
    /// A regular file.
    File(Stat),
    /// A folder.
    Folder,
    /// A symlink, and where it points.
    Symlink(String),
    /// A socket, a device, a pipe…
    Other,
}

/// What a regular file looks like without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub len: u64,
    /// Nanoseconds since 1970 of the last change of the content.
    pub mtime_ns: i64,
    /// Nanoseconds since 1970 of the last change of content or attributes; 0 where unknown.
    pub ctime_ns: i64,
    /// True if its owner may run it; always false where the file system has no such bit.
    pub executable: bool,
}

/// The most components and bytes a path may have.
const PATH_BYTES_MAX: usize = 4096;

/// Splits a relative path into its checked components.
///
/// # Errors
/// `InvalidInput` if a component is empty, `.`, `..`, or holds a separator, NUL or (on Windows) a
/// colon: such a path could leave the folder.
pub(crate) fn components(path: &str) -> io::Result<Vec<&str>> {
    let bad = |c: &str| {
        c.is_empty()
            || c == "."
            || c == ".."
            || c.contains(['\0', '\\'])
            || (cfg!(windows) && c.contains(':'))
    };
    let parts: Vec<&str> = path.split('/').collect();
    if path.len() > PATH_BYTES_MAX || parts.iter().any(|part| bad(part)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{path}` is not a path inside the folder"),
        ));
    }
    Ok(parts)
}

/// The folder part of `path`; empty for a path of one component.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Tree {
    /// True if something lies at `path`.
    ///
    /// # Errors
    /// Whatever the file system answers but "not found".
    pub fn exists(&self, path: &str) -> io::Result<bool> {
        Ok(self.node(path)? != Node::Missing)
    }

    /// Copies (or reflinks, where the system does) a file; `to` appears only when it is whole and synced.
    ///
    /// # Errors
    /// From the file system.
    pub fn copy_file(&self, from: &str, to: &str) -> io::Result<()> {
        let part = format!("{to}.part");
        let mut source = self.open_file(from)?;
        let mut copy = self.create_file(&part)?;
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()?;
        drop(copy);
        self.rename(&part, to)
    }

    /// Moves whatever is at `path` to the first free one of `<path>.player`, `<path>.player1`…
    /// Returns the new path.
    ///
    /// # Errors
    /// From the file system, or when 1000 such names are taken.
    pub fn move_aside(&self, path: &str) -> io::Result<String> {
        for number in 0..ASIDE_NAMES_MAX {
            let aside = match number {
                0 => format!("{path}.player"),
                more => format!("{path}.player{more}"),
            };
            if !self.exists(&aside)? {
                self.rename(path, &aside)?;
                return Ok(aside);
            }
        }
        Err(io::Error::other(format!("too many files named `{path}.player…`: move some away")))
    }
}

/// How many files moved aside may stand beside one another.
const ASIDE_NAMES_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for bad in ["", "/etc", "a//b", "../a", "a/..", "a/./b", "a\\b", "a/b\0"] {
            assert!(components(bad).is_err(), "{bad:?}");
        }
        assert_eq!(components("a/b c/ü").unwrap(), ["a", "b c", "ü"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_symlinked_parent_is_never_followed() {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "old").unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("data")).unwrap();
        std::fs::write(inside.path().join("new"), "new").unwrap();
        let tree = Tree::open(inside.path()).unwrap();
        assert_eq!(tree.node("data/secret").unwrap(), Node::Missing);
        assert!(tree.rename("new", "data/secret").is_err());
        assert!(tree.remove_file("data/secret").is_err());
        assert!(tree.make_folders("data/sub").is_err());
        assert!(tree.open_file("data/secret").is_err());
        assert!(tree.create_file("data/x").is_err());
        assert!(tree.set_executable("data/secret", true).is_err());
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "old");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        // The link itself can be moved out of the way.
        assert_eq!(tree.move_aside("data").unwrap(), "data.player");
        assert_eq!(tree.node("data").unwrap(), Node::Missing);
    }

    #[test]
    fn ordinary_life() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.make_folders("a/b/c").unwrap();
        tree.make_folders("a/b/c").unwrap();
        std::io::Write::write_all(&mut tree.create_file("a/b/f").unwrap(), b"12345").unwrap();
        let Node::File(stat) = tree.node("a/b/f").unwrap() else { panic!("not a file") };
        assert_eq!((stat.len, stat.executable), (5, false));
        tree.set_executable("a/b/f", true).unwrap();
        tree.rename("a/b/f", "f").unwrap();
        assert_eq!(tree.node("a/b/f").unwrap(), Node::Missing);
        assert_eq!(tree.node("a/b").unwrap(), Node::Folder);
        assert!(!tree.remove_folder("a").unwrap());
        assert!(tree.remove_folder("a/b/c").unwrap());
        assert!(tree.remove_folder("a/b/c").unwrap());
        assert_eq!(tree.list("").unwrap(), ["a", "f"]);
        tree.sync_folder("").unwrap();
        tree.sync_folder("a/b").unwrap();
        tree.remove_file("f").unwrap();
        tree.remove_file("f").unwrap();
        tree.remove_all("a").unwrap();
        assert_eq!(tree.list("").unwrap(), Vec::<String>::new());
    }
}
