//! What an update lacks when leaves of old files are all it has, computed from the two folders.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use updraft_launcher::search::Search;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::leaf_index::{HASH_LEN, window_count, window_start};
use updraft_manifests::rolling::{self, WINDOW};
use updraft_tests::content;

/// What peers could compress together.
const SPAN: usize = 256 << 10;
/// zstd's level that keeps up with an uplink.
const LEVEL: i32 = 3;

/// Bytes of an update by leaves.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Of leaves that no old file has.
    pub(crate) raw: u64,
    /// The same with each span of 256 KiB compressed.
    pub(crate) compressed: u64,
    /// Of the index for the changed files.
    pub(crate) index: u64,
}

/// Searches all of `old` for the leaves of what `new` has and `old` has not.
pub(crate) fn gaps(old: &Path, new: &Path) -> Gaps {
    let (old, new) = (files(old), files(new));
    let read = |path: &PathBuf| fs::read(path).expect("a build can be read");
    let mut seen: HashSet<ContentHash> =
        old.iter().map(|path| ContentHash::of(&read(path))).collect();
    let changed: Vec<&PathBuf> =
        new.iter().filter(|path| seen.insert(ContentHash::of(&read(path)))).collect();
    let mut hashes = Vec::new();
    for path in &changed {
        hashes.extend(windows(&read(path)).map(rolling::hash));
    }
    let mut gaps = Gaps { index: hashes.len() as u64 * HASH_LEN, ..Gaps::default() };
    let mut search = Search::new(hashes);
    let mut buffer = Vec::new();
    for path in &old {
        let file = fs::File::open(path).expect("a build can be read");
        search.scan(file, 0, &mut buffer, |_| true).expect("a build can be read");
    }
    let places = search.into_places();
    let (mut number, mut small) = (0, Vec::new());
    for path in &changed {
        let bytes = read(path);
        if bytes.len() < WINDOW {
            // Neighbours share a span.
            small.extend_from_slice(&bytes);
            continue;
        }
        for span in bytes.chunks(SPAN) {
            let mut missing = Vec::new();
            for leaf in span.chunks(WINDOW) {
                if places.get(number).is_none() {
                    missing.extend_from_slice(leaf);
                }
                number += 1;
            }
            gaps.add(&missing);
        }
    }
    small.chunks(SPAN).for_each(|span| gaps.add(span));
    gaps
}

impl Gaps {
    fn add(&mut self, span: &[u8]) {
        let compressed = zstd::bulk::compress(span, LEVEL).expect("there is memory for a span");
        self.raw += span.len() as u64;
        self.compressed += compressed.len().min(span.len()) as u64;
    }
}

/// The windows of a file's leaves.
fn windows(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let length = bytes.len() as u64;
    (0..window_count(length)).map(move |leaf| {
        let start = usize::try_from(window_start(length, leaf)).expect("the file is in memory");
        &bytes[start..start + WINDOW]
    })
}

/// The files of a build, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let tree = content::list(dir, &[]).into_iter();
    let files = tree.filter(|(_, entry)| matches!(entry, content::Entry::File { .. }));
    files.map(|(path, _)| dir.join(path)).collect()
}
