//! The digests of one piece, from whatever can read its files: shared by creation and by checks.

use super::Info;
use super::both::Sha1Stream;
use crate::geometry::{BLOCK_LEN, Geometry, Segment};
use crate::ids::{FileIndex, PieceIndex, Sha1Hash, Sha256Hash};
use crate::merkle;

/// Bytes read at a time: both digests find them in the cache of the core that copied them.
pub const READ_BYTES: usize = 256 << 10;

/// Which digests are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// SHA-1 over the piece as v1 clients see it, gaps as zeros.
    pub sha1: bool,
    /// The root over the SHA-256 leaves of the one file in the piece (BEP 52).
    pub sha256: bool,
}

/// The digests that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceDigests {
    /// See [`Digests::sha1`].
    pub sha1: Option<Sha1Hash>,
    /// See [`Digests::sha256`]. `None` as well for a piece that no file touches.
    pub sha256: Option<Sha256Hash>,
}

/// Hashes pieces one after the other with one buffer of [`READ_BYTES`].
#[derive(Debug)]
pub struct PieceHasher {
    digests: Digests,
    buffer: Vec<u8>,
    leaves: Vec<Sha256Hash>,
}

impl PieceHasher {
    /// A hasher for these digests.
    pub fn new(digests: Digests) -> Self {
        Self { digests, buffer: vec![0; READ_BYTES], leaves: Vec::new() }
    }

    /// Hashes `piece`. `read` fills the whole slice from an offset of a file, or fails.
    pub fn hash<E>(
        &mut self,
        geometry: &Geometry,
        piece: PieceIndex,
        mut read: impl FnMut(FileIndex, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<PieceDigests, E> {
        let mut sha1 = self.digests.sha1.then(Sha1Stream::new);
        let mut leaf_count = None;
        self.leaves.clear();
        for segment in geometry.segments(piece, 0, geometry.piece_len(piece)) {
            match segment {
                Segment::Pad { len } => {
                    if let Some(sha1) = &mut sha1 {
                        zeros(sha1, len as usize);
                    }
                }
                Segment::File { file, offset, len } => {
                    leaf_count.get_or_insert_with(|| leaf_count_of(geometry, file));
                    let (mut offset, mut left) = (offset, len as usize);
                    while left > 0 {
                        let chunk = &mut self.buffer[..left.min(READ_BYTES)];
                        read(file, offset, chunk)?;
                        let leaves = chunk.chunks(BLOCK_LEN as usize);
                        match (&mut sha1, self.digests.sha256) {
                            (Some(sha1), true) => {
                                self.leaves.extend(leaves.map(|leaf| sha1.update_leaf(leaf)));
                            }
                            (Some(sha1), false) => sha1.update(chunk),
                            (None, true) => self.leaves.extend(leaves.map(merkle::leaf)),
                            (None, false) => {}
                        }
                        offset += chunk.len() as u64;
                        left -= chunk.len();
                    }
                }
            }
        }
        let sha256 = leaf_count.filter(|_| self.digests.sha256);
        Ok(PieceDigests {
            sha1: sha1.map(Sha1Stream::finish),
            sha256: sha256.map(|width| merkle::root(std::mem::take(&mut self.leaves), 0, width)),
        })
    }
}

/// BEP 52: all pieces of a file longer than one piece have the full number of leaves below their
/// root; a file of at most one piece has the next power of two of its blocks.
fn leaf_count_of(geometry: &Geometry, file: FileIndex) -> usize {
    let length = geometry.files()[file.get()].length.min(u64::from(geometry.piece_length()));
    let blocks = length.div_ceil(u64::from(BLOCK_LEN));
    usize::try_from(blocks).expect("a piece is counted in u32").next_power_of_two()
}

fn zeros(sha1: &mut Sha1Stream, mut len: usize) {
    static ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];
    while len > 0 {
        let chunk = &ZEROS[..len.min(ZEROS.len())];
        sha1.update(chunk);
        len -= chunk.len();
    }
}

impl Info {
    /// The digests by which a piece is accepted: SHA-256 when the torrent has it, SHA-1 only when
    /// there is nothing else.
    pub fn deciding_digests(&self) -> Digests {
        Digests { sha1: !self.is_v2(), sha256: self.is_v2() }
    }

    /// True if `digests` (of [`Info::deciding_digests`]) are those of `piece`. `None` if the torrent
    /// cannot tell: the file's piece layer is not known.
    pub fn accepts(&self, piece: PieceIndex, digests: &PieceDigests) -> Option<bool> {
        if self.is_v2() {
            let Some(found) = digests.sha256 else { return Some(true) };
            return self.v2_root(piece).map(|expected| expected == found);
        }
        let expected = self.v1_pieces.as_ref()?.get(piece.get())?;
        Some(digests.sha1 == Some(*expected))
    }
}
