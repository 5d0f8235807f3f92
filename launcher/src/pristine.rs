//! Copies of what the player may change, as it was released, so that a player with settings of their own still has
//! all of the release for others.
//!
//! A copy is named by its content and made before a release is switched to, out of verified bytes; it is hashed again
//! before anybody believes it. Copies are a courtesy: whatever cannot be copied is not shared once it is changed.

use crate::error::Error;
use crate::survey::place_of;
use crate::tree::Tree;
use std::collections::HashSet;
use updraft_manifests::installed::Installed;
use updraft_manifests::path::RelPath;
use updraft_manifests::places::Bytes;
use updraft_manifests::rules::{Class, Rules};

const FOLDER: &str = ".updraft/pristine";
/// The largest file that is copied, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most bytes that copies of one release take.
const BYTES_MAX: u64 = 16 << 20;

/// Where the copy of this content lies, if there is one; `None` for what is not copied.
pub fn path(bytes: Bytes) -> Option<RelPath> {
    let Bytes { length, root } = bytes;
    let root = root.filter(|_| (1..=FILE_BYTES_MAX).contains(&length))?;
    Some(RelPath::parse(&format!("{FOLDER}/{root}-{length}")).expect("it is a path"))
}

/// True for what [`path`] gives.
pub fn is_pristine(path: &RelPath) -> bool {
    path.as_str().strip_prefix(FOLDER).is_some_and(|rest| rest.starts_with('/'))
}

/// Makes copies: each content, and where it lies now. What fails is left out.
pub fn keep(tree: &Tree, files: impl Iterator<Item = (Bytes, String)>) {
    let mut sum = 0;
    for (bytes, from) in files {
        let Some(to) = path(bytes) else { continue };
        sum += bytes.length;
        if sum > BYTES_MAX {
            return;
        }
        let copied = tree.make_folders(FOLDER).and_then(|()| tree.copy_file(&from, to.as_str()));
        if let Err(error) = copied {
            tracing::warn!(%error, from, "it is not shared once it is changed");
        }
    }
}

/// Removes the copies that belong to none of these records.
///
/// # Errors
/// From the file system.
pub fn tidy(tree: &Tree, records: &[&Installed]) -> Result<(), Error> {
    let named: HashSet<RelPath> = records.iter().flat_map(|record| of(record)).collect();
    let tidy = || {
        if !tree.exists(FOLDER)? {
            return Ok(());
        }
        for name in tree.list(FOLDER)? {
            let at = format!("{FOLDER}/{name}");
            if !RelPath::parse(&at).is_ok_and(|at| named.contains(&at)) {
                tree.remove_file(&at)?;
            }
        }
        Ok(())
    };
    tidy().map_err(Error::disk("tidy", tree.path().join(FOLDER)))
}

/// Where the copies of what this record lists lie.
fn of(record: &Installed) -> impl Iterator<Item = RelPath> + '_ {
    let rules: &Rules = &record.release.rules;
    let may_change = |path: &RelPath| rules.class(path) != Class::Immutable;
    let files = record.files.iter().filter(move |file| may_change(&file.path));
    let files = files.filter(|file| place_of(file).is_some());
    files.filter_map(|file| path(Bytes { length: file.length, root: file.root }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_manifests::hash::ContentHash;

    #[test]
    fn small_contents_have_a_name_of_their_own() {
        let root = Some(ContentHash([7; 32]));
        let name = |length, root| path(Bytes { length, root }).map(|path| path.to_string());
        assert_eq!(name(0, None), None);
        assert_eq!(name(FILE_BYTES_MAX + 1, root), None);
        let one = name(1, root).unwrap();
        assert!(one.ends_with("07-1") && is_pristine(&RelPath::parse(&one).unwrap()), "{one}");
    }
}
