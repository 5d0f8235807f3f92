//! The leaf index of a build: read on all cores, written beside the release.

use crate::objects::Source;
use crate::{Error, disk};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use updraft_manifests::hash::ContentHash;
use updraft_manifests::leaf_index::{
    HASH_LEN, INDEX_BYTES_MAX, Layout, MAGIC, window_count, window_start,
};
use updraft_manifests::manifest::{SideFile, index_path};
use updraft_manifests::rolling::{self, WINDOW};

/// Windows that a thread takes at a time: 8 MiB of one file.
const SPAN_WINDOWS: u64 = 512;

/// A run of windows of one file.
struct Span<'a> {
    source: &'a Source,
    first: u64,
    count: u64,
}

/// Hashes the windows of `files`, in the torrent's order, and writes the index into the repository at
/// `dir`. `None` if no file has a window, or the build is larger than an index can say. Also says
/// whether it had to be written.
///
/// # Errors
/// [`Error::BuildChanged`], [`Error::Disk`].
pub fn write(dir: &Path, files: &[Source]) -> Result<(Option<SideFile>, bool), Error> {
    // Files without bytes have no hashes, so leaving them out changes nothing.
    let layout = Layout::new(files.iter().map(|file| file.length));
    if layout.index_len() == MAGIC.len() as u64 || layout.index_len() > INDEX_BYTES_MAX {
        return Ok((None, false));
    }
    let mut bytes = vec![0; usize::try_from(layout.index_len()).expect("bounded above")];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    fill(files, &mut bytes[MAGIC.len()..])?;
    let index = SideFile { sha256: ContentHash::of(&bytes), length: bytes.len() as u64 };
    let path = dir.join(index_path(&index.sha256));
    path.parent().map_or(Ok(()), disk::make_folder)?;
    let is_new = disk::write_if_changed(&path, &bytes)?;
    Ok((Some(index), is_new))
}

fn fill(files: &[Source], mut hashes: &mut [u8]) -> Result<(), Error> {
    let mut spans = Vec::new();
    for source in files {
        let count = window_count(source.length);
        for first in (0..count).step_by(usize::try_from(SPAN_WINDOWS).expect("it is small")) {
            let span = Span { source, first, count: SPAN_WINDOWS.min(count - first) };
            let len = usize::try_from(span.count * HASH_LEN).expect("inside the index");
            let (now, later) = hashes.split_at_mut(len);
            hashes = later;
            spans.push((span, now));
        }
    }
    let spans = Mutex::new(spans.into_iter());
    let work = || -> Result<(), Error> {
        let mut window = vec![0; WINDOW];
        loop {
            let next = spans.lock().expect("taking a span does not panic").next();
            let Some((span, out)) = next else { return Ok(()) };
            hash(&span, &mut window, out)?;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("hashing does not panic"));
        ends.collect::<Result<(), Error>>()
    })
}

fn hash(span: &Span<'_>, window: &mut [u8], out: &mut [u8]) -> Result<(), Error> {
    let source = span.source;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::BuildChanged { path: source.path.clone() },
        _ => Error::disk("read", &source.path)(error),
    };
    let mut file = File::open(&source.path).map_err(failed)?;
    let mut at = None;
    for (leaf, word) in (span.first..).zip(out.as_chunks_mut::<8>().0) {
        let start = window_start(source.length, leaf);
        if at != Some(start) {
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
        }
        file.read_exact(window).map_err(failed)?;
        at = Some(start + WINDOW as u64);
        *word = rolling::hash(window).to_le_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stand_where_the_layout_says() {
        let dir = tempfile::tempdir().unwrap();
        let lengths = [100u64, 16_384, 40_000, 9 << 20, (8 << 20) + 5];
        let sources: Vec<Source> = (0u8..)
            .zip(lengths)
            .map(|(number, length)| {
                let path = dir.path().join(number.to_string());
                let data: Vec<u8> = (0..length)
                    .map(|at| (at / 251 + at).to_le_bytes()[0].wrapping_mul(number))
                    .collect();
                std::fs::write(&path, data).unwrap();
                Source { path, length, modified: None, root: ContentHash([number; 32]) }
            })
            .collect();
        let index = write(dir.path(), &sources).unwrap().0.unwrap();
        let bytes = std::fs::read(dir.path().join(index_path(&index.sha256))).unwrap();
        let layout = Layout::new(lengths);
        assert_eq!((bytes.len() as u64, layout.index_len()), (index.length, index.length));
        assert_eq!(bytes[..8], MAGIC);
        for (number, source) in sources.iter().enumerate() {
            let data = std::fs::read(&source.path).unwrap();
            let range = layout.hashes_of(number);
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            let made: Vec<u64> =
                updraft_manifests::leaf_index::parse_hashes(&bytes[range]).unwrap().collect();
            let expected = (0..window_count(source.length)).map(|leaf| {
                let start = usize::try_from(window_start(source.length, leaf)).unwrap();
                rolling::hash(&data[start..start + WINDOW])
            });
            assert_eq!(made, expected.collect::<Vec<_>>(), "file {number}");
        }
        std::fs::write(&sources[2].path, "short").unwrap();
        assert!(matches!(write(dir.path(), &sources), Err(Error::BuildChanged { .. })));
    }
}
