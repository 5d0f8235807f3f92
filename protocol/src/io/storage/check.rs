//! Hashing pieces from disk in the background: all threads take the next piece from one cursor.

use super::DiskEvent;
use super::handles::{DiskError, is_hole};
use super::hashing::{Found, Reader, zeros_are_right};
use super::torrent::Torrent;
use super::worker::{Shared, Worker};
use crate::bitfield::Bitfield;
use crate::ids::PieceIndex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Results are reported at the latest when this many are there…
const BATCH_PIECES_MAX: usize = 64;
/// …or the oldest of them is this old.
const BATCH_AGE_MAX: Duration = Duration::from_millis(200);

/// One order to check, shared by all threads.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) torrent: Arc<Torrent>,
    pieces: Bitfield,
    next: AtomicU32,
    /// Threads that have not reported their last results.
    active: AtomicUsize,
    error_told: AtomicBool,
}

impl Check {
    pub(super) fn new(torrent: Arc<Torrent>, pieces: Bitfield, threads: usize) -> Self {
        Self {
            torrent,
            pieces,
            next: AtomicU32::new(0),
            active: AtomicUsize::new(threads),
            error_told: AtomicBool::new(false),
        }
    }

    fn take(&self) -> Option<PieceIndex> {
        loop {
            let piece = PieceIndex(self.next.fetch_add(1, Ordering::Relaxed));
            if piece.0 >= self.pieces.len() {
                // Keep the cursor from ever wrapping around.
                self.next.store(self.pieces.len(), Ordering::Relaxed);
                return None;
            }
            if self.pieces.has(piece) {
                return Some(piece);
            }
        }
    }
}

/// One thread's share of a check.
#[derive(Debug)]
pub(super) struct Share {
    check: Arc<Check>,
    results: Vec<(PieceIndex, bool)>,
    reported: Instant,
}

impl Share {
    pub(super) fn new(check: Arc<Check>) -> Self {
        Self { check, results: Vec::new(), reported: Instant::now() }
    }

    fn report(&mut self, shared: &Shared) {
        self.reported = Instant::now();
        if !self.results.is_empty() {
            let pieces = std::mem::take(&mut self.results);
            shared.emit(DiskEvent::Checked { torrent: self.check.torrent.key, pieces });
        }
    }
}

impl Worker<'_> {
    /// Checks one piece of the oldest check, or ends that check.
    pub(super) fn check_step(&mut self) {
        let Some(mut share) = self.checks.pop_front() else { return };
        let check = Arc::clone(&share.check);
        let stopped = check.torrent.checks_stopped();
        let Some(piece) = check.take().filter(|_| !stopped) else {
            share.report(self.shared);
            if check.active.fetch_sub(1, Ordering::AcqRel) == 1 && !stopped {
                self.shared.emit(DiskEvent::CheckDone { torrent: check.torrent.key });
            }
            return;
        };
        let found = self.check_piece(&check.torrent, piece).unwrap_or_else(|error| {
            if !check.error_told.swap(true, Ordering::Relaxed) {
                self.shared.emit_error(&check.torrent, error);
            }
            Found::Missing
        });
        let right = found == Found::Right;
        if right {
            check.torrent.trust(piece);
            self.shared.record(&check.torrent, piece);
        }
        share.results.push((piece, right));
        if share.results.len() >= BATCH_PIECES_MAX || share.reported.elapsed() >= BATCH_AGE_MAX {
            share.report(self.shared);
        }
        self.checks.push_front(share);
    }

    fn check_piece(&mut self, torrent: &Torrent, piece: PieceIndex) -> Result<Found, DiskError> {
        match self.look(torrent, piece)? {
            Look::Missing => Ok(Found::Missing),
            Look::Hole if zeros_are_right(torrent, piece) => Ok(Found::Right),
            Look::Hole if torrent.info.geometry.piece_len(piece) == full_len(torrent) => {
                Ok(Found::Wrong)
            }
            Look::Hole | Look::Data => {
                let mut reader =
                    Reader { torrent, handles: &self.shared.handles, scratch: &mut self.scratch };
                reader.check(piece)
            }
        }
    }

    /// What can be said without reading: are the files there, long enough, and ever written?
    fn look(&self, torrent: &Torrent, piece: PieceIndex) -> Result<Look, DiskError> {
        let geometry = &torrent.info.geometry;
        let mut all_holes = true;
        for run in torrent.runs(piece, 0, geometry.data_len(piece)) {
            let Some((place, at)) = run.kept else { continue };
            let file = match self.shared.handles.get(torrent, place, false) {
                Ok(file) => file,
                Err(error) if error.is_missing() => return Ok(Look::Missing),
                Err(error) => return Err(error),
            };
            let metadata = file.metadata().map_err(|error| DiskError {
                path: torrent.paths_of(place).0,
                op: super::DiskOp::Read,
                error,
            })?;
            if metadata.len() < at + run.len as u64 {
                return Ok(Look::Missing);
            }
            all_holes = all_holes && is_hole(&file, &metadata, at, run.len as u64);
        }
        Ok(if all_holes { Look::Hole } else { Look::Data })
    }
}

fn full_len(torrent: &Torrent) -> u32 {
    torrent.info.geometry.piece_length()
}

enum Look {
    Missing,
    /// Nothing was ever written here: it reads as zeros.
    Hole,
    Data,
}
