//! The files of a release as patches count them.

use crate::hash::ContentHash;
use crate::path::RelPath;
use sha2::{Digest as _, Sha256};

/// Keeps a tree's digest apart from every other use of SHA-256.
const LABEL: &[u8] = b"updraft patch tree v1\0";

/// A file with bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeFile {
    /// Where it lies.
    pub path: RelPath,
    /// Bytes, at least one.
    pub length: u64,
    /// BEP 52 `pieces root`.
    pub root: ContentHash,
}

/// The files of a release that hold bytes, sorted by path. A file's number is its place here: empty
/// files, links and folders have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    files: Vec<TreeFile>,
}

impl Tree {
    /// Sorts `files` and leaves out those without bytes.
    pub fn new(files: impl IntoIterator<Item = TreeFile>) -> Self {
        let mut files: Vec<_> = files.into_iter().filter(|file| file.length > 0).collect();
        files.sort();
        Self { files }
    }

    /// The files, by number.
    pub fn files(&self) -> &[TreeFile] {
        &self.files
    }

    /// The number of the file at `path`.
    pub fn find(&self, path: &RelPath) -> Option<usize> {
        self.files.binary_search_by(|file| file.path.cmp(path)).ok()
    }

    /// SHA-256 over all paths, lengths and roots: what a patch is bound to.
    pub fn digest(&self) -> ContentHash {
        let mut hash = Sha256::new();
        hash.update(LABEL);
        for file in &self.files {
            hash.update((file.path.as_str().len() as u64).to_be_bytes());
            hash.update(file.path.as_str());
            hash.update(file.length.to_be_bytes());
            hash.update(file.root.0);
        }
        ContentHash(hash.finalize().into())
    }
}
