//! Copies that stand for links, where the system lets players make none.
//!
//! A link of a release is then a copy of the file that it leads to, made at the end of each switch. It counts as
//! right while it has the length and the time of change of that file, which it was given.

use crate::tree::{Node, Tree};
use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime};
use updraft_manifests::installed::{Installed, InstalledFile};
use updraft_manifests::path::RelPath;

/// Whether links are copies here: Windows lets only administrators and developers make them.
pub const COPIED: bool = cfg!(not(unix));

/// The most links that lead to one another, as systems have it that have links.
const HOPS_MAX: usize = 40;
/// Where a copy is made.
const COPY_PATH: &str = ".updraft/link";

/// The links of a release.
#[derive(Debug)]
pub struct Links<'a>(HashMap<&'a RelPath, &'a RelPath>);

impl<'a> Links<'a> {
    /// The links among these files.
    pub fn of(files: &'a [InstalledFile]) -> Self {
        Self(files.iter().filter_map(|file| Some((&file.path, file.symlink.as_ref()?))).collect())
    }

    /// Where a link to `target` ends.
    fn end<'b>(&'b self, target: &'b RelPath) -> &'b RelPath {
        (0..HOPS_MAX).fold(target, |at, _| self.0.get(at).copied().unwrap_or(at))
    }

    /// True if what lies at `path` stands for a link to `target`.
    ///
    /// # Errors
    /// From the file system.
    pub fn is_right(&self, tree: &Tree, path: &RelPath, target: &RelPath) -> io::Result<bool> {
        let there = (tree.node(path.as_str())?, tree.node(self.end(target).as_str())?);
        let (Node::File(copy), Node::File(end)) = there else { return Ok(false) };
        Ok((copy.len, copy.mtime_ns) == (end.len, end.mtime_ns))
    }
}

/// Makes the copies that are not right, in the place of the empty files that were put there. Where what they lead
/// to is missing or no file they stay as they are: a repair brings it, and comes back here.
///
/// # Errors
/// From the file system; to be called again then.
pub fn renew(tree: &Tree, installed: &Installed) -> io::Result<()> {
    let links = Links::of(&installed.files);
    for file in &installed.files {
        let (Some(path), Some(target)) = (file.place.of(&file.path), &file.symlink) else {
            continue;
        };
        let is_copy = matches!(tree.node(path.as_str())?, Node::File(_));
        if !is_copy || links.is_right(tree, &path, target)? {
            continue;
        }
        let end = links.end(target).as_str();
        let Node::File(stat) = tree.node(end)? else { continue };
        let mut copy = tree.create_file(COPY_PATH)?;
        io::copy(&mut tree.open_file(end)?, &mut copy)?;
        let since = Duration::from_nanos(u64::try_from(stat.mtime_ns).unwrap_or(0));
        copy.set_modified(SystemTime::UNIX_EPOCH + since)?;
        copy.sync_all()?;
        drop(copy);
        tree.rename(COPY_PATH, path.as_str())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::hash::ContentHash;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    fn file(at: &str, target: Option<&str>) -> InstalledFile {
        InstalledFile {
            path: path(at),
            place: Default::default(),
            length: 0,
            root: None,
            mtime_ns: 0,
            executable: false,
            symlink: target.map(path),
        }
    }

    #[test]
    fn a_copy_follows_the_file_that_its_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.make_folders(".updraft").unwrap();
        let hash = ContentHash([1; 32]);
        let installed = Installed {
            release: crate::release::sample(2, hash),
            toward: None,
            files: vec![
                file("l", Some("m")),
                file("m", Some("a")),
                file("a", None),
                file("lost", Some("gone")),
                file("round", Some("round")),
            ],
        };
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        for name in ["l", "m", "lost", "round"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        for content in ["one", "two"] {
            // Of another time, although of the same length.
            std::fs::write(dir.path().join("a"), content).unwrap();
            let seconds = content.bytes().map(u64::from).sum();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let changed = std::fs::File::options().write(true).open(dir.path().join("a")).unwrap();
            changed.set_modified(time).unwrap();
            let links = Links::of(&installed.files);
            assert!(!links.is_right(&tree, &path("l"), &path("m")).unwrap());
            renew(&tree, &installed).unwrap();
            assert!(links.is_right(&tree, &path("l"), &path("m")).unwrap());
            assert_eq!((read("l").as_str(), read("m").as_str()), (content, content));
            assert!(read("lost").is_empty());
        }
    }
}
