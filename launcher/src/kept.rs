//! What is left of the release before this one, so that going back downloads nothing.
//!
//! A switch takes replaced and removed files out of their places and throws nothing away: its folder of
//! old files becomes `.updraft/kept/`, with `record`, what was installed before, and `<number>`, the
//! content of that record's file of this number. What else belongs to that release still lies in the
//! folder. Kept files are sources like any other; they go after [`KEPT_MAX`], when the next release
//! takes their place, or when the disk has no room for it.

use crate::apply::{OLD_FOLDER, STATE_FOLDER};
use crate::tree::{Node, Tree};
use std::io::{self, Read as _, Write as _};
use std::time::{Duration, SystemTime};
use updraft_manifests::installed::{INSTALLED_BYTES_MAX, Installed};
use updraft_manifests::path::RelPath;

/// How long the files of the last release are kept.
pub const KEPT_MAX: Duration = Duration::from_secs(72 * 60 * 60);

const KEPT_FOLDER: &str = ".updraft/kept";
const RECORD: &str = "record";

/// Reads the record of the release whose files are kept; `None` if none is, or it is damaged.
///
/// # Errors
/// From the file system.
pub fn record(tree: &Tree) -> io::Result<Option<Installed>> {
    let path = record_path(KEPT_FOLDER);
    if !tree.exists(&path)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    tree.open_file(&path)?.take(INSTALLED_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(Installed::parse(&bytes).ok())
}

/// Where the content of the record's file of this number is, if it was taken out of its place.
pub fn path(number: usize) -> RelPath {
    RelPath::parse(&format!("{KEPT_FOLDER}/{number}")).expect("it is a path")
}

/// True for what [`path`] gives.
pub fn is_kept(path: &RelPath) -> bool {
    path.as_str().strip_prefix(KEPT_FOLDER).is_some_and(|rest| rest.starts_with('/'))
}

/// Notes, among the old files of a switch, which release they are of.
///
/// # Errors
/// From the file system.
pub fn label(tree: &Tree, installed: &Installed) -> io::Result<()> {
    let mut file = tree.create_file(&record_path(OLD_FOLDER))?;
    file.write_all(installed.to_text().as_bytes())?;
    file.sync_all()?;
    tree.sync_folder(OLD_FOLDER)
}

/// The old files of a committed switch take the place of what was kept, if they are labelled;
/// otherwise they go.
///
/// # Errors
/// From the file system; to be called again then.
pub fn keep(tree: &Tree) -> io::Result<()> {
    if tree.exists(&record_path(OLD_FOLDER))? {
        forget(tree)?;
        tree.rename(OLD_FOLDER, KEPT_FOLDER)?;
    } else {
        tree.remove_all(OLD_FOLDER)?;
    }
    tree.sync_folder(STATE_FOLDER)
}

/// Throws away what is kept.
///
/// # Errors
/// From the file system.
pub fn forget(tree: &Tree) -> io::Result<()> {
    // Without a record nothing counts as kept, however much of it a stop leaves.
    tree.remove_file(&record_path(KEPT_FOLDER))?;
    tree.sync_folder(KEPT_FOLDER)?;
    tree.remove_all(KEPT_FOLDER)
}

/// Throws away what has been kept for [`KEPT_MAX`], and what has no record.
///
/// # Errors
/// From the file system.
pub fn expire(tree: &Tree, now: SystemTime) -> io::Result<()> {
    if !tree.exists(KEPT_FOLDER)? {
        return Ok(());
    }
    let since = match tree.node(&record_path(KEPT_FOLDER))? {
        Node::File(stat) => Duration::from_nanos(u64::try_from(stat.mtime_ns).unwrap_or(0)),
        Node::Missing | Node::Folder | Node::Symlink(_) | Node::Other => Duration::ZERO,
    };
    let age = now.duration_since(SystemTime::UNIX_EPOCH + since).unwrap_or_default();
    if age > KEPT_MAX { forget(tree) } else { Ok(()) }
}

fn record_path(folder: &str) -> String {
    format!("{folder}/{RECORD}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::hash::ContentHash;

    #[test]
    fn kept_for_a_while_and_only_with_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let installed = Installed {
            release: crate::release::sample(1, ContentHash([2; 32])),
            toward: None,
            files: vec![],
        };
        let switch = |labelled: bool| {
            tree.make_folders(OLD_FOLDER).unwrap();
            tree.create_file(&format!("{OLD_FOLDER}/0")).unwrap();
            if labelled {
                label(&tree, &installed).unwrap();
            }
            keep(&tree).unwrap();
            assert!(!tree.exists(OLD_FOLDER).unwrap());
        };
        switch(false);
        assert_eq!(record(&tree).unwrap(), None);
        assert!(!tree.exists(KEPT_FOLDER).unwrap());
        switch(true);
        assert_eq!(record(&tree).unwrap(), Some(installed.clone()));
        assert!(tree.exists(path(0).as_str()).unwrap() && is_kept(&path(0)));
        // A switch to the same release again keeps nothing and drops nothing.
        switch(false);
        assert_eq!(record(&tree).unwrap(), Some(installed.clone()));
        let now = SystemTime::now();
        expire(&tree, now).unwrap();
        assert_eq!(record(&tree).unwrap(), Some(installed));
        expire(&tree, now + KEPT_MAX + Duration::from_secs(60)).unwrap();
        assert!(!tree.exists(KEPT_FOLDER).unwrap());
    }
}
