//! Torrent files: bytes to a validated [`Metainfo`] and back.
//!
//! v1 (BEP 3), v2 (BEP 52) and hybrid; pad files, the executable bit and symlinks (BEP 47). What is
//! parsed is checked once, here: after that the types are the proof. The info dictionary is kept as
//! the bytes it came in, because they are what the info-hash is over.

pub mod create;
pub mod hash;
pub mod magnet;
pub(crate) mod name;
mod numbers;
mod parse;
pub mod trees;

pub use parse::{INFO_BYTES_MAX, MetainfoError, PIECE_LENGTH_MAX, SOURCES_MAX, TEXT_BYTES_MAX};

use crate::geometry::Geometry;
use crate::ids::{FileIndex, InfoHash, InfoHashV2, InfoHashes, PieceIndex, Sha1Hash, Sha256Hash};
use bytes::Bytes;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// The most bytes a .torrent file may have.
pub const TORRENT_BYTES_MAX: usize = 64 << 20;

/// A torrent file.
#[derive(Debug, Clone)]
pub struct Metainfo {
    /// What the info-hash is over, and the piece layers that belong to it.
    pub info: Info,
    /// Trackers in tiers (BEP 12); `announce` alone is one tier of one.
    pub trackers: Vec<Vec<String>>,
    /// BEP 19 web seeds (`url-list`).
    pub web_seeds: Vec<String>,
    /// Free text of whoever made it.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

/// The content of the info dictionary.
#[derive(Debug, Clone)]
pub struct Info {
    /// The exact bytes of the info dictionary.
    pub raw: Bytes,
    /// The torrent's names.
    pub hashes: InfoHashes,
    /// Suggested name: the file's, or the folder's.
    pub name: String,
    /// BEP 27: peers only from the trackers.
    pub private: bool,
    /// True if the torrent is one file and `name` is its name; else `files` lie in a folder `name`.
    pub single_file: bool,
    /// The files in torrent order, pad files left out. By [`FileIndex`], in step with
    /// [`Geometry::files`].
    pub files: Vec<FileEntry>,
    /// Pieces, blocks and offsets.
    pub geometry: Geometry,
    /// SHA-1 of every piece (BEP 3), if there is v1 metadata.
    pub v1_pieces: Option<Vec<Sha1Hash>>,
}

/// One file, or one symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Components below the torrent's folder (for a single file: its name alone). Each is not
    /// empty, not `.` or `..`, and has no separator, NUL or drive colon.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// BEP 47 attribute `x`.
    pub executable: bool,
    /// BEP 47 attribute `h`.
    pub hidden: bool,
    /// BEP 47 attribute `l`: the target's components, from the torrent's folder.
    pub symlink: Option<Vec<String>>,
    /// BEP 52 `pieces root`; `None` for v1-only torrents and for empty files.
    pub root: Option<Sha256Hash>,
    /// The roots of this file's pieces (BEP 52 `piece layers`), one per piece. For a file of at
    /// most one piece this is its root. Empty when the layer is unknown, and for empty files.
    pub layer: Vec<Sha256Hash>,
}

impl InfoHashes {
    /// The names of the torrent with this info dictionary.
    fn of(raw: &[u8], v1: bool, v2: bool) -> Self {
        Self {
            v1: v1.then(|| InfoHash(Sha1::digest(raw).into())),
            v2: v2.then(|| InfoHashV2(Sha256::digest(raw).into())),
        }
    }
}

impl Info {
    /// True if every piece lies in one file and has a SHA-256 root (v2 and hybrid).
    pub fn is_v2(&self) -> bool {
        self.hashes.v2.is_some()
    }

    /// True if some file has more than one piece (v2 and hybrid) and what verifies them is not known.
    pub fn lacks_layers(&self) -> bool {
        self.files.iter().any(|file| file.root.is_some() && file.layer.is_empty())
    }

    /// The file that holds `piece` and the piece's place in that file's layer. Only for v2.
    pub fn v2_place(&self, piece: PieceIndex) -> Option<(FileIndex, usize)> {
        if !self.is_v2() {
            return None;
        }
        let start = self.geometry.piece_start(piece);
        let spans = self.geometry.files();
        let mut at = spans.partition_point(|span| span.offset + span.length <= start);
        while spans.get(at).is_some_and(|span| span.length == 0) {
            at += 1;
        }
        let file = FileIndex(u32::try_from(at).ok()?);
        let first = self.geometry.pieces_of(file).start;
        Some((file, piece.0.checked_sub(first)? as usize))
    }

    /// The SHA-256 root `piece` must have; `None` for v1-only torrents and unknown layers.
    pub fn v2_root(&self, piece: PieceIndex) -> Option<Sha256Hash> {
        let (file, at) = self.v2_place(piece)?;
        self.files[file.get()].layer.get(at).copied()
    }

    /// The number of leaves below the root of `piece`: all pieces of a file longer than one piece
    /// have the full number (the missing ones are zero hashes, BEP 52); a file of at most one piece
    /// has the next power of two of its blocks.
    pub fn v2_leaf_count(&self, piece: PieceIndex) -> Option<usize> {
        let (file, _) = self.v2_place(piece)?;
        let length = self.geometry.files()[file.get()].length;
        let piece_length = u64::from(self.geometry.piece_length());
        let leaves = length.min(piece_length).div_ceil(u64::from(crate::geometry::BLOCK_LEN));
        Some(usize::try_from(leaves).expect("a piece fits in memory").next_power_of_two())
    }
}
