//! Torrents from a disk: list what is there ([`scan()`]), hash it on all cores ([`create`]).
//!
//! Every byte is read once, for both digests; pad bytes are never read. A file that is not what was
//! listed, or does not stay what it was, is an error.

mod scan;

pub use scan::scan;

use super::parallel::{ReadFiles, hash_pieces, read_exact_at};
use crate::ids::FileIndex;
use crate::metainfo::Metainfo;
use crate::metainfo::create::{CreateError, Options, Plan, Source, SourceFile};
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
    let plan = Plan::new(source, options)?;
    let geometry = plan.geometry();
    let (done, total) = (AtomicU64::new(0), geometry.content_len());
    let each = |piece, digests| {
        let bytes = u64::from(geometry.data_len(piece));
        progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        digests
    };
    let found = hash_pieces(geometry, plan.digests(), || Open::new(plan.files()), each)?;
    plan.finish(found)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::create::Format;

    /// The numbers by which links select files: what libtorrent 2.1 says of the same files.
    #[test]
    fn pad_files_have_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in [("a.bin", 70_000), ("b.txt", 3), ("c.bin", 100_000), ("e.txt", 0)] {
            std::fs::write(dir.path().join(name), vec![7; len]).unwrap();
        }
        let source = scan(dir.path()).unwrap();
        for (format, expected) in
            [(Format::V1, [0, 1, 2, 3]), (Format::Hybrid, [0, 2, 4, 6]), (Format::V2, [0, 2, 4, 6])]
        {
            let options = Options { format, piece_length: Some(16_384), ..Options::default() };
            let made = create(&source, &options, &|_, _| {}).unwrap();
            assert_eq!(made.info.file_numbers(), expected, "{format:?}");
        }
    }
}
