//! The hashing: contiguous spans of pieces, one at a time to each core, positioned reads, one small
//! buffer each. Every byte is read once, for both digests; pad bytes are never read.

use super::encode::{self, Hashes};
use super::layout::{Layout, layout};
use super::{CreateError, Options, Source, SourceFile};
use crate::geometry::Geometry;
use crate::ids::{FileIndex, PieceIndex, Sha1Hash, Sha256Hash};
use crate::merkle;
use crate::metainfo::hash::{Digests, PieceDigests, PieceHasher};
use crate::metainfo::{Info, Metainfo};
use bytes::Bytes;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

/// Bytes of the piece space that a thread takes at a time: enough to stay in few files, few enough
/// that all threads end together.
const SPAN_BYTES: u64 = 8 << 20;

/// Hashes `source` and makes its torrent.
///
/// `progress` is told (bytes hashed, bytes in all) by every thread now and then. Blocks; uses all
/// cores and less than 1 MiB of buffers for each.
pub fn create(
    source: &Source,
    options: &Options,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Metainfo, CreateError> {
    let layout = layout(source, options.format, options.piece_length)?;
    let digests = Digests { sha1: options.format.has_v1(), sha256: options.format.has_v2() };
    let found = hash_all(&layout, digests, progress)?;

    let pieces: Vec<Sha1Hash> = found.iter().filter_map(|digests| digests.sha1).collect();
    let layers = if digests.sha256 { layers(&layout.geometry, &found) } else { Vec::new() };
    let piece_length = layout.geometry.piece_length();
    let root = |layer: &Vec<Sha256Hash>| match layer.as_slice() {
        [] => None,
        [one] => Some(*one),
        many => Some(merkle::root_of_layer(many, piece_length)),
    };
    let hashes = Hashes { pieces, roots: layers.iter().map(root).collect() };
    let raw = Bytes::from(encode::info(source, options, &layout, &hashes));
    drop((found, layout));

    let mut long: Vec<(Sha256Hash, Vec<u8>)> = Vec::new();
    for (root, layer) in hashes.roots.iter().zip(&layers) {
        if let (Some(root), true) = (root, layer.len() > 1) {
            long.push((*root, layer.iter().flat_map(|hash| hash.0).collect()));
        }
    }
    let long: Vec<_> = long.iter().map(|(root, layer)| (*root, layer.as_slice())).collect();
    Ok(Metainfo {
        info: Info::parse(raw, &long)?,
        trackers: options.trackers.clone(),
        web_seeds: options.web_seeds.clone(),
        comment: options.comment.clone(),
        created_by: options.created_by.clone(),
        creation_date: options.creation_date,
    })
}

/// Each file's piece roots.
fn layers(geometry: &Geometry, found: &[PieceDigests]) -> Vec<Vec<Sha256Hash>> {
    let files = (0..).map(FileIndex).take(geometry.files().len());
    let layer = |file| {
        let pieces = geometry.pieces_of(file);
        let found = &found[pieces.start as usize..pieces.end as usize];
        found.iter().filter_map(|digests| digests.sha256).collect()
    };
    files.map(layer).collect()
}

fn hash_all(
    layout: &Layout<'_>,
    digests: Digests,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<PieceDigests>, CreateError> {
    let geometry = &layout.geometry;
    let piece_length = u64::from(geometry.piece_length());
    let span = u32::try_from((SPAN_BYTES / piece_length).max(1)).expect("at most 512");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, done, failed) = (AtomicU32::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = geometry.content_len();

    let work = || {
        let mut hasher = PieceHasher::new(digests);
        let mut open = Open::new(&layout.files);
        let mut spans = Vec::new();
        loop {
            let start = next.fetch_add(span, Ordering::Relaxed);
            if start >= geometry.piece_count() || failed.load(Ordering::Relaxed) {
                break;
            }
            let end = start.saturating_add(span).min(geometry.piece_count());
            let mut found = Vec::with_capacity((end - start) as usize);
            for piece in (start..end).map(PieceIndex) {
                let read = |file, offset, buffer: &mut [u8]| {
                    open.read(file, offset, buffer)?;
                    let so_far = done.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                    progress(so_far + buffer.len() as u64, total);
                    Ok::<(), CreateError>(())
                };
                found.push(hasher.hash(geometry, piece, read)?);
            }
            spans.push((start, found));
        }
        open.finish()?;
        Ok(spans)
    };
    let work = || work().inspect_err(|_: &CreateError| failed.store(true, Ordering::Relaxed));

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

/// The file a thread reads from: the same one most of the time.
struct Open<'a> {
    files: &'a [&'a SourceFile],
    current: Option<(FileIndex, File, Option<SystemTime>)>,
}

impl<'a> Open<'a> {
    fn new(files: &'a [&'a SourceFile]) -> Self {
        Self { files, current: None }
    }

    fn read(&mut self, file: FileIndex, offset: u64, buffer: &mut [u8]) -> Result<(), CreateError> {
        if self.current.as_ref().is_none_or(|(index, ..)| *index != file) {
            self.finish()?;
            let source = self.files[file.get()];
            let open = File::open(&source.source).map_err(|error| io("open", source, error))?;
            let modified = unchanged(source, &open, None)?;
            self.current = Some((file, open, modified));
        }
        let (_, open, _) = self.current.as_ref().expect("opened above");
        read_exact_at(open, buffer, offset).map_err(|error| {
            let source = self.files[file.get()];
            match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    CreateError::Changed { path: source.source.clone() }
                }
                _ => io("read", source, error),
            }
        })
    }

    /// Closes the file, if it is still what it was when it was opened.
    fn finish(&mut self) -> Result<(), CreateError> {
        if let Some((index, file, modified)) = self.current.take() {
            unchanged(self.files[index.get()], &file, modified)?;
        }
        Ok(())
    }
}

fn io(action: &'static str, source: &SourceFile, error: std::io::Error) -> CreateError {
    CreateError::Io { action, path: source.source.clone(), error }
}

/// Checks length and time of an open file; `before` is the time it had.
fn unchanged(
    source: &SourceFile,
    file: &File,
    before: Option<SystemTime>,
) -> Result<Option<SystemTime>, CreateError> {
    let meta = file.metadata().map_err(|error| io("read", source, error))?;
    // Not every file system knows times; the length is checked everywhere.
    let now = meta.modified().ok();
    if meta.len() != source.length || before.is_some_and(|before| now != Some(before)) {
        return Err(CreateError::Changed { path: source.source.clone() });
    }
    Ok(now)
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt as _;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
