//! Open files: few, shared by all torrents, closed when unused longest. And positioned I/O on them.

use super::torrent::{Place, Torrent};
use super::{DiskOp, TorrentKey};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files the disk side keeps open at once, over all torrents.
pub const HANDLES_MAX: usize = 40;

/// Folders remembered as being no links; beyond it the memory starts afresh.
const REAL_FOLDERS_MAX: usize = 4096;

/// An error with the file and what was done to it.
#[derive(Debug)]
pub(super) struct DiskError {
    pub(super) path: PathBuf,
    pub(super) op: DiskOp,
    pub(super) error: io::Error,
}

impl DiskError {
    /// True if the file is simply not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }

    /// The same as an `io::Error` that names the file.
    pub(super) fn into_io(self) -> io::Error {
        let text = format!("cannot {} {}: {}", self.op, self.path.display(), self.error);
        io::Error::new(self.error.kind(), text)
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<(TorrentKey, Place), Handle>,
    uses: u64,
    real_folders: HashSet<PathBuf>,
}

#[derive(Debug)]
struct Handle {
    file: Arc<File>,
    writable: bool,
    used: u64,
}

impl Handles {
    /// The file at `place`, opened for writing only if `write`; then it and its folders are made.
    pub(super) fn get(
        &self,
        torrent: &Torrent,
        place: Place,
        write: bool,
    ) -> Result<Arc<File>, DiskError> {
        let slot = (torrent.key, place);
        {
            let mut open = self.lock();
            open.uses += 1;
            let now = open.uses;
            if let Some(handle) = open.files.get_mut(&slot)
                && (handle.writable || !write)
            {
                handle.used = now;
                return Ok(Arc::clone(&handle.file));
            }
        }
        // Opened without the lock: two threads may both do it, and one handle wins.
        let file =
            if write { self.open_to_write(torrent, place)? } else { open_to_read(torrent, place)? };
        let file = Arc::new(file);
        let evicted = self.lock().insert(slot, Arc::clone(&file), write);
        drop(evicted);
        Ok(file)
    }

    /// Closes every file of a torrent as soon as nobody is using it.
    pub(super) fn close_all(&self, torrent: TorrentKey) {
        let mut open = self.lock();
        let closed: Vec<_> = open.files.extract_if(|slot, _| slot.0 == torrent).collect();
        drop(open);
        drop(closed);
    }

    /// Closes every file of a torrent that is open for writing.
    pub(super) fn close_writable(&self, torrent: TorrentKey) {
        let mut open = self.lock();
        let of =
            |slot: &(TorrentKey, Place), handle: &mut Handle| slot.0 == torrent && handle.writable;
        let closed: Vec<_> = open.files.extract_if(of).collect();
        drop(open);
        drop(closed);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().files.len()
    }

    fn open_to_write(&self, torrent: &Torrent, place: Place) -> Result<File, DiskError> {
        let (now, before) = torrent.paths_of(place);
        let failed =
            |path: &Path, error| DiskError { path: path.to_path_buf(), op: DiskOp::Create, error };
        // In the middle of renames the file may still be where it was.
        if let Some(before) = before.filter(|_| !now.exists()) {
            match write_options(false).open(&before) {
                Ok(file) => return regular(file).map_err(|error| failed(&before, error)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&before, error)),
            }
        }
        let named = match place {
            Place::File(file) => torrent.info.files[file.get()].path.as_slice(),
            Place::Parts | Place::Resume => &[],
        };
        self.refuse_links(&now, named).map_err(|error| failed(&now, error))?;
        let options = write_options(true);
        let opened = options.open(&now).or_else(|error| {
            let folder = now.parent().filter(|_| error.kind() == io::ErrorKind::NotFound);
            let Some(folder) = folder else { return Err(error) };
            std::fs::create_dir_all(folder)?;
            options.open(&now)
        });
        opened.and_then(regular).map_err(|error| match is_link(&now) {
            Ok(true) => failed(&now, link_error(&now)),
            Ok(false) | Err(_) => failed(&now, error),
        })
    }

    /// Refuses `path` if it, or a folder of it that the torrent named, is a symbolic link. Folders
    /// above those are the user's choice and may be links.
    fn refuse_links(&self, path: &Path, named: &[String]) -> io::Result<()> {
        // Unix refuses a link in the last place when it opens the file.
        if cfg!(not(unix)) && is_link(path)? {
            return Err(link_error(path));
        }
        let same = path.components().rev().zip(named.iter().rev());
        let same = same.take_while(|(part, name)| part.as_os_str() == name.as_str()).count();
        let Some(folder) = path.parent().filter(|_| same > 1) else { return Ok(()) };
        if self.lock().real_folders.contains(folder) {
            return Ok(());
        }
        for folder in folder.ancestors().take(same - 1) {
            if is_link(folder)? {
                return Err(link_error(folder));
            }
        }
        let mut open = self.lock();
        if open.real_folders.len() >= REAL_FOLDERS_MAX {
            open.real_folders.clear();
        }
        open.real_folders.insert(folder.to_path_buf());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Adds a handle; returns those it displaced, to be dropped without the lock.
    fn insert(
        &mut self,
        slot: (TorrentKey, Place),
        file: Arc<File>,
        writable: bool,
    ) -> Vec<Handle> {
        let mut displaced = Vec::new();
        while self.files.len() >= HANDLES_MAX && !self.files.contains_key(&slot) {
            let oldest = self.files.iter().min_by_key(|(_, handle)| handle.used);
            let oldest = *oldest.expect("the pool is full").0;
            displaced.extend(self.files.remove(&oldest));
        }
        let handle = Handle { file, writable, used: self.uses };
        displaced.extend(self.files.insert(slot, handle));
        assert!(self.files.len() <= HANDLES_MAX, "the pool is bounded");
        displaced
    }
}

fn open_to_read(torrent: &Torrent, place: Place) -> Result<File, DiskError> {
    let (now, before) = torrent.paths_of(place);
    let mut options = OpenOptions::new();
    options.read(true);
    custom_flags(&mut options, false);
    // Renames may run meanwhile: new place, old place, and once more the new one.
    let tries = [Some(&now), before.as_ref(), before.as_ref().map(|_| &now)];
    let mut missing = None;
    for path in tries.into_iter().flatten() {
        match options.open(path).and_then(regular) {
            Ok(file) => return Ok(file),
            Err(error) => {
                let error = DiskError { path: path.clone(), op: DiskOp::Read, error };
                if !error.is_missing() {
                    return Err(error);
                }
                missing = Some(error);
            }
        }
    }
    Err(missing.expect("one path was tried"))
}

fn write_options(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false);
    custom_flags(&mut options, true);
    options
}

/// Neither waits for the other end of a named pipe nor, to write, follows a link in the last place.
#[cfg(unix)]
fn custom_flags(options: &mut OpenOptions, no_follow: bool) {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, no_follow);
    options.custom_flags(flags.bits().cast_signed());
}

#[cfg(not(unix))]
fn custom_flags(_options: &mut OpenOptions, _no_follow: bool) {}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
}

fn is_link(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.file_type().is_symlink()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn link_error(path: &Path) -> io::Error {
    let text = format!("{} is a symbolic link, which is not written through", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Reads until `buffer` is full or the file ends; returns the bytes read.
pub(super) fn read_full_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read_at(file, &mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

/// Writes all of `slices`, one after the other, from `at`.
pub(super) fn write_all_at(
    file: &File,
    mut slices: &mut [IoSlice<'_>],
    mut at: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match write_some_at(file, slices, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn write_some_at(file: &File, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
    /// The kernel takes at most 1024 (`UIO_MAXIOV`).
    const SLICES_MAX: usize = 1024;
    let slices = &slices[..slices.len().min(SLICES_MAX)];
    Ok(rustix::io::pwritev(file, slices, at)?)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn write_some_at(file: &File, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, &slices[0], at)
}

#[cfg(windows)]
fn write_some_at(file: &File, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, &slices[0], at)
}

/// True if no byte of the range was ever written: a hole, which reads as zeros.
#[cfg(target_os = "linux")]
pub(super) fn is_hole(file: &File, metadata: &std::fs::Metadata, at: u64, len: u64) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    if metadata.blocks() * 512 >= metadata.len() {
        return false;
    }
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data >= at + len,
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_hole(_: &File, _: &std::fs::Metadata, _: u64, _: u64) -> bool {
    false
}
