//! Source to torrent: every byte is read once, for both digests; pad bytes are never read. A file
//! that is not what was listed, or does not stay what it was, is an error.

use super::encode::{self, Hashes};
use super::layout::{Layout, layout};
use super::{CreateError, Options, Source, SourceFile};
use crate::geometry::Geometry;
use crate::ids::{FileIndex, Sha1Hash, Sha256Hash};
use crate::merkle;
use crate::metainfo::hash::{Digests, PieceDigests};
use crate::metainfo::parallel::{ReadFiles, hash_pieces, read_exact_at};
use crate::metainfo::{Info, Metainfo};
use bytes::Bytes;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

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
    let (done, total) = (AtomicU64::new(0), geometry.content_len());
    let each = |piece, digests| {
        let bytes = u64::from(geometry.data_len(piece));
        progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        digests
    };
    hash_pieces(geometry, digests, || Open::new(&layout.files), each)
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
}

impl ReadFiles for Open<'_> {
    type Error = CreateError;

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
