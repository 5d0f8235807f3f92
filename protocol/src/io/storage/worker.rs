//! The disk's threads: each takes jobs from its queue, and checks pieces when there are none.

use super::check::{Check, Share};
use super::handles::{DiskError, Handles};
use super::hashing::{Partial, SCRATCH_LEN};
use super::torrent::{Place, Torrent};
use super::{DiskEvent, DiskOp, TorrentKey};
use crate::geometry::Block;
use crate::ids::{FileIndex, PeerKey, PieceIndex};
use crate::io::buffers::BufferPool;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// With more files than this to flush, the whole file system is flushed with one call (Linux).
#[cfg(target_os = "linux")]
const SINGLE_FLUSHES_MAX: usize = 256;

/// Jobs taken from the queue in one go.
const JOBS_TAKEN: usize = 64;
/// Writes that are queued one after the other are done together up to this many bytes: their blocks
/// are hashed side by side, and the sockets do not wait long for their budget.
const WRITE_GROUP_BYTES: u64 = 1 << 20;

/// An order in a thread's queue.
#[derive(Debug)]
pub(super) enum Job {
    Write(Write),
    Read { torrent: Arc<Torrent>, peer: PeerKey, piece: PieceIndex, blocks: Vec<Block> },
    Check(Arc<Check>),
    Barrier(Arc<Barrier>),
}

/// Blocks of one piece, to be written and hashed.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) torrent: Arc<Torrent>,
    pub(super) piece: PieceIndex,
    pub(super) blocks: Vec<(Block, Bytes)>,
}

impl Write {
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|(block, _)| u64::from(block.len)).sum()
    }
}

/// A task for when every thread is done with what it had queued: the last to arrive does it.
#[derive(Debug)]
pub(super) struct Barrier {
    missing: AtomicUsize,
    task: Mutex<Option<Task>>,
}

impl Barrier {
    pub(super) fn new(threads: usize, task: Task) -> Self {
        Self { missing: AtomicUsize::new(threads), task: Mutex::new(Some(task)) }
    }

    /// The task, if this thread is the last to arrive.
    fn arrive(&self) -> Option<Task> {
        let last = self.missing.fetch_sub(1, Ordering::AcqRel) == 1;
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if last { task.take() } else { None }
    }

    /// The torrent that each thread is to forget.
    fn removes(&self) -> Option<TorrentKey> {
        match self.task.lock().unwrap_or_else(PoisonError::into_inner).as_ref()? {
            Task::Remove { torrent } => Some(torrent.key),
            Task::Complete { .. } | Task::Sync { .. } => None,
        }
    }
}

/// What to do once, after all that was queued before.
#[derive(Debug)]
pub(super) enum Task {
    Remove {
        torrent: Arc<Torrent>,
    },
    Complete {
        torrent: Arc<Torrent>,
        executable_bits: bool,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Sync {
        torrent: Arc<Torrent>,
        reply: oneshot::Sender<io::Result<()>>,
    },
}

/// What all threads have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) handles: Handles,
    pub(super) pool: BufferPool,
    events: mpsc::Sender<DiskEvent>,
}

impl Shared {
    pub(super) fn new(pool: BufferPool, events: mpsc::Sender<DiskEvent>) -> Self {
        Self { handles: Handles::default(), pool, events }
    }

    /// Tells the engine; waits while it has too much to read.
    pub(super) fn emit(&self, event: DiskEvent) {
        if self.events.blocking_send(event).is_err() {
            tracing::trace!("a disk event after the engine's end");
        }
    }

    pub(super) fn emit_error(&self, torrent: &Torrent, error: DiskError) {
        let DiskError { path, op, error } = error;
        self.emit(DiskEvent::Error { torrent: torrent.key, path, op, error });
    }

    /// Notes in the resume log that `piece` was verified.
    pub(super) fn record(&self, torrent: &Torrent, piece: PieceIndex) {
        let Some(log) = &torrent.resume else { return };
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if !log.lacks(piece) {
            return;
        }
        let recorded = self.handles.get(torrent, Place::Resume, true).and_then(|file| {
            torrent.mark_dirty(Place::Resume);
            log.record(&file, piece).map_err(|error| DiskError {
                path: torrent.paths_of(Place::Resume).0,
                op: DiskOp::Resume,
                error,
            })
        });
        drop(log);
        if let Err(error) = recorded {
            self.emit_error(torrent, error);
        }
    }
}

/// One thread's state.
pub(super) struct Worker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) partials: HashMap<(TorrentKey, PieceIndex), Partial>,
    pub(super) checks: VecDeque<Share>,
    pub(super) scratch: Vec<u8>,
}

/// Works until the queue is closed and empty.
pub(super) fn run(shared: &Shared, mut jobs: mpsc::Receiver<Job>) {
    let mut worker = Worker {
        shared,
        partials: HashMap::new(),
        checks: VecDeque::new(),
        scratch: vec![0; SCRATCH_LEN],
    };
    let mut taken = Vec::with_capacity(JOBS_TAKEN);
    loop {
        if worker.checks.is_empty() {
            if jobs.blocking_recv_many(&mut taken, JOBS_TAKEN) == 0 {
                return;
            }
        } else {
            match jobs.try_recv() {
                Ok(job) => taken.push(job),
                Err(mpsc::error::TryRecvError::Empty) => worker.check_step(),
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            }
        }
        let mut batch = taken.drain(..).peekable();
        while let Some(job) = batch.next() {
            match job {
                Job::Write(first) => {
                    let mut bytes = first.bytes();
                    let mut group = vec![first];
                    while bytes < WRITE_GROUP_BYTES
                        && let Some(Job::Write(next)) =
                            batch.next_if(|job| matches!(job, Job::Write(_)))
                    {
                        bytes += next.bytes();
                        group.push(next);
                    }
                    worker.write(group);
                }
                Job::Read { torrent, peer, piece, blocks } => {
                    worker.read(&torrent, peer, piece, blocks);
                }
                Job::Check(check) => worker.checks.push_back(Share::new(check)),
                Job::Barrier(barrier) => {
                    if let Some(torrent) = barrier.removes() {
                        worker.partials.retain(|(key, _), _| *key != torrent);
                    }
                    if let Some(task) = barrier.arrive() {
                        run_task(shared, task);
                    }
                }
            }
        }
    }
}

fn run_task(shared: &Shared, task: Task) {
    let (result, reply) = match task {
        Task::Remove { torrent } => return shared.handles.close_all(torrent.key),
        Task::Complete { torrent, executable_bits, reply } => {
            (complete(shared, &torrent, executable_bits), reply)
        }
        Task::Sync { torrent, reply } => (sync(shared, &torrent), reply),
    };
    if reply.send(result).is_err() {
        tracing::trace!("nobody waits for the disk's answer any more");
    }
}

/// Exact lengths, empty files, executable bits.
fn complete(shared: &Shared, torrent: &Torrent, executable_bits: bool) -> io::Result<()> {
    // What counts is what lies at the paths, not what was open: a file may have been deleted.
    shared.handles.close_all(torrent.key);
    for (index, entry) in torrent.info.files.iter().enumerate() {
        let file = FileIndex(u32::try_from(index).expect("files are counted in u32"));
        // A symlink is the caller's to make: here it would be a way out of the folder.
        if !torrent.is_wanted(file) || entry.symlink.is_some() {
            continue;
        }
        let (path, _) = torrent.paths_of(Place::File(file));
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot finish {}: {error}", path.display()))
        };
        let on_disk = std::fs::symlink_metadata(&path).map(|metadata| metadata.len()).ok();
        if on_disk != Some(entry.length) {
            let place = Place::File(file);
            let open = shared.handles.get(torrent, place, true).map_err(DiskError::into_io)?;
            if open.metadata().map_err(named)?.len() < entry.length {
                return Err(named(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter since it was verified: check it again",
                )));
            }
            open.set_len(entry.length).map_err(named)?;
            torrent.mark_dirty(place);
        }
        if executable_bits && entry.executable {
            set_executable(&path).map_err(named)?;
        }
    }
    Ok(())
}

/// Whoever may read the file may run it.
#[cfg(unix)]
fn set_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut permissions = std::fs::metadata(path)?.permissions();
    let mode = permissions.mode();
    let wanted = mode | ((mode & 0o444) >> 2);
    if mode == wanted {
        return Ok(());
    }
    permissions.set_mode(wanted);
    std::fs::set_permissions(path, permissions)
}

#[cfg(not(unix))]
fn set_executable(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Flushes what was written since the last time and closes what is open for writing.
fn sync(shared: &Shared, torrent: &Torrent) -> io::Result<()> {
    let dirty = torrent.take_dirty();
    let flushed = flush(torrent, &dirty);
    // Nothing may be called flushed that was not: a second try would be told that all is well.
    let result = match flushed.as_ref().err().map(|error| (error.kind(), error.to_string())) {
        Some(failed) => Err(torrent.unflushed.get_or_init(|| failed)),
        None => torrent.unflushed.get().map_or(Ok(()), Err),
    };
    let result = result.map_err(|(kind, why)| io::Error::new(*kind, why.clone()));
    for place in dirty {
        match place {
            _ if result.is_err() => torrent.mark_dirty(place),
            Place::File(file) => {
                let (now, before) = torrent.paths_of(place);
                let found = now
                    .metadata()
                    .or_else(|error| before.map_or(Err(error), |before| before.metadata()));
                if let Ok(metadata) = found {
                    torrent.settle(file, &metadata);
                }
            }
            Place::Parts | Place::Resume => {}
        }
    }
    shared.handles.close_writable(torrent.key);
    result
}

fn flush(torrent: &Torrent, dirty: &BTreeSet<Place>) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for &place in dirty {
        folders.extend(torrent.paths_of(place).0.parent().map(Path::to_path_buf));
    }
    #[cfg(target_os = "linux")]
    if dirty.len() > SINGLE_FLUSHES_MAX {
        return flush_file_systems(&folders);
    }
    // The resume log comes last in the order of places: it never vouches for less than flushed.
    for &place in dirty {
        let (now, before) = torrent.paths_of(place);
        // Not through the pool: a file that its owner removed meanwhile must not be made again.
        let mut options = File::options();
        options.read(true).write(true);
        let flushed = options
            .open(&now)
            .or_else(|error| before.map_or(Err(error), |before| options.open(before)))
            .and_then(|file| file.sync_all());
        match flushed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&now, &error)),
        }
    }
    flush_folders(&folders)
}

/// So that the names of new files outlive a power failure.
#[cfg(unix)]
fn flush_folders(folders: &BTreeSet<PathBuf>) -> io::Result<()> {
    for folder in folders {
        match File::open(folder).and_then(|open| open.sync_all()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(folder, &error)),
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn flush_folders(_: &BTreeSet<PathBuf>) -> io::Result<()> {
    Ok(())
}

/// One call per file system instead of one per file.
#[cfg(target_os = "linux")]
fn flush_file_systems(folders: &BTreeSet<PathBuf>) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mut done = BTreeSet::new();
    for folder in folders {
        let open = match File::open(folder) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(named(folder, &error)),
        };
        let device = open.metadata().map_err(|error| named(folder, &error))?.dev();
        if done.insert(device) {
            rustix::fs::syncfs(&open).map_err(|error| named(folder, &error.into()))?;
        }
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot flush {}: {error}", path.display()))
}
