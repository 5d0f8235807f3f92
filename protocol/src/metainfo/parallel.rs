//! Hashing on all cores: contiguous spans of pieces, one at a time to each thread, positioned reads,
//! one buffer of [`READ_BYTES`](super::hash::READ_BYTES) each.

use super::hash::{Digests, PieceDigests, PieceHasher};
use crate::geometry::Geometry;
use crate::ids::{FileIndex, PieceIndex};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes of the piece space that a thread takes at a time: enough to stay in few files, few enough
/// that all threads end together.
const SPAN_BYTES: u64 = 8 << 20;

/// How one thread gets at the files.
pub trait ReadFiles {
    /// Why a read failed.
    type Error: Send;

    /// Fills `buffer` from `offset` of `file`, or fails.
    fn read(&mut self, file: FileIndex, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Called once, after the thread's last read.
    fn finish(&mut self) -> Result<(), Self::Error>;
}

/// Hashes all pieces and gives what `each` made of them, in order.
///
/// `reader` makes one reader for each thread. The first error of `each` or of a reader's end stops
/// all threads and is returned. Blocks.
pub fn hash_pieces<R: ReadFiles, T: Send>(
    geometry: &Geometry,
    digests: Digests,
    reader: impl Fn() -> R + Sync,
    each: impl Fn(PieceIndex, Result<PieceDigests, R::Error>) -> Result<T, R::Error> + Sync,
) -> Result<Vec<T>, R::Error> {
    let span = (SPAN_BYTES / u64::from(geometry.piece_length())).max(1);
    let span = u32::try_from(span).unwrap_or(u32::MAX);
    let (next, failed) = (AtomicU32::new(0), AtomicBool::new(false));
    let count = geometry.piece_count();

    let work = || -> Result<Vec<(u32, Vec<T>)>, R::Error> {
        let (mut hasher, mut reader) = (PieceHasher::new(digests), reader());
        let mut spans = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let take = |start: u32| (start < count).then(|| start.saturating_add(span).min(count));
            let Ok(start) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
                break;
            };
            let pieces = (start..start.saturating_add(span).min(count)).map(PieceIndex);
            let hash = |piece| {
                let read = |file, offset, buffer: &mut [u8]| reader.read(file, offset, buffer);
                each(piece, hasher.hash(geometry, piece, read))
            };
            spans.push((start, pieces.map(hash).collect::<Result<_, _>>()?));
        }
        reader.finish()?;
        Ok(spans)
    };
    let work = || work().inspect_err(|_| failed.store(true, Ordering::Relaxed));

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("hashing does not panic")).collect()
    });
    let mut spans = Vec::new();
    for result in results {
        spans.extend(result?);
    }
    spans.sort_unstable_by_key(|(start, _)| *start);
    Ok(spans.into_iter().flat_map(|(_, found)| found).collect())
}

/// Fills `buffer` from `offset` without moving a cursor; fails with `UnexpectedEof` at the end.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset`; fails with `UnexpectedEof` at the end.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt as _;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
