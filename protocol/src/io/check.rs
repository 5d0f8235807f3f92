//! A torrent against the files that are there: which pieces are right. Reads only; all cores, one
//! small buffer each.

use super::parallel::{ReadFiles, hash_pieces, read_exact_at};
use crate::ids::{FileIndex, PieceIndex, Sha256Hash};
use crate::merkle;
use crate::metainfo::{FileEntry, Info};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What was found of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// The bytes are right.
    Good,
    /// The bytes are there and wrong.
    Bad,
    /// A file is missing or ends before the piece does.
    Missing,
}

/// What was found of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Which.
    pub file: FileIndex,
    /// What its length says, or the kind of thing that is there.
    pub state: FileState,
    /// Pieces that hold bytes of it.
    pub pieces: u32,
    /// Those of them with wrong bytes.
    pub bad: u32,
    /// Those of them that cannot be read in full.
    pub missing: u32,
}

/// What stands at a file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// A file of the right length, or the right symlink.
    Present,
    /// Nothing.
    Absent,
    /// A file of another length.
    Length(u64),
    /// A folder, or a file where a symlink belongs or the reverse, or a symlink to elsewhere.
    OtherKind,
}

impl FileReport {
    /// True if the file is there, as long as it should be, and all of its pieces are right.
    pub fn is_good(&self) -> bool {
        self.state == FileState::Present && self.bad == 0 && self.missing == 0
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// By piece.
    pub pieces: Vec<PieceState>,
    /// By file.
    pub files: Vec<FileReport>,
}

impl Report {
    /// True if every file is right.
    pub fn is_good(&self) -> bool {
        self.files.iter().all(FileReport::is_good)
    }

    /// How many pieces are in this state.
    pub fn count(&self, state: PieceState) -> usize {
        self.pieces.iter().filter(|piece| **piece == state).count()
    }
}

/// Why a check could not be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {error}", path.display())]
pub struct CheckError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// Where the files of a torrent lie if `dir` is where it was downloaded to: in the folder of the
/// torrent's name below `dir`, or in `dir` itself when there is no such folder.
pub fn locate(info: &Info, dir: &Path) -> Vec<PathBuf> {
    let below = dir.join(&info.name);
    let base = match info.single_file {
        true if dir.is_file() => return vec![dir.to_owned()],
        false if below.is_dir() => below.as_path(),
        true | false => dir,
    };
    let path =
        |file: &FileEntry| file.path.iter().fold(base.to_owned(), |path, part| path.join(part));
    info.files.iter().map(path).collect()
}

/// Checks every piece of `info` against the files at `paths` (by [`FileIndex`]).
///
/// v2 pieces by SHA-256, v1 pieces by SHA-1. A v2 file whose piece layer is not known is right or
/// wrong as a whole. `progress` is told (bytes checked, bytes in all) by all threads. Blocks. Fails
/// only where something is there and cannot be read.
pub fn check(
    info: &Info,
    paths: &[PathBuf],
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Report, CheckError> {
    assert_eq!(paths.len(), info.files.len(), "one path for each file");
    let geometry = &info.geometry;
    let (done, total) = (AtomicU64::new(0), geometry.content_len());
    let each = |piece: PieceIndex, digests: Result<_, ReadError>| {
        let bytes = u64::from(geometry.data_len(piece));
        progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        let digests = match digests {
            Ok(digests) => digests,
            Err(ReadError::Missing) => return Ok(Found::Decided(PieceState::Missing)),
            Err(failed @ ReadError::Failed(_)) => return Err(failed),
        };
        Ok(match info.accepts(piece, &digests) {
            Some(true) => Found::Decided(PieceState::Good),
            Some(false) => Found::Decided(PieceState::Bad),
            None => Found::Root(digests.sha256.expect("a v2 piece of a file has a root")),
        })
    };
    let reader = || Reader { paths, current: None };
    let found = match hash_pieces(geometry, info.deciding_digests(), reader, each) {
        Ok(found) => found,
        Err(ReadError::Failed(error)) => return Err(error),
        Err(ReadError::Missing) => unreachable!("missing files are no error of a check"),
    };
    let pieces = decide(info, found);
    let files = (0..).map(FileIndex).zip(&info.files).zip(paths);
    let files = files.map(|((file, entry), path)| file_report(info, file, entry, path, &pieces));
    Ok(Report { files: files.collect::<Result<_, _>>()?, pieces })
}

/// A piece that was read: decided, or its root when only all of the file's roots can decide.
enum Found {
    Decided(PieceState),
    Root(Sha256Hash),
}

/// Decides the files whose layers are not known.
fn decide(info: &Info, found: Vec<Found>) -> Vec<PieceState> {
    let mut states: Vec<_> = found
        .iter()
        .map(|found| match found {
            Found::Decided(state) => *state,
            Found::Root(_) => PieceState::Bad,
        })
        .collect();
    for (file, entry) in (0..).map(FileIndex).zip(&info.files) {
        let pieces = info.geometry.pieces_of(file);
        let pieces = pieces.start as usize..pieces.end as usize;
        let roots: Option<Vec<_>> = found[pieces.clone()]
            .iter()
            .map(|found| match found {
                Found::Root(root) => Some(*root),
                Found::Decided(_) => None,
            })
            .collect();
        let Some(roots) = roots.filter(|roots| !roots.is_empty()) else { continue };
        if entry.root == Some(merkle::root_of_layer(&roots, info.geometry.piece_length())) {
            states[pieces].fill(PieceState::Good);
        }
    }
    states
}

fn file_report(
    info: &Info,
    file: FileIndex,
    entry: &FileEntry,
    path: &Path,
    pieces: &[PieceState],
) -> Result<FileReport, CheckError> {
    let own = info.geometry.pieces_of(file);
    let own = &pieces[own.start as usize..own.end as usize];
    let count = |state| own.iter().filter(|piece| **piece == state).count();
    let number = |count: usize| u32::try_from(count).expect("pieces are counted in u32");
    Ok(FileReport {
        file,
        state: file_state(entry, path)?,
        pieces: number(own.len()),
        bad: number(count(PieceState::Bad)),
        missing: number(count(PieceState::Missing)),
    })
}

fn file_state(entry: &FileEntry, path: &Path) -> Result<FileState, CheckError> {
    // A file may be reached through a symlink of the user's; a symlink of the torrent is one itself.
    let meta = match &entry.symlink {
        Some(_) => path.symlink_metadata(),
        None => path.metadata(),
    };
    let meta = match meta {
        Ok(meta) => meta,
        Err(error) if is_absent(&error) => return Ok(FileState::Absent),
        Err(error) => return Err(CheckError { path: path.to_owned(), error }),
    };
    Ok(match &entry.symlink {
        Some(target) if meta.is_symlink() && leads_to(entry, path, target) => FileState::Present,
        None if meta.is_file() && meta.len() == entry.length => FileState::Present,
        None if meta.is_file() => FileState::Length(meta.len()),
        Some(_) | None => FileState::OtherKind,
    })
}

/// True if the symlink at `path` says `target`, taken from its place in the torrent.
fn leads_to(entry: &FileEntry, path: &Path, target: &[String]) -> bool {
    let Ok(link) = std::fs::read_link(path) else { return false };
    let mut at = entry.path[..entry.path.len() - 1].to_vec();
    for step in link.components() {
        match step {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if at.pop().is_some() => {}
            std::path::Component::Normal(name) => at.push(name.to_string_lossy().into_owned()),
            _ => return false,
        }
    }
    at == target
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

enum ReadError {
    Missing,
    Failed(CheckError),
}

/// The file a thread reads from: the same one most of the time.
struct Reader<'a> {
    paths: &'a [PathBuf],
    current: Option<(FileIndex, Option<File>)>,
}

impl ReadFiles for Reader<'_> {
    type Error = ReadError;

    fn read(&mut self, file: FileIndex, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let path = &self.paths[file.get()];
        let failed = |error| ReadError::Failed(CheckError { path: path.clone(), error });
        if self.current.as_ref().is_none_or(|(index, _)| *index != file) {
            let open = match File::open(path) {
                // Folders can be opened on Unix, not read.
                Ok(open) => open.metadata().map_err(failed)?.is_file().then_some(open),
                Err(error) if is_absent(&error) => None,
                Err(error) => return Err(failed(error)),
            };
            self.current = Some((file, open));
        }
        let open = self.current.as_ref().and_then(|(_, open)| open.as_ref());
        let open = open.ok_or(ReadError::Missing)?;
        read_exact_at(open, buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Missing,
            _ => failed(error),
        })
    }

    fn finish(&mut self) -> Result<(), ReadError> {
        Ok(())
    }
}
