//! Packs of a release: its content compressed in runs, for first installs over HTTP.
//!
//! They are made of the repository's objects, on all cores, each by itself, so that memory does not grow with
//! the build and equal runs give equal bytes. What the release before had packed is not packed again.

use crate::batch::Batch;
use crate::objects::Source;
use crate::repository::Repository;
use crate::{Error, disk, torrent, verify};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use updraft_manifests::hash::ContentHash;
use updraft_manifests::manifest::{Manifest, SideFile, object_path};
use updraft_manifests::packs::{self, LIST_BYTES_MAX, Pack, Run, content_key};
use updraft_protocol::metainfo::Info;

/// How hard zstd tries: some 40 MiB/s for each core, and decoding is as fast at any level.
const LEVEL: i32 = 9;

/// Lengths and roots of a release's files that hold bytes.
type Files = Vec<(u64, Option<ContentHash>)>;

/// Packs by what they hold.
pub type Known = HashMap<ContentHash, Pack>;

/// The packs of a release in the repository. None if it has none that can be read: then all are made anew.
pub fn known(repository: &Repository, manifest: &Manifest) -> Known {
    let path = repository.torrent_path(&manifest.torrent.v2);
    let (Some(list), Ok(metainfo)) = (manifest.packs, torrent::read(&path)) else {
        return Known::new();
    };
    let Ok(list) = read_list(&repository.dir, &list) else { return Known::new() };
    let files = files_of(&metainfo.info);
    let runs = packs::cut(&files, manifest.torrent.piece_length);
    let runs: HashMap<u64, &Run> = runs.iter().map(|run| (run.content.start, run)).collect();
    let same = |pack: &Pack| {
        let run = runs.get(&pack.start).filter(|run| run.content == pack.content())?;
        Some((content_key(&files, run), *pack))
    };
    list.iter().filter_map(same).collect()
}

/// Writes the packs of `sources`, whose objects are in the repository at `dir`, and their list. `None` if
/// no pack is worth it. Also says whether anything had to be written.
///
/// # Errors
/// [`Error::Disk`].
pub fn write(
    dir: &Path,
    sources: &[Source],
    piece_length: u32,
    known: &Known,
) -> Result<(Option<SideFile>, bool), Error> {
    let files: Files = sources.iter().map(|file| (file.length, Some(file.root))).collect();
    let runs = packs::cut(&files, piece_length);
    let folder = dir.join("packs");
    disk::make_folder(&folder)?;
    let mut made: Vec<Option<Pack>> = vec![None; runs.len()];
    let work = Mutex::new(runs.iter().zip(&mut made));
    let batch = Mutex::new(Batch::new(folder));
    let pack_all = || -> Result<(), Error> {
        loop {
            let Some((run, place)) = locked(&work).next() else { return Ok(()) };
            let old = known.get(&content_key(&files, run)).filter(|old| {
                fs::read(dir.join(old.path())).is_ok_and(|m| ContentHash::of(&m) == old.sha256)
            });
            *place = match old {
                Some(old) => Some(Pack { start: run.content.start, ..*old }),
                None => pack(dir, &files, run, &batch)?,
            };
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(pack_all)).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("packing does not panic"));
        ends.collect::<Result<(), Error>>()
    })?;
    let mut batch = locked(&batch);
    batch.finish()?;
    let is_new = batch.added > 0;
    let made: Vec<Pack> = made.into_iter().flatten().collect();
    let list = packs::encode(&made);
    if made.is_empty() || list.len() > LIST_BYTES_MAX {
        return Ok((None, is_new));
    }
    let list_file = SideFile { sha256: ContentHash::of(&list), length: list.len() as u64 };
    let path = dir.join(packs::list_path(&list_file.sha256));
    path.parent().map_or(Ok(()), disk::make_folder)?;
    let is_new = disk::write_if_changed(&path, &list)? || is_new;
    Ok((Some(list_file), is_new))
}

/// Makes one pack; `None` if it is not worth it.
fn pack(dir: &Path, files: &Files, run: &Run, batch: &Mutex<Batch>) -> Result<Option<Pack>, Error> {
    let content = read(dir, files, run)?;
    let failed = |error: std::io::Error| Error::Internal(format!("zstd: {error}"));
    let frame = zstd::bulk::compress(&content, LEVEL).map_err(failed)?;
    if !run.is_worth(frame.len() as u64) {
        return Ok(None);
    }
    if zstd::bulk::decompress(&frame, content.len()).map_err(failed)? != content {
        return Err(Error::Internal("zstd gave back other bytes than it was given".into()));
    }
    let size = |len: usize| u32::try_from(len).expect("a pack is small");
    let sha256 = ContentHash::of(&frame);
    let start = run.content.start;
    let pack = Pack { start, length: size(content.len()), packed: size(frame.len()), sha256 };
    let path = dir.join(pack.path());
    let mut batch = locked(batch);
    if !batch.holds(&path) && fs::read(&path).ok().is_none_or(|old| old != frame) {
        let temporary = disk::temporary(&path);
        fs::write(&temporary, &frame).map_err(Error::disk("write", &path))?;
        batch.add(path, frame.len() as u64)?;
    }
    Ok(Some(pack))
}

/// A thread that panics ends all.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The content of a run, out of the objects.
fn read(dir: &Path, files: &Files, run: &Run) -> Result<Vec<u8>, Error> {
    let mut content = Vec::with_capacity(usize::try_from(run.length()).expect("a pack is small"));
    let mut start: u64 = files[..run.files.start].iter().map(|(length, _)| length).sum();
    for (length, root) in &files[run.files.clone()] {
        let end = start + length;
        let (from, until) = (run.content.start.max(start), run.content.end.min(end));
        if let Some(root) = root.filter(|_| from < until) {
            let path = dir.join(object_path(&root, *length));
            let mut copy = || {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(from - start))?;
                file.take(until - from).read_to_end(&mut content)
            };
            if copy().map_err(Error::disk("read", &path))? as u64 != until - from {
                return Err(Error::content(&path, "is shorter than its name says"));
            }
        }
        start = end;
    }
    Ok(content)
}

fn files_of(info: &Info) -> Files {
    let root = |root: updraft_protocol::ids::Sha256Hash| ContentHash(root.0);
    let files = info.files.iter().filter(|file| file.length > 0);
    files.map(|file| (file.length, file.root.map(root))).collect()
}

fn read_list(dir: &Path, named: &SideFile) -> Result<Vec<Pack>, Error> {
    let path = dir.join(packs::list_path(&named.sha256));
    let bytes = disk::read_capped(&path, LIST_BYTES_MAX)?;
    if ContentHash::of(&bytes) != named.sha256 || bytes.len() as u64 != named.length {
        return Err(Error::content(&path, "is not what its manifest names"));
    }
    packs::parse(&bytes).map_err(|why| Error::content(&path, why))
}

/// Every fault of the packs of a release. `checked` are packs found right before, each with what it
/// holds. Launchers do without a bad pack, but slower.
pub fn faults(
    dir: &Path,
    manifest: &Manifest,
    info: &Info,
    checked: &mut HashSet<(ContentHash, ContentHash)>,
) -> Vec<String> {
    let Some(named) = manifest.packs else { return vec![] };
    let list = match read_list(dir, &named) {
        Ok(list) => list,
        Err(error) => return vec![error.to_string()],
    };
    let files = files_of(info);
    let mut starts = vec![0];
    files.iter().for_each(|(length, _)| starts.push(starts[starts.len() - 1] + length));
    let contents: Vec<_> = list.iter().map(Pack::content).collect();
    let places = info.geometry.pieces_of_contents(&contents);
    let mut faults = Vec::new();
    for (pack, place) in list.iter().zip(places) {
        let path = dir.join(pack.path());
        if place.is_none() {
            faults.push(format!("{}: it is not of whole pieces", path.display()));
            continue;
        }
        let content = pack.content();
        let first = starts.partition_point(|start| *start <= content.start) - 1;
        let after = starts.partition_point(|start| *start < content.end);
        let run = Run { content, files: first..after };
        let key = (pack.sha256, content_key(&files, &run));
        if !checked.contains(&key) {
            match fault(dir, pack, &files, &run) {
                Ok(None) => _ = checked.insert(key),
                Ok(Some(why)) => faults.push(format!("{}: {why}", path.display())),
                Err(error) => faults.push(error.to_string()),
            }
        }
    }
    faults
}

fn fault(dir: &Path, pack: &Pack, files: &Files, run: &Run) -> Result<Option<&'static str>, Error> {
    let frame = disk::read_capped(&dir.join(pack.path()), pack.packed as usize)?;
    if ContentHash::of(&frame) != pack.sha256 {
        return Ok(Some("its content is damaged"));
    }
    let unpacked = zstd::bulk::decompress(&frame, pack.length as usize);
    let right = unpacked.is_ok_and(|content| read(dir, files, run).is_ok_and(|due| due == content));
    // It may be the objects that are damaged: that is said of them.
    Ok((!right && objects_are_right(dir, &files[run.files.clone()]))
        .then_some("what comes out of it is not what its release has there"))
}

fn objects_are_right(dir: &Path, files: &[(u64, Option<ContentHash>)]) -> bool {
    files.iter().all(|(length, root)| {
        let found = |root| verify::root_of(&dir.join(object_path(root, *length)), *length);
        root.as_ref().is_none_or(|root| found(root).is_ok_and(|found| found == Some(*root)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Objects;

    /// A repository with objects of so many bytes each, half of them of little content.
    fn sources(dir: &Path, lengths: &[usize]) -> Vec<Source> {
        let mut objects = Objects::open(dir).unwrap();
        let mut sources = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            let text: Vec<u8> = format!("line {at} of the text\n").into_bytes();
            let bytes: Vec<u8> = text.iter().copied().cycle().take(*length).collect();
            let path = dir.join(format!("file{at}"));
            fs::write(&path, &bytes).unwrap();
            let source = Source {
                length: *length as u64,
                modified: fs::metadata(&path).unwrap().modified().ok(),
                root: ContentHash::of(&bytes),
                path,
            };
            objects.add(&source).unwrap();
            sources.push(source);
        }
        objects.finish().unwrap();
        sources
    }

    fn list(dir: &Path, named: Option<SideFile>) -> Vec<Pack> {
        read_list(dir, &named.unwrap()).unwrap()
    }

    #[test]
    fn packs_hold_what_objects_hold() {
        let dir = tempfile::tempdir().unwrap();
        let lengths: Vec<usize> = (0..400).map(|at| at * 97).chain([9_000_000, 5]).collect();
        let sources = sources(dir.path(), &lengths);
        let files: Files = sources.iter().map(|file| (file.length, Some(file.root))).collect();
        let named = write(dir.path(), &sources, 16_384, &Known::new()).unwrap().0;
        let packs = list(dir.path(), named);
        let total: u64 = sources.iter().map(|file| file.length).sum();
        let packed: u64 = packs.iter().map(|pack| u64::from(pack.length)).sum();
        assert!(packs.len() > 5 && packed >= total - 5, "{packs:?}");
        let runs = packs::cut(&files, 16_384);
        for pack in &packs {
            let run = runs.iter().find(|run| run.content == pack.content()).unwrap();
            assert_eq!(fault(dir.path(), pack, &files, run).unwrap(), None);
        }
        let left = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
        let folder = fs::read_dir(dir.path().join("packs")).unwrap();
        assert!(!folder.flatten().any(|entry| left(&entry.file_name())));
        // Again: the same bytes, whether or not a pack was lost or damaged.
        fs::remove_file(dir.path().join(packs[0].path())).unwrap();
        fs::write(dir.path().join(packs[1].path()), "damaged").unwrap();
        assert_eq!(write(dir.path(), &sources, 16_384, &Known::new()).unwrap().0, named);
        for (pack, run) in packs[..2].iter().zip(&runs) {
            assert_eq!(fault(dir.path(), pack, &files, run).unwrap(), None);
        }
        // What is known is not made again: a name that nothing could give stays.
        let mut known = Known::new();
        let frame = vec![0; 50];
        let other = Pack { sha256: ContentHash::of(&frame), packed: 50, start: 99, ..packs[0] };
        fs::write(dir.path().join(other.path()), frame).unwrap();
        known.insert(content_key(&files, &runs[0]), other);
        let again = list(dir.path(), write(dir.path(), &sources, 16_384, &known).unwrap().0);
        assert_eq!(again[0], Pack { start: packs[0].start, ..other });
        assert_eq!(again[1..], packs[1..]);
    }

    #[test]
    fn nothing_worth_it_makes_no_list() {
        let dir = tempfile::tempdir().unwrap();
        let one = sources(dir.path(), &[10]);
        assert_eq!(write(dir.path(), &one, 16_384, &Known::new()).unwrap().0, None);
        assert_eq!(write(dir.path(), &[], 16_384, &Known::new()).unwrap().0, None);
    }
}
