//! Whether a piece is right: on the way to the disk, block by block, or read back whole.

use super::Verdict;
use super::handles::{DiskError, Handles, read_full_at};
use super::torrent::Torrent;
use crate::digest::{Sha1Stream, sha1_update_many, sha256_many};
use crate::geometry::{BLOCK_LEN, Block};
use crate::ids::{PieceIndex, Sha256Hash};
use crate::merkle;
use crate::metainfo::Info;
use bytes::Bytes;

/// Bytes read from a file at a time to be hashed: a multiple of a block, and still in the cache
/// when it is.
pub(super) const SCRATCH_LEN: usize = 256 * 1024;

/// A piece of which some blocks are written.
#[derive(Debug)]
pub(super) struct Partial {
    received: Box<[bool]>,
    missing: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// v2 and hybrid: the leaf of every block, in any order (BEP 52).
    Leaves(Vec<Sha256Hash>),
    /// v1: SHA-1 needs the blocks in order; `next` is the first one it has not seen.
    Sequential { hash: Sha1Stream, next: usize },
}

impl Partial {
    pub(super) fn new(info: &Info, piece: PieceIndex) -> Self {
        let blocks = info.geometry.block_count(piece) as usize;
        let state = if info.is_v2() {
            State::Leaves(vec![Sha256Hash([0; 32]); blocks])
        } else {
            State::Sequential { hash: Sha1Stream::new(), next: 0 }
        };
        Self { received: vec![false; blocks].into(), missing: blocks, state }
    }

    /// True if the block with this number was written before.
    pub(super) fn has(&self, index: u32) -> bool {
        self.received[index as usize]
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// For v1: SHA-1, and of blocks that were just written those that it takes next.
    fn next_in_order<'a>(
        &mut self,
        written: &'a [(u32, Bytes)],
    ) -> Option<(&mut Sha1Stream, &'a [(u32, Bytes)])> {
        let State::Sequential { hash, next } = &mut self.state else { return None };
        let follows = |(at, (index, _)): &(usize, &(u32, Bytes))| *index as usize == *next + at;
        let count = written.iter().enumerate().take_while(follows).count();
        *next += count;
        Some((hash, &written[..count]))
    }

    /// Takes in blocks that were just written, ascending by number, and their leaves if the torrent
    /// has any; SHA-1 is past those that [`hash_in_order`] took. Where SHA-1 now continues over blocks written earlier, those are read back from the
    /// files. `Ok(false)` if they are gone.
    pub(super) fn add(
        &mut self,
        written: &[(u32, Bytes)],
        new_leaves: &mut impl Iterator<Item = Sha256Hash>,
        piece: PieceIndex,
        reader: &mut Reader<'_>,
    ) -> Result<bool, DiskError> {
        for &(index, _) in written {
            let received = &mut self.received[index as usize];
            assert!(!*received, "duplicates were dropped before");
            *received = true;
        }
        self.missing -= written.len();
        match &mut self.state {
            State::Leaves(leaves) => {
                for ((index, _), leaf) in written.iter().zip(new_leaves) {
                    leaves[*index as usize] = leaf;
                }
                Ok(true)
            }
            State::Sequential { hash, next } => {
                let mut written = written.iter().peekable();
                while written.next_if(|(index, _)| (*index as usize) < *next).is_some() {}
                while self.received.get(*next).copied().unwrap_or(false) {
                    match written.next_if(|(index, _)| *index as usize == *next) {
                        Some((_, bytes)) => {
                            hash.update(bytes);
                            *next += 1;
                        }
                        None => {
                            let until = written
                                .peek()
                                .map_or(self.received.len(), |(index, _)| *index as usize);
                            let known =
                                self.received[*next..until].iter().take_while(|has| **has).count();
                            if !reader.hash_blocks(piece, *next, *next + known, hash)? {
                                return Ok(false);
                            }
                            *next += known;
                        }
                    }
                }
                Ok(true)
            }
        }
    }

    /// The verdict over a complete piece. Reads it back only to tell a wrong piece from a torrent
    /// that contradicts itself.
    pub(super) fn verdict(
        self,
        piece: PieceIndex,
        reader: &mut Reader<'_>,
    ) -> Result<Verdict, DiskError> {
        assert!(self.is_complete(), "no verdict over half a piece");
        let info = &reader.torrent.info;
        let right = match self.state {
            State::Leaves(leaves) => root_matches(info, piece, leaves),
            State::Sequential { hash, .. } => sha1_matches(info, piece, hash),
        };
        if right {
            return Ok(Verdict::Verified);
        }
        let hybrid = info.is_v2() && info.v1_pieces.is_some();
        Ok(if hybrid && reader.sha1_is_right(piece)? == Found::Right {
            Verdict::Inconsistent
        } else {
            Verdict::Wrong
        })
    }
}

/// Takes blocks of v1 pieces that were just written into the hashes of these, side by side, as far as
/// they come in order.
pub(super) fn hash_in_order<'a>(
    pieces: impl Iterator<Item = (&'a mut Partial, &'a [(u32, Bytes)])>,
) {
    let mut work: Vec<_> =
        pieces.filter_map(|(partial, written)| partial.next_in_order(written)).collect();
    for round in 0.. {
        work.retain(|(_, blocks)| blocks.len() > round);
        if work.is_empty() {
            return;
        }
        sha1_update_many(work.iter_mut().map(|(hash, blocks)| (&mut **hash, &blocks[round].1[..])));
    }
}

/// What the files hold of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The right bytes.
    Right,
    /// Other bytes.
    Wrong,
    /// Too few bytes, or no file.
    Missing,
}

/// Reads pieces of one torrent through a buffer of [`SCRATCH_LEN`].
pub(super) struct Reader<'a> {
    pub(super) torrent: &'a Torrent,
    pub(super) handles: &'a Handles,
    pub(super) scratch: &'a mut [u8],
}

impl Reader<'_> {
    /// Hashes `piece` from disk, by SHA-256 if the torrent has it.
    pub(super) fn check(&mut self, piece: PieceIndex) -> Result<Found, DiskError> {
        let info = &self.torrent.info;
        if !info.is_v2() {
            return self.sha1_is_right(piece);
        }
        let data_len = info.geometry.data_len(piece);
        let mut leaves = Vec::with_capacity(info.geometry.block_count(piece) as usize);
        let whole = self.each_chunk(piece, 0, data_len, |bytes| {
            let messages: Vec<&[u8]> = bytes.chunks(BLOCK_LEN as usize).collect();
            leaves.extend(sha256_many(&messages));
        })?;
        Ok(if !whole {
            Found::Missing
        } else if root_matches(&self.torrent.info, piece, leaves) {
            Found::Right
        } else {
            Found::Wrong
        })
    }

    fn sha1_is_right(&mut self, piece: PieceIndex) -> Result<Found, DiskError> {
        let mut hash = Sha1Stream::new();
        let data_len = self.torrent.info.geometry.data_len(piece);
        if !self.each_chunk(piece, 0, data_len, |bytes| hash.update(bytes))? {
            return Ok(Found::Missing);
        }
        let right = sha1_matches(&self.torrent.info, piece, hash);
        Ok(if right { Found::Right } else { Found::Wrong })
    }

    /// Feeds blocks `from..until` to `hash`; false if the files no longer hold them.
    fn hash_blocks(
        &mut self,
        piece: PieceIndex,
        from: usize,
        until: usize,
        hash: &mut Sha1Stream,
    ) -> Result<bool, DiskError> {
        let block = |number: usize| u32::try_from(number).expect("a block number") * BLOCK_LEN;
        let end = block(until).min(self.torrent.info.geometry.data_len(piece));
        self.each_chunk(piece, block(from), end - block(from), |bytes| hash.update(bytes))
    }

    /// Reads a range of a piece in chunks of the scratch buffer; false if there is less.
    fn each_chunk(
        &mut self,
        piece: PieceIndex,
        offset: u32,
        len: u32,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, DiskError> {
        let chunk_max = u32::try_from(self.scratch.len()).expect("the scratch buffer is small");
        let mut done = 0;
        while done < len {
            let chunk = Block { piece, offset: offset + done, len: chunk_max.min(len - done) };
            let bytes = &mut self.scratch[..chunk.len as usize];
            if !read_block(self.torrent, self.handles, chunk, bytes)? {
                return Ok(false);
            }
            take(bytes);
            done += chunk.len;
        }
        Ok(true)
    }
}

/// Reads a range of one piece into `buffer`, which has its length; false if the files hold less.
pub(super) fn read_block(
    torrent: &Torrent,
    handles: &Handles,
    block: Block,
    mut buffer: &mut [u8],
) -> Result<bool, DiskError> {
    assert_eq!(buffer.len(), block.len as usize, "the buffer has the block's length");
    for run in torrent.runs(block.piece, block.offset, block.len) {
        let (bytes, rest) = buffer.split_at_mut(run.len);
        buffer = rest;
        let Some((place, at)) = run.kept else {
            bytes.fill(0);
            continue;
        };
        let file = match handles.get(torrent, place, false) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Ok(false),
            Err(error) => return Err(error),
        };
        let count = read_full_at(&file, bytes, at).map_err(|error| DiskError {
            path: torrent.paths_of(place).0,
            op: super::DiskOp::Read,
            error,
        })?;
        if count < bytes.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if a full piece of zeros is right: then a hole in a sparse file is, too.
pub(super) fn zeros_are_right(torrent: &Torrent, piece: PieceIndex) -> bool {
    let info = &torrent.info;
    let piece_length = info.geometry.piece_length();
    if info.geometry.piece_len(piece) != piece_length {
        return false;
    }
    let zeros = [0; BLOCK_LEN as usize];
    if info.is_v2() {
        let full = info.geometry.data_len(piece) == piece_length;
        let root = torrent.zero_piece.get_or_init(|| {
            let leaves = piece_length.div_ceil(BLOCK_LEN) as usize;
            merkle::root(vec![merkle::leaf(&zeros); leaves], 0, leaves).0.to_vec()
        });
        full && info.v2_root(piece).is_some_and(|expected| expected.0[..] == root[..])
    } else {
        let sum = torrent.zero_piece.get_or_init(|| {
            let mut hash = Sha1Stream::new();
            feed_zeros(&mut hash, piece_length);
            hash.finish().0.to_vec()
        });
        let expected = info.v1_pieces.as_ref().map(|pieces| pieces[piece.get()]);
        expected.is_some_and(|expected| expected.0[..] == sum[..])
    }
}

fn root_matches(info: &Info, piece: PieceIndex, leaves: Vec<Sha256Hash>) -> bool {
    match (info.v2_root(piece), info.v2_leaf_count(piece)) {
        (Some(expected), Some(leaf_count)) => merkle::root(leaves, 0, leaf_count) == expected,
        // Without its layer a piece cannot be judged, so it is not accepted.
        (None, _) | (_, None) => false,
    }
}

fn sha1_matches(info: &Info, piece: PieceIndex, mut hash: Sha1Stream) -> bool {
    let Some(expected) = info.v1_pieces.as_ref().and_then(|pieces| pieces.get(piece.get())) else {
        return false;
    };
    feed_zeros(&mut hash, info.geometry.piece_len(piece) - info.geometry.data_len(piece));
    hash.finish() == *expected
}

fn feed_zeros(hash: &mut Sha1Stream, mut len: u32) {
    let zeros = [0; BLOCK_LEN as usize];
    while len > 0 {
        let part = len.min(BLOCK_LEN);
        hash.update(&zeros[..part as usize]);
        len -= part;
    }
}
