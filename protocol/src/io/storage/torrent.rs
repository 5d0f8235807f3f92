//! What the threads share of one torrent: where its bytes live, and what is known of them.

use super::resume::ResumeLog;
use super::{AddFiles, TorrentKey};
use crate::bitfield::Bitfield;
use crate::geometry::Segment;
use crate::ids::{FileIndex, PieceIndex};
use crate::metainfo::Info;
use std::collections::{BTreeSet, HashMap};
use std::fs::{File, Metadata};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

/// A file on disk that belongs to a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// The backing file of one of the torrent's files.
    File(FileIndex),
    /// The side file: bytes of unwanted files in pieces shared with wanted ones.
    Parts,
    /// The resume log.
    Resume,
}

/// A run of bytes of a piece and where it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The file and the offset in it; `None` for zeros that no file holds.
    pub(super) kept: Option<(Place, u64)>,
    /// Bytes.
    pub(super) len: usize,
}

#[derive(Debug)]
pub(super) struct Torrent {
    pub(super) key: TorrentKey,
    pub(super) info: Arc<Info>,
    wanted: Box<[bool]>,
    paths: RwLock<Paths>,
    /// The side file, and the pieces that have a slot in it, ascending.
    parts: Option<(PathBuf, Box<[u32]>)>,
    resume_path: Option<PathBuf>,
    pub(super) resume: Option<Mutex<ResumeLog>>,
    /// Files that were opened for writing, and whether there was anything in them before.
    were_there: Mutex<HashMap<Place, bool>>,
    /// Files written since the last sync.
    dirty: Mutex<BTreeSet<Place>>,
    /// Why something could not be flushed. The system tells that once, and then forgets what it lost.
    pub(super) unflushed: OnceLock<(io::ErrorKind, String)>,
    any_untrusted: AtomicBool,
    untrusted: Mutex<Bitfield>,
    /// Size and time of files as they were when their pieces were last known to be right.
    stamps: Mutex<HashMap<FileIndex, Stamp>>,
    stopped: AtomicBool,
    /// The verdict of the hash over a full piece of zeros: its root or SHA-1.
    pub(super) zero_piece: OnceLock<Vec<u8>>,
}

/// What tells that a file was changed by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok() }
    }
}

#[derive(Debug)]
struct Paths {
    now: Vec<PathBuf>,
    /// Where the files were before the last remap; empty if there was none.
    before: Vec<PathBuf>,
}

impl Torrent {
    pub(super) fn new(key: TorrentKey, add: AddFiles) -> Self {
        let AddFiles { info, files, wanted, resume } = add;
        let file_count = info.files.len();
        assert_eq!((files.len(), wanted.len()), (file_count, file_count), "one entry per file");
        let shared = shared_pieces(&info, &wanted);
        let parts = (!shared.is_empty()).then(|| {
            let beside = resume.as_ref().or_else(|| {
                wanted.iter().zip(&files).find(|(wanted, _)| **wanted).map(|(_, path)| path)
            });
            let mut path = beside.cloned().expect("a shared piece has a wanted file");
            path.as_mut_os_string().push(".parts");
            (path, shared)
        });
        let pieces = info.geometry.piece_count();
        let log = resume.as_ref().map(|_| Mutex::new(ResumeLog::new(&info.hashes, pieces)));
        Self {
            key,
            wanted: wanted.into(),
            paths: RwLock::new(Paths { now: files, before: Vec::new() }),
            parts,
            resume_path: resume,
            resume: log,
            were_there: Mutex::default(),
            dirty: Mutex::default(),
            unflushed: OnceLock::new(),
            any_untrusted: AtomicBool::new(false),
            untrusted: Mutex::new(Bitfield::empty(pieces)),
            stamps: Mutex::default(),
            stopped: AtomicBool::new(false),
            zero_piece: OnceLock::new(),
            info,
        }
    }

    /// True if the file is made and written.
    pub(super) fn is_wanted(&self, file: FileIndex) -> bool {
        self.wanted[file.get()]
    }

    /// Where `len` bytes of `piece` from `offset` are kept, in order.
    pub(super) fn runs(
        &self,
        piece: PieceIndex,
        offset: u32,
        len: u32,
    ) -> impl Iterator<Item = Run> + '_ {
        let mut at = offset;
        self.info.geometry.segments(piece, offset, len).map(move |segment| {
            let start = at;
            at += segment.len();
            let kept = match segment {
                Segment::Pad { .. } => None,
                Segment::File { file, offset, .. } => {
                    Some(self.slot(piece, start, file).unwrap_or((Place::File(file), offset)))
                }
            };
            Run { kept, len: segment.len() as usize }
        })
    }

    /// The place in the side file, if that is where the bytes of `file` in `piece` belong.
    fn slot(&self, piece: PieceIndex, offset: u32, file: FileIndex) -> Option<(Place, u64)> {
        let (_, pieces) = self.parts.as_ref()?;
        if self.is_wanted(file) {
            return None;
        }
        let slot = pieces.binary_search(&piece.0).ok()? as u64;
        let piece_length = u64::from(self.info.geometry.piece_length());
        Some((Place::Parts, slot * piece_length + u64::from(offset)))
    }

    /// The paths to try in turn for `place`: where it is, and where it was before the last remap.
    pub(super) fn paths_of(&self, place: Place) -> (PathBuf, Option<PathBuf>) {
        match place {
            Place::File(file) => {
                let paths = self.paths.read().unwrap_or_else(PoisonError::into_inner);
                let before = paths.before.get(file.get()).cloned();
                (paths.now[file.get()].clone(), before)
            }
            Place::Parts => {
                let (path, _) = self.parts.as_ref().expect("only runs of a torrent with parts");
                (path.clone(), None)
            }
            Place::Resume => {
                let path = self.resume_path.clone();
                (path.expect("only used by a torrent with a resume log"), None)
            }
        }
    }

    pub(super) fn remap(&self, files: Vec<PathBuf>) {
        assert_eq!(files.len(), self.wanted.len(), "one path per file");
        let mut paths = self.paths.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut paths.now, files);
        paths.before = before;
    }

    /// True if the file at `place` held something before this process first wrote to it. To be asked
    /// before each write.
    pub(super) fn was_there(&self, place: Place, file: &File) -> bool {
        let mut were_there = self.were_there.lock().unwrap_or_else(PoisonError::into_inner);
        // Without an answer it is compared: that is never wrong.
        let holds = || file.metadata().map_or(true, |metadata| metadata.len() > 0);
        *were_there.entry(place).or_insert_with(holds)
    }

    pub(super) fn mark_dirty(&self, place: Place) {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
    }

    /// The files written since this was asked last.
    pub(super) fn take_dirty(&self) -> BTreeSet<Place> {
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn distrust(&self, pieces: &Bitfield) {
        let mut untrusted = self.untrusted.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in pieces.iter() {
            untrusted.insert(piece);
        }
        self.any_untrusted.store(!untrusted.is_empty(), Ordering::Release);
    }

    /// The file has been flushed and is as we left it.
    pub(super) fn settle(&self, file: FileIndex, metadata: &Metadata) {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.insert(file, Stamp::of(metadata));
    }

    /// Looks whether somebody has changed a file since it was last known to be right: then all of its
    /// pieces are hashed again before they are served. Games write into their own files, and disks
    /// are edited behind our back. A file that we are writing ourselves is left out.
    pub(super) fn watch(&self, file: FileIndex, metadata: &Metadata) {
        let ours = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if ours.contains(&Place::File(file)) {
            return;
        }
        drop(ours);
        let stamp = Stamp::of(metadata);
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = stamps.insert(file, stamp);
        drop(stamps);
        if before.is_some_and(|before| before != stamp) {
            let mut pieces = Bitfield::empty(self.info.geometry.piece_count());
            for piece in self.info.geometry.pieces_of(file) {
                pieces.insert(PieceIndex(piece));
            }
            self.distrust(&pieces);
        }
    }

    /// True if `piece` must be hashed before it is served.
    pub(super) fn is_untrusted(&self, piece: PieceIndex) -> bool {
        self.any_untrusted.load(Ordering::Acquire)
            && self.untrusted.lock().unwrap_or_else(PoisonError::into_inner).has(piece)
    }

    /// `piece` has just been hashed and found right.
    pub(super) fn trust(&self, piece: PieceIndex) {
        if self.any_untrusted.load(Ordering::Acquire) {
            let mut untrusted = self.untrusted.lock().unwrap_or_else(PoisonError::into_inner);
            untrusted.remove(piece);
            self.any_untrusted.store(!untrusted.is_empty(), Ordering::Release);
        }
    }

    /// Ends the background checks of this torrent after their current piece.
    pub(super) fn stop_checks(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn checks_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// The pieces with bytes of both wanted and unwanted files.
fn shared_pieces(info: &Info, wanted: &[bool]) -> Box<[u32]> {
    let mut pieces = BTreeSet::new();
    for (index, _) in wanted.iter().enumerate().filter(|(_, wanted)| !**wanted) {
        let file = FileIndex(u32::try_from(index).expect("files are counted in u32"));
        let range = info.geometry.pieces_of(file);
        // Only the first and the last piece of a file can hold bytes of others.
        for piece in [range.start, range.end.saturating_sub(1)] {
            if range.contains(&piece)
                && info.geometry.files_of(PieceIndex(piece)).any(|file| wanted[file.get()])
            {
                pieces.insert(piece);
            }
        }
    }
    pieces.into_iter().collect()
}
