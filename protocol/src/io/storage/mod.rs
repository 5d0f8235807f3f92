//! The disk side: blocks to files, files to blocks, and whether a piece is right.
//!
//! What goes in: orders of the engine ([`Disk::write`], [`Disk::read`], [`Disk::check`]…), none of
//! which waits. What comes out: [`DiskEvent`]s on one bounded channel. A few threads do the work; a
//! piece always meets the same thread, so the state of its hash needs no lock and its writes keep
//! their order. Payload is hashed while it is in memory, written with one positioned call per run
//! of blocks, and never mapped. Files are opened for reading until a write is needed, grow sparse,
//! and at most [`HANDLES_MAX`] are open at once.
//!
//! The engine bounds what is outstanding: [`WRITE_BYTES_MAX`] handed to `write` and not yet
//! answered by [`DiskEvent::Written`], and its own limit of reads per peer. It must keep draining
//! the events, because the threads wait when the channel is full.
//!
//! **Files that are not wanted.** Only v1 torrents have pieces with bytes of several files. Where a
//! wanted file shares a piece with one that is not, the bytes of the latter go to one side file
//! (`….parts`), a slot per shared piece, so that the piece can be hashed again and served while the
//! unwanted file is never created.
//!
//! What it must never do: block the caller, write through a symbolic link below the torrent's own
//! folder, write outside the mapped paths, or call a piece right that it has not hashed.

mod check;
mod handles;
mod hashing;
mod overwrite;
pub mod resume;
mod torrent;
mod transfer;
mod worker;

use crate::bitfield::Bitfield;
use crate::geometry::Block;
use crate::ids::{PeerKey, PieceIndex};
use crate::io::buffers::BufferPool;
use crate::metainfo::Info;
use bytes::Bytes;
use check::Check;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use torrent::Torrent;
use worker::{Barrier, Job, Shared, Task, Write};

pub use handles::HANDLES_MAX;

/// Payload the engine may have handed to [`Disk::write`] and not yet got back as
/// [`DiskEvent::Written`].
pub const WRITE_BYTES_MAX: u64 = 8 << 20;

/// Jobs a thread queues. 8 MiB of single blocks are 512 writes; the rest is for reads, of which an
/// engine with 50 peers has far fewer out. Beyond it a job is refused with [`Busy`].
pub const JOBS_MAX: usize = 16 * 1024;

/// The part of [`JOBS_MAX`] that reads may take.
const READ_JOBS_MAX: usize = JOBS_MAX / 4;

/// What lies next to each other within this many bytes meets the same thread.
const STRIDE_BYTES: u32 = 1 << 20;

/// Names a torrent towards the disk, unique for the life of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TorrentKey(pub u32);

/// What became of a piece whose last block was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what the torrent says, and recorded in the resume log.
    Verified,
    /// It is not. Its state is forgotten: all of its blocks must be written again.
    Wrong,
    /// A hybrid torrent that contradicts itself: SHA-1 passes where SHA-256 fails. Nobody who sent
    /// the blocks is to blame, and the piece is not accepted.
    Inconsistent,
}

/// What was being done when a disk error happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Making a file or its folders, or opening it for writing.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Writing the resume log.
    Resume,
}

impl std::fmt::Display for DiskOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Resume => "record progress in",
        })
    }
}

/// What the disk has to say.
#[derive(Debug)]
pub enum DiskEvent {
    /// All blocks of `piece` were written and hashed.
    Piece {
        /// The torrent.
        torrent: TorrentKey,
        /// The piece.
        piece: PieceIndex,
        /// Right or not.
        verdict: Verdict,
    },
    /// One or several [`Disk::write`]s to a piece are done (written, failed or duplicates): their
    /// buffers are free. Comes before the [`DiskEvent::Piece`] they may have completed.
    Written {
        /// The torrent.
        torrent: TorrentKey,
        /// The piece.
        piece: PieceIndex,
        /// Payload bytes of them.
        bytes: u64,
    },
    /// One [`Disk::read`], or the part of it in one piece, is done. Every block ordered comes back
    /// exactly once, here or in `failed`.
    Read {
        /// The torrent.
        torrent: TorrentKey,
        /// For whom.
        peer: PeerKey,
        /// What was read.
        blocks: Vec<(Block, Bytes)>,
        /// What could not be; a [`DiskEvent::Lost`] or [`DiskEvent::Error`] went before.
        failed: Vec<Block>,
    },
    /// The files no longer hold `piece`: too short, gone, or its hash is not right (any more).
    Lost {
        /// The torrent.
        torrent: TorrentKey,
        /// The piece.
        piece: PieceIndex,
    },
    /// Results of [`Disk::check`], in batches, roughly in ascending order.
    Checked {
        /// The torrent.
        torrent: TorrentKey,
        /// Pieces and whether they are right on disk.
        pieces: Vec<(PieceIndex, bool)>,
    },
    /// All pieces of one [`Disk::check`] were reported.
    CheckDone {
        /// The torrent.
        torrent: TorrentKey,
    },
    /// The disk refused. What was verified before stays verified; the blocks of the failed job are
    /// not kept, and the piece they belong to starts again.
    Error {
        /// The torrent.
        torrent: TorrentKey,
        /// The file.
        path: PathBuf,
        /// What was tried.
        op: DiskOp,
        /// Why it failed: full, read-only, broken…
        error: io::Error,
    },
}

/// A job refused because [`JOBS_MAX`] are queued or its torrent was removed, given back.
#[derive(Debug, thiserror::Error)]
#[error("the disk takes no more orders now")]
pub struct Busy<T>(pub T);

/// The threads that do the disk's work. Dropping it lets them finish what is queued and end.
#[derive(Debug)]
pub struct Disk {
    queues: Vec<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    torrents: HashMap<TorrentKey, Arc<Torrent>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// What [`Disk::add`] needs to know of a torrent.
#[derive(Debug)]
pub struct AddFiles {
    /// The torrent.
    pub info: Arc<Info>,
    /// The backing path of each file, absolute, by `FileIndex`.
    pub files: Vec<PathBuf>,
    /// Which files to make and write, by `FileIndex`.
    pub wanted: Vec<bool>,
    /// Where to record verified pieces.
    pub resume: Option<PathBuf>,
}

impl Disk {
    /// Starts `threads` threads (at least one) that report to `events`; what is read to be served
    /// goes into buffers of `pool`.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(
        threads: usize,
        pool: BufferPool,
        events: mpsc::Sender<DiskEvent>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(pool, events));
        let (mut queues, mut handles) = (Vec::new(), Vec::new());
        for index in 0..threads.max(1) {
            let (sender, jobs) = mpsc::channel(JOBS_MAX);
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("disk-{index}"));
            handles.push(thread.spawn(move || worker::run(&shared, jobs))?);
            queues.push(sender);
        }
        Ok(Self { queues, shared, torrents: HashMap::new(), threads: handles })
    }

    /// Takes on a torrent. Touches no file yet.
    ///
    /// `files` and `wanted` must have one entry per file of the torrent.
    pub fn add(&mut self, torrent: TorrentKey, files: AddFiles) {
        self.torrents.insert(torrent, Arc::new(Torrent::new(torrent, files)));
    }

    /// The same bytes live at these paths now, or will in a moment: call it before or after the
    /// renames. A file that is not (yet) at its new path is looked for at the one before. Nothing is
    /// hashed again; open handles are closed.
    pub fn remap(&self, torrent: TorrentKey, files: Vec<PathBuf>) {
        if let Some(torrent) = self.torrents.get(&torrent) {
            torrent.remap(files);
            self.shared.handles.close_all(torrent.key);
        }
    }

    /// Forgets a torrent: its files are closed once what is queued is done.
    pub fn remove(&mut self, torrent: TorrentKey) {
        if let Some(torrent) = self.torrents.remove(&torrent) {
            torrent.stop_checks();
            self.after_all(Task::Remove { torrent });
        }
    }

    /// Marks pieces that the caller believes in without their having been hashed in this process:
    /// each is hashed before it is first served, and [`DiskEvent::Lost`] if it is not right.
    pub fn distrust(&self, torrent: TorrentKey, pieces: &Bitfield) {
        if let Some(torrent) = self.torrents.get(&torrent) {
            torrent.distrust(pieces);
        }
    }

    /// Writes blocks of one piece, each one of `Geometry::block`, and hashes them on the way. A
    /// block that the piece has already is dropped. Contiguous ascending blocks cost one call.
    ///
    /// # Errors
    /// [`Busy`] with the blocks when the queue is full or the torrent is not known: then no
    /// [`DiskEvent::Written`] will come for them.
    pub fn write(
        &self,
        torrent: TorrentKey,
        piece: PieceIndex,
        blocks: Vec<(Block, Bytes)>,
    ) -> Result<(), Busy<Vec<(Block, Bytes)>>> {
        let Some(torrent) = self.torrents.get(&torrent) else { return Err(Busy(blocks)) };
        let job = Job::Write(Write { torrent: Arc::clone(torrent), piece, blocks });
        self.queue(torrent, piece).try_send(job).map_err(|refused| match refused.into_inner() {
            Job::Write(Write { blocks, .. }) => Busy(blocks),
            Job::Read { .. } | Job::Check(_) | Job::Barrier(_) => Busy(Vec::new()),
        })
    }

    /// Reads blocks to serve them to `peer`: one event per piece they are in.
    ///
    /// # Errors
    /// [`Busy`] with the blocks that were not queued, because the queue is full or the torrent is
    /// not known.
    pub fn read(
        &self,
        torrent: TorrentKey,
        peer: PeerKey,
        mut blocks: Vec<Block>,
    ) -> Result<(), Busy<Vec<Block>>> {
        let Some(torrent) = self.torrents.get(&torrent) else { return Err(Busy(blocks)) };
        while let Some(first) = blocks.first() {
            let piece = first.piece;
            let same = blocks.iter().take_while(|block| block.piece == piece).count();
            let queue = self.queue(torrent, piece);
            // What a peer asks for may not take the room of what was verified for us.
            if queue.capacity() < JOBS_MAX - READ_JOBS_MAX {
                return Err(Busy(blocks));
            }
            let Ok(slot) = queue.try_reserve() else { return Err(Busy(blocks)) };
            let rest = blocks.split_off(same);
            slot.send(Job::Read { torrent: Arc::clone(torrent), peer, piece, blocks });
            blocks = rest;
        }
        Ok(())
    }

    /// Hashes these pieces from disk in the background, on all threads, giving way to reads and
    /// writes after each piece. Right ones are recorded in the resume log.
    pub fn check(&self, torrent: TorrentKey, pieces: Bitfield) {
        let Some(torrent) = self.torrents.get(&torrent) else { return };
        let check = Arc::new(Check::new(Arc::clone(torrent), pieces, self.queues.len()));
        for queue in &self.queues {
            send_or_spawn(queue, Job::Check(Arc::clone(&check)));
        }
    }

    /// After everything queued so far: gives wanted files their exact length, makes the empty ones,
    /// and sets the executable bit where the torrent says so if `executable_bits`.
    pub fn complete(
        &self,
        torrent: TorrentKey,
        executable_bits: bool,
        reply: oneshot::Sender<io::Result<()>>,
    ) {
        if let Some(torrent) = self.torrents.get(&torrent) {
            self.after_all(Task::Complete { torrent: Arc::clone(torrent), executable_bits, reply });
        }
    }

    /// After everything queued so far: flushes the files written, their folders and the resume log
    /// to the medium, and closes what is open for writing. The reply is dropped if the torrent is
    /// not known.
    pub fn sync(&self, torrent: TorrentKey, reply: oneshot::Sender<io::Result<()>>) {
        if let Some(torrent) = self.torrents.get(&torrent) {
            self.after_all(Task::Sync { torrent: Arc::clone(torrent), reply });
        }
    }

    /// Waits until the threads have done what is queued and ended. Blocks: not for an async task.
    /// Events must be drained, or their receiver dropped, meanwhile.
    pub fn stop(mut self) {
        for torrent in self.torrents.values() {
            torrent.stop_checks();
        }
        self.queues.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a disk thread had panicked");
            }
        }
    }

    fn queue(&self, torrent: &Torrent, piece: PieceIndex) -> &mpsc::Sender<Job> {
        // Neighbours meet the same thread, which hashes their blocks side by side; but a download in
        // order keeps all threads busy.
        let stride = (STRIDE_BYTES / torrent.info.geometry.piece_length()).max(1);
        let number = torrent.key.0 as usize + (piece.0 / stride) as usize;
        &self.queues[number % self.queues.len()]
    }

    fn after_all(&self, task: Task) {
        let barrier = Arc::new(Barrier::new(self.queues.len(), task));
        for queue in &self.queues {
            send_or_spawn(queue, Job::Barrier(Arc::clone(&barrier)));
        }
    }
}

/// Queues a job that cannot be refused and of which there are few.
fn send_or_spawn(queue: &mpsc::Sender<Job>, job: Job) {
    if let Err(mpsc::error::TrySendError::Full(job)) = queue.try_send(job) {
        // A full queue is rare; a short-lived thread waits in the engine's stead.
        let queue = queue.clone();
        std::thread::spawn(move || {
            if queue.blocking_send(job).is_err() {
                tracing::debug!("the disk stopped before a queued order");
            }
        });
    }
}

#[cfg(test)]
mod tests;
