//! Blocks to files and files to blocks, on one of the disk's threads.

use super::handles::{DiskError, Handles, write_all_at};
use super::hashing::{Found, Partial, Reader, hash_in_order, read_block};
use super::overwrite::write_differing;
use super::torrent::{Place, Torrent};
use super::worker::{Shared, Worker, Write};
use super::{DiskEvent, DiskOp, Verdict};
use crate::digest::sha256_many;
use crate::geometry::Block;
use crate::ids::{PeerKey, PieceIndex, Sha256Hash};
use crate::io::buffers::BUFFER_PAYLOAD_LEN;
use bytes::Bytes;
use std::collections::hash_map::Entry;
use std::io::IoSlice;

/// Reads of at most this many bytes get memory of their own: a pooled buffer would be mostly empty.
const SMALL_READ_LEN: usize = 64 * 1024;

impl Worker<'_> {
    /// Writes the blocks that their pieces lack, hashes all of them side by side, and judges the
    /// pieces that are whole.
    pub(super) fn write(&mut self, orders: Vec<Write>) {
        let mut pieces: Vec<Write> = Vec::with_capacity(orders.len());
        for order in orders {
            let same = |other: &&mut Write| {
                other.torrent.key == order.torrent.key && other.piece == order.piece
            };
            match pieces.iter_mut().find(same) {
                Some(piece) => piece.blocks.extend(order.blocks),
                None => pieces.push(order),
            }
        }
        let written: Vec<_> = pieces
            .into_iter()
            .map(|order| {
                let (bytes, piece) = (order.bytes(), order.piece);
                let fresh = self.write_fresh(&order.torrent, piece, order.blocks);
                (order.torrent, piece, bytes, fresh)
            })
            .collect();
        let to_hash = written.iter().filter(|(torrent, ..)| torrent.info.is_v2());
        let to_hash = to_hash.filter_map(|(.., fresh)| fresh.as_ref().ok());
        let to_hash: Vec<&[u8]> = to_hash.flatten().map(|(_, bytes)| &bytes[..]).collect();
        let mut leaves = sha256_many(&to_hash).into_iter();
        let mut sequential = Vec::new();
        for (torrent, piece, _, fresh) in &written {
            let key = (torrent.key, *piece);
            if let Ok(fresh) = fresh
                && !torrent.info.is_v2()
                && let Some(partial) = self.partials.remove(&key)
            {
                sequential.push((key, partial, &fresh[..]));
            }
        }
        hash_in_order(sequential.iter_mut().map(|(_, partial, fresh)| (partial, *fresh)));
        self.partials.extend(sequential.into_iter().map(|(key, partial, _)| (key, partial)));
        for (torrent, piece, bytes, fresh) in written {
            let verdict = fresh.and_then(|fresh| self.judge(&torrent, piece, &fresh, &mut leaves));
            self.shared.emit(DiskEvent::Written { torrent: torrent.key, piece, bytes });
            match verdict {
                Ok(None) => {}
                Ok(Some(verdict)) => {
                    if verdict == Verdict::Verified {
                        torrent.trust(piece);
                        self.shared.record(&torrent, piece);
                    }
                    self.shared.emit(DiskEvent::Piece { torrent: torrent.key, piece, verdict });
                }
                Err(error) => {
                    self.partials.remove(&(torrent.key, piece));
                    self.shared.emit_error(&torrent, error);
                }
            }
        }
    }

    /// Writes the blocks that the piece lacks; returns them, ascending by number.
    fn write_fresh(
        &mut self,
        torrent: &Torrent,
        piece: PieceIndex,
        blocks: Vec<(Block, Bytes)>,
    ) -> Result<Vec<(u32, Bytes)>, DiskError> {
        let geometry = &torrent.info.geometry;
        let key = (torrent.key, piece);
        let partial =
            self.partials.entry(key).or_insert_with(|| Partial::new(&torrent.info, piece));
        let mut fresh: Vec<(u32, Bytes)> = blocks
            .into_iter()
            .map(|(block, bytes)| {
                assert_eq!((block.piece, block.len as usize), (piece, bytes.len()), "one piece");
                let index = geometry.block_index(block);
                (index.expect("the engine asks for blocks of the geometry only"), bytes)
            })
            .filter(|(index, _)| !partial.has(*index))
            .collect();
        fresh.sort_unstable_by_key(|(index, _)| *index);
        fresh.dedup_by_key(|(index, _)| *index);
        write_blocks(torrent, &self.shared.handles, piece, &fresh)?;
        Ok(fresh)
    }

    /// Takes blocks that were just written into the hash of their piece, and judges it if it is
    /// whole. `leaves` has theirs next, if the torrent has leaves.
    fn judge(
        &mut self,
        torrent: &Torrent,
        piece: PieceIndex,
        fresh: &[(u32, Bytes)],
        leaves: &mut impl Iterator<Item = Sha256Hash>,
    ) -> Result<Option<Verdict>, DiskError> {
        let mut reader =
            Reader { torrent, handles: &self.shared.handles, scratch: &mut self.scratch };
        let Entry::Occupied(mut entry) = self.partials.entry((torrent.key, piece)) else {
            unreachable!("its blocks were written just now");
        };
        if !entry.get_mut().add(fresh, leaves, piece, &mut reader)? {
            // Blocks written earlier are gone: somebody cut the file. Start the piece again.
            entry.remove();
            return Ok(Some(Verdict::Wrong));
        }
        if !entry.get().is_complete() {
            return Ok(None);
        }
        entry.remove().verdict(piece, &mut reader).map(Some)
    }

    /// Reads blocks of one piece for a peer; a piece not hashed in this process is hashed first.
    pub(super) fn read(
        &mut self,
        torrent: &Torrent,
        peer: PeerKey,
        piece: PieceIndex,
        blocks: Vec<Block>,
    ) {
        match self.read_trusted(torrent, piece, &blocks) {
            Ok(Some(blocks)) => self.shared.emit(DiskEvent::Read {
                torrent: torrent.key,
                peer,
                blocks,
                failed: Vec::new(),
            }),
            failure @ (Ok(None) | Err(_)) => {
                match failure {
                    // It may go the next time.
                    Err(error) => self.shared.emit_error(torrent, error),
                    Ok(_) => self.shared.emit(DiskEvent::Lost { torrent: torrent.key, piece }),
                }
                self.shared.emit(DiskEvent::Read {
                    torrent: torrent.key,
                    peer,
                    blocks: Vec::new(),
                    failed: blocks,
                });
            }
        }
    }

    fn read_trusted(
        &mut self,
        torrent: &Torrent,
        piece: PieceIndex,
        blocks: &[Block],
    ) -> Result<Option<Vec<(Block, Bytes)>>, DiskError> {
        for file in torrent.info.geometry.files_of(piece) {
            // A file that cannot be looked at is found out when it is read.
            if torrent.is_wanted(file)
                && let Ok(open) = self.shared.handles.get(torrent, Place::File(file), false)
                && let Ok(metadata) = open.metadata()
            {
                torrent.watch(file, &metadata);
            }
        }
        if torrent.is_untrusted(piece) {
            let mut reader =
                Reader { torrent, handles: &self.shared.handles, scratch: &mut self.scratch };
            match reader.check(piece)? {
                Found::Right => torrent.trust(piece),
                Found::Wrong | Found::Missing => return Ok(None),
            }
        }
        read_blocks(torrent, self.shared, blocks)
    }
}

/// Writes ascending blocks of one piece, each run of them in a file with one call. Bytes that no
/// file holds are not written.
fn write_blocks(
    torrent: &Torrent,
    handles: &Handles,
    piece: PieceIndex,
    blocks: &[(u32, Bytes)],
) -> Result<(), DiskError> {
    struct Batch<'a> {
        place: Place,
        at: u64,
        end: u64,
        slices: Vec<IoSlice<'a>>,
    }
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for (index, bytes) in blocks {
        let block = torrent.info.geometry.block(piece, *index);
        let mut bytes = &bytes[..];
        for run in torrent.runs(piece, block.offset, block.len) {
            let (part, rest) = bytes.split_at(run.len);
            bytes = rest;
            let Some((place, at)) = run.kept else { continue };
            let end = at + run.len as u64;
            match batches.last_mut() {
                Some(batch) if batch.place == place && batch.end == at => {
                    batch.slices.push(IoSlice::new(part));
                    batch.end = end;
                }
                Some(_) | None => {
                    let slices = vec![IoSlice::new(part)];
                    batches.push(Batch { place, at, end, slices });
                }
            }
        }
    }
    for mut batch in batches {
        let file = handles.get(torrent, batch.place, true)?;
        torrent.mark_dirty(batch.place);
        let written = if torrent.was_there(batch.place, &file) {
            let mut at = batch.at;
            batch.slices.iter().try_for_each(|slice| {
                write_differing(&file, slice, at)?;
                at += slice.len() as u64;
                Ok(())
            })
        } else {
            write_all_at(&file, &mut batch.slices, batch.at)
        };
        written.map_err(|error| DiskError {
            path: torrent.paths_of(batch.place).0,
            op: DiskOp::Write,
            error,
        })?;
    }
    Ok(())
}

/// Reads blocks of one piece, contiguous ones with one call, many into one pooled buffer. `None`
/// if the files hold less.
fn read_blocks(
    torrent: &Torrent,
    shared: &Shared,
    blocks: &[Block],
) -> Result<Option<Vec<(Block, Bytes)>>, DiskError> {
    let mut out = Vec::with_capacity(blocks.len());
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut total = 0;
        let fits = |block: &&Block| {
            total += block.len as usize;
            total <= BUFFER_PAYLOAD_LEN
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (group, later) = rest.split_at(count);
        rest = later;
        let total: usize = group.iter().map(|block| block.len as usize).sum();

        let pooled = if total > SMALL_READ_LEN && total <= BUFFER_PAYLOAD_LEN {
            // The threads must not wait for a peer to take its bytes: with all buffers out, memory
            // comes from the allocator, bounded by the engine's limit of reads per peer.
            shared.pool.try_take()
        } else {
            None
        };
        let bytes = if let Some(mut buffer) = pooled {
            if !read_group(torrent, &shared.handles, group, &mut buffer[..total])? {
                return Ok(None);
            }
            buffer.freeze(..total)
        } else {
            let mut memory = vec![0; total];
            if !read_group(torrent, &shared.handles, group, &mut memory)? {
                return Ok(None);
            }
            Bytes::from(memory)
        };
        let mut at = 0;
        for &block in group {
            let end = at + block.len as usize;
            out.push((block, bytes.slice(at..end)));
            at = end;
        }
    }
    Ok(Some(out))
}

/// Fills `buffer` with the blocks one after the other.
fn read_group(
    torrent: &Torrent,
    handles: &Handles,
    group: &[Block],
    mut buffer: &mut [u8],
) -> Result<bool, DiskError> {
    let runs = group.chunk_by(|one, next| one.offset + one.len == next.offset);
    for run in runs {
        let len = run.iter().map(|block| block.len).sum::<u32>();
        let (bytes, rest) = buffer.split_at_mut(len as usize);
        buffer = rest;
        if !read_block(torrent, handles, Block { len, ..run[0] }, bytes)? {
            return Ok(false);
        }
    }
    Ok(true)
}
