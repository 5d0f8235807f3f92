//! The digests of pieces, from whatever can read their files: shared by creation and by checks.

use super::Info;
use crate::digest::{LANES, Sha1Stream, sha1_update_many, sha256_many};
use crate::geometry::{BLOCK_LEN, Geometry, Segment};
use crate::ids::{FileIndex, PieceIndex, Sha1Hash, Sha256Hash};
use crate::merkle;
use std::ops::Range;

/// Bytes read before they are hashed: both digests find them in the cache of the core that copied
/// them.
pub const READ_BYTES: usize = 1 << 20;

/// Where the bytes of the next piece start in the buffer: what straddles lines loads more slowly.
const CACHE_LINE: usize = 64;

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

/// Hashes pieces side by side with one buffer of [`READ_BYTES`].
#[derive(Debug)]
pub struct PieceHasher<'a> {
    geometry: &'a Geometry,
    digests: Digests,
    buffer: Vec<u8>,
    /// Pieces that share the buffer.
    width: u32,
}

impl<'a> PieceHasher<'a> {
    /// A hasher for these digests.
    pub fn new(geometry: &'a Geometry, digests: Digests) -> Self {
        let width = Self::width(geometry, digests);
        Self { geometry, digests, buffer: vec![0; READ_BYTES], width }
    }

    /// The number of pieces that are hashed side by side.
    pub fn width(geometry: &Geometry, digests: Digests) -> u32 {
        let fit = READ_BYTES / (geometry.piece_length() as usize).max(BLOCK_LEN as usize);
        // SHA-1 takes a piece for each lane. For SHA-256 one piece has leaves enough, unless it is
        // most of a small file.
        let least = if digests.sha1 { LANES } else { 4 * LANES };
        u32::try_from(fit.max(least)).expect("the buffer is small")
    }

    /// Hashes `pieces`, and says for each how it went. `read` fills the whole slice from an offset
    /// of a file, or fails.
    pub fn hash<E>(
        &mut self,
        pieces: Range<u32>,
        mut read: impl FnMut(FileIndex, u64, &mut [u8]) -> Result<(), E>,
    ) -> Vec<Result<PieceDigests, E>> {
        let mut found = Vec::with_capacity(pieces.len());
        let mut next = pieces.start;
        while next < pieces.end {
            let end = pieces.end.min(next.saturating_add(self.width));
            self.side_by_side(next..end, &mut read, &mut found);
            next = end;
        }
        found
    }

    fn side_by_side<E>(
        &mut self,
        pieces: Range<u32>,
        read: &mut impl FnMut(FileIndex, u64, &mut [u8]) -> Result<(), E>,
        found: &mut Vec<Result<PieceDigests, E>>,
    ) {
        let (geometry, digests) = (self.geometry, self.digests);
        // SHA-1 needs all pieces to go on together; SHA-256 is best read in order.
        let share = if digests.sha1 { READ_BYTES / self.width as usize } else { READ_BYTES };
        let mut lanes: Vec<_> =
            pieces.map(|piece| Lane::new(geometry, digests, PieceIndex(piece))).collect();
        loop {
            let mut used = 0;
            for lane in &mut lanes {
                // Whole leaves, so that only the last of a file is a short one.
                let space = share.min(READ_BYTES - used) / BLOCK_LEN as usize * BLOCK_LEN as usize;
                lane.start = used;
                lane.fill(geometry, &mut self.buffer[used..used + space], read);
                used = (used + lane.filled).next_multiple_of(CACHE_LINE);
            }
            if used == 0 {
                break;
            }
            let buffer = &self.buffer;
            if digests.sha1 {
                sha1_update_many(lanes.iter_mut().map(|lane| {
                    let data = &buffer[lane.start..lane.start + lane.filled];
                    (&mut lane.sha1, data)
                }));
            }
            if digests.sha256 {
                let data =
                    lanes.iter().map(|lane| &buffer[lane.start..lane.start + lane.filled_by_file]);
                let leaves: Vec<_> =
                    data.flat_map(|data| data.chunks(BLOCK_LEN as usize)).collect();
                let mut hashes = sha256_many(&leaves).into_iter();
                for lane in &mut lanes {
                    let count = lane.filled_by_file.div_ceil(BLOCK_LEN as usize);
                    lane.leaves.extend(hashes.by_ref().take(count));
                }
            }
        }
        found.extend(lanes.into_iter().map(|lane| lane.finish(digests)));
    }
}

/// A piece that is being hashed.
struct Lane<E> {
    piece: PieceIndex,
    /// Bytes read of the piece, and those to read.
    done: u32,
    len: u32,
    /// Where in the buffer its bytes are, how many, and how many of them a file holds: the first
    /// ones, if there is one file only.
    start: usize,
    filled: usize,
    filled_by_file: usize,
    sha1: Sha1Stream,
    leaves: Vec<Sha256Hash>,
    /// Leaves below the root; `None` before the first byte of a file.
    leaf_count: Option<usize>,
    failed: Option<E>,
}

impl<E> Lane<E> {
    fn new(geometry: &Geometry, digests: Digests, piece: PieceIndex) -> Self {
        let len = if digests.sha1 { geometry.piece_len(piece) } else { geometry.data_len(piece) };
        Self {
            piece,
            done: 0,
            len,
            start: 0,
            filled: 0,
            filled_by_file: 0,
            sha1: Sha1Stream::new(),
            leaves: Vec::new(),
            leaf_count: None,
            failed: None,
        }
    }

    /// Reads on, as much as fits into `buffer`; pad bytes are not read.
    fn fill(
        &mut self,
        geometry: &Geometry,
        mut buffer: &mut [u8],
        read: &mut impl FnMut(FileIndex, u64, &mut [u8]) -> Result<(), E>,
    ) {
        (self.filled, self.filled_by_file) = (0, 0);
        let space = u32::try_from(buffer.len()).expect("the buffer is small");
        let len = space.min(self.len - self.done);
        for segment in geometry.segments(self.piece, self.done, len) {
            let (part, rest) = buffer.split_at_mut(segment.len() as usize);
            buffer = rest;
            match segment {
                Segment::Pad { .. } => part.fill(0),
                Segment::File { file, offset, .. } => {
                    self.leaf_count.get_or_insert_with(|| leaf_count_of(geometry, file));
                    if let Err(error) = read(file, offset, part) {
                        self.failed = Some(error);
                        (self.filled, self.filled_by_file, self.done) = (0, 0, self.len);
                        return;
                    }
                    self.filled_by_file += part.len();
                }
            }
        }
        self.done += len;
        self.filled = len as usize;
    }

    fn finish(self, digests: Digests) -> Result<PieceDigests, E> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(PieceDigests {
                sha1: digests.sha1.then(|| self.sha1.finish()),
                sha256: (self.leaf_count.filter(|_| digests.sha256))
                    .map(|width| merkle::root(self.leaves, 0, width)),
            }),
        }
    }
}

/// BEP 52: all pieces of a file longer than one piece have the full number of leaves below their
/// root; a file of at most one piece has the next power of two of its blocks.
fn leaf_count_of(geometry: &Geometry, file: FileIndex) -> usize {
    let length = geometry.files()[file.get()].length.min(u64::from(geometry.piece_length()));
    let blocks = length.div_ceil(u64::from(BLOCK_LEN));
    usize::try_from(blocks).expect("a piece is counted in u32").next_power_of_two()
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
