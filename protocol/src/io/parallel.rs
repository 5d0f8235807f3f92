//! Hashing on all cores: contiguous spans of pieces, one at a time to each thread, positioned reads,
//! one buffer of [`READ_BYTES`](crate::metainfo::hash::READ_BYTES) each.

use crate::geometry::Geometry;
use crate::ids::{FileIndex, PieceIndex};
use crate::metainfo::hash::{Digests, PieceDigests, PieceHasher};
use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the piece space that a thread takes at a time: enough to stay in few files, few enough
/// that all threads end together.
const SPAN_BYTES: u64 = 8 << 20;

/// How one thread gets at the files.
pub(super) trait ReadFiles {
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
pub(super) fn hash_pieces<R: ReadFiles, T: Send>(
    geometry: &Geometry,
    digests: Digests,
    reader: impl Fn() -> R + Sync,
    each: impl Fn(PieceIndex, Result<PieceDigests, R::Error>) -> Result<T, R::Error> + Sync,
) -> Result<Vec<T>, R::Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = geometry.piece_count() as usize;
    let span = usize::try_from(SPAN_BYTES / u64::from(geometry.piece_length()));
    let span = span.expect("pieces are counted in u32");
    // Whole groups of pieces that are hashed side by side, but something to do for every thread.
    let width = PieceHasher::width(geometry, digests) as usize;
    let span = span.next_multiple_of(width).max(width).min(count.div_ceil(threads)).max(1);
    let mut results: Vec<Option<T>> = Vec::new();
    results.resize_with(count, || None);
    let failed = AtomicBool::new(false);
    let spans = Mutex::new(geometry.pieces().step_by(span).zip(results.chunks_mut(span)));

    let work = || -> Result<(), R::Error> {
        let (mut hasher, mut reader) = (PieceHasher::new(geometry, digests), reader());
        while !failed.load(Ordering::Relaxed) {
            let next = spans.lock().expect("taking a span does not panic").next();
            let Some((start, span)) = next else { break };
            let read = |file, offset, buffer: &mut [u8]| reader.read(file, offset, buffer);
            let end = start.0 + u32::try_from(span.len()).expect("pieces are counted in u32");
            let found = hasher.hash(start.0..end, read);
            for ((piece, result), found) in (start.0..).map(PieceIndex).zip(span).zip(found) {
                *result = Some(each(piece, found)?);
            }
        }
        reader.finish()
    };
    let work = || work().inspect_err(|_| failed.store(true, Ordering::Relaxed));

    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("hashing does not panic")).collect()
    });
    ends.into_iter().collect::<Result<(), _>>()?;
    Ok(results.into_iter().map(|result| result.expect("every span was taken")).collect())
}

/// Fills `buffer` from `offset` without moving a cursor; fails with `UnexpectedEof` at the end.
#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset`; fails with `UnexpectedEof` at the end.
#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
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
