//! Many files of one folder made durable together: a name never stands for less than its whole content.

use crate::{Error, disk};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use updraft_protocol::io::held::patiently;

/// Files made durable together: one flush for many small files, and few unfinished names after a
/// kill.
const FILES_MAX: usize = 512;
/// Bytes made durable together.
const BYTES_MAX: u64 = 1 << 30;

/// Files that were written to their [`disk::temporary`] names.
#[derive(Debug)]
pub(crate) struct Batch {
    folder: PathBuf,
    waiting: HashSet<PathBuf>,
    waiting_bytes: u64,
    /// Files added so far.
    pub(crate) added: usize,
}

impl Batch {
    /// Of files in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, waiting: HashSet::new(), waiting_bytes: 0, added: 0 }
    }

    /// True if `path` was added and has not got its name yet.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        self.waiting.contains(path)
    }

    /// The file at the temporary name of `path` has all of its `bytes`. It gets its name now or with
    /// [`Batch::finish`].
    pub(crate) fn add(&mut self, path: PathBuf, bytes: u64) -> Result<(), Error> {
        self.waiting.insert(path);
        self.added += 1;
        self.waiting_bytes += bytes;
        if self.waiting.len() >= FILES_MAX || self.waiting_bytes >= BYTES_MAX {
            self.finish()?;
        }
        Ok(())
    }

    /// Gives all their names.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        // The bytes first, then the names.
        let temporaries: Vec<_> = self.waiting.iter().map(|path| disk::temporary(path)).collect();
        sync_files(&self.folder, &temporaries)?;
        for (temporary, path) in temporaries.iter().zip(&self.waiting) {
            patiently(|| fs::rename(temporary, path)).map_err(Error::disk("write", path))?;
        }
        disk::sync_folder(&self.folder)?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn sync_files(folder: &Path, files: &[PathBuf]) -> Result<(), Error> {
    // One flush of the file system instead of one for each of thousands of small files.
    if files.len() > 8 {
        let folder_file = File::open(folder).map_err(Error::disk("flush", folder))?;
        return rustix::fs::syncfs(&folder_file).map_err(|error| Error::Disk {
            action: "flush",
            path: folder.to_path_buf(),
            source: error.into(),
        });
    }
    sync_each(files)
}

#[cfg(not(target_os = "linux"))]
fn sync_files(_: &Path, files: &[PathBuf]) -> Result<(), Error> {
    sync_each(files)
}

fn sync_each(files: &[PathBuf]) -> Result<(), Error> {
    files.iter().try_for_each(|path| {
        let file = File::options().write(true).open(path);
        file.and_then(|file| file.sync_all()).map_err(Error::disk("flush", path))
    })
}
