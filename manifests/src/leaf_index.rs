//! The leaf index: what a launcher searches its old files for.
//!
//! `indexes/<sha256>` starts with [`MAGIC`]. Then come, for every file of the release in the torrent's
//! order, the [`crate::rolling::hash`]es of its windows, 8 bytes each, little-endian: one for each whole leaf
//! of 16 KiB and, if bytes are left, one for the last 16 KiB of the file, which overlap the leaf
//! before. So every window has the same size and one search finds them all. Files below 16 KiB have
//! none: they are fetched whole, or found by their root.
//!
//! Where a file's hashes stand follows from the lengths in the torrent ([`Layout`]), so ranges of an
//! index can be fetched for the files that changed and nothing else. A range cannot be verified by
//! itself, and need not be: a window that is found is a hint. What is made of it counts only once its
//! piece has the right hash.

use crate::rolling::WINDOW;
use std::ops::Range;

/// The first bytes: what it is, and the version of its hash.
pub const MAGIC: [u8; 8] = *b"UDleaf\0\x01";
/// The longest index: of 512 GiB of files.
pub const INDEX_BYTES_MAX: u64 = 256 << 20;
/// An index up to this length is a document like others: fetched whole, verified, passed on. Of a
/// longer one only ranges are fetched.
pub const WHOLE_BYTES_MAX: u64 = 128 << 10;
/// Bytes of one hash.
pub const HASH_LEN: u64 = 8;

const LEAF: u64 = WINDOW as u64;

/// How many windows a file of `length` bytes has.
pub fn window_count(length: u64) -> u64 {
    if length < LEAF { 0 } else { length.div_ceil(LEAF) }
}

/// Where the window of leaf `leaf` starts in a file of `length` bytes, which has such a window. The
/// leaf itself starts at `leaf` x 16 KiB: later than its window if it is the short last one.
pub fn window_start(length: u64, leaf: u64) -> u64 {
    (leaf * LEAF).min(length - LEAF)
}

/// Where the hashes of each file stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Ends of the files' hashes in bytes, by number.
    ends: Vec<u64>,
}

impl Layout {
    /// From the lengths of a release's files, links as 0, in the torrent's order.
    pub fn new(lengths: impl IntoIterator<Item = u64>) -> Self {
        let mut end = MAGIC.len() as u64;
        let ends = lengths.into_iter().map(|length| {
            end = end.saturating_add(window_count(length) * HASH_LEN);
            end
        });
        Self { ends: ends.collect() }
    }

    /// Bytes of the whole index.
    pub fn index_len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(MAGIC.len() as u64)
    }

    /// The bytes of the hashes of file number `file`.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn hashes_of(&self, file: usize) -> Range<u64> {
        let before = file.checked_sub(1).map_or(MAGIC.len() as u64, |before| self.ends[before]);
        before..self.ends[file]
    }
}

/// Hashes from bytes of an index; `None` if they are not a whole number of them.
pub fn parse_hashes(bytes: &[u8]) -> Option<impl Iterator<Item = u64> + '_> {
    let (words, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| words.iter().map(|word| u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_lies_at_the_end_of_its_window() {
        for length in [16_384u64, 16_385, 32_767, 32_768, 32_769, 100_000] {
            for leaf in 0..window_count(length) {
                let start = window_start(length, leaf);
                assert!(start <= leaf * LEAF);
                assert_eq!(start + LEAF, ((leaf + 1) * LEAF).min(length), "{length} {leaf}");
            }
        }
        assert_eq!(window_count(16_383), 0);
    }

    #[test]
    fn where_hashes_stand() {
        let layout = Layout::new([0, 16_383, 16_384, 40_000, 5]);
        assert_eq!(layout.hashes_of(0), 8..8);
        assert_eq!(layout.hashes_of(1), 8..8);
        assert_eq!(layout.hashes_of(2), 8..16);
        assert_eq!(layout.hashes_of(3), 16..40);
        assert_eq!(layout.hashes_of(4), 40..40);
        assert_eq!(layout.index_len(), 40);
        assert_eq!(Layout::new([]).index_len(), 8);
        assert!(parse_hashes(&[0; 15]).is_none());
        // Hostile lengths do not overflow.
        assert_eq!(
            Layout::new([u64::MAX, u64::MAX]).index_len(),
            Layout::new([u64::MAX]).index_len() * 2 - 8
        );
    }
}
