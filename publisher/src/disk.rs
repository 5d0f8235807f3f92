//! Writing so that a kill or a power cut leaves the old file or the new one.

use crate::Error;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use updraft_protocol::io::held::patiently;

const TEMPORARY_PREFIX: &str = ".new-";

/// Where `path` is written before it is renamed into place. The server does not serve it.
pub fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{TEMPORARY_PREFIX}{name}"))
}

/// Removes what a killed publisher left unfinished in `folder`. Only for who holds the lock.
pub fn remove_temporaries(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            // One that stays is only a waste of space; the next run tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes `bytes` to `path`: beside it first, made durable, then renamed over it.
///
/// # Errors
/// [`Error::Disk`]; `path` then holds what it held before.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = temporary(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::disk("write", path))?;
    patiently(|| fs::rename(&temporary, path)).map_err(Error::disk("write", path))?;
    sync_folder_of(path)
}

/// As [`write_atomic`], but does nothing when `path` holds `bytes` already. True if it wrote.
///
/// # Errors
/// [`Error::Disk`].
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    write_atomic(path, bytes).map(|()| true)
}

/// Makes renames in the folder of `path` durable.
///
/// # Errors
/// [`Error::Disk`].
pub fn sync_folder_of(path: &Path) -> Result<(), Error> {
    sync_folder(folder_of(path))
}

/// The folder that `path` lies in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// Makes renames in `folder` durable.
///
/// # Errors
/// [`Error::Disk`].
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    // Windows has no such call; its renames are journalled by the file system.
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::disk("flush", folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Makes the folder and those above it.
///
/// # Errors
/// [`Error::Disk`].
pub fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::disk("make the folder", path))
}

/// The file's bytes, at most `max`.
///
/// # Errors
/// [`Error::Disk`], or [`Error::Content`] if it is larger.
pub fn read_capped(path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::disk("read", path))?;
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(Error::disk("read", path))?;
    if bytes.len() > max {
        return Err(Error::content(path, format!("larger than the {max} bytes it may have")));
    }
    Ok(bytes)
}

/// As [`read_capped`]; `None` if there is no such file.
///
/// # Errors
/// As [`read_capped`].
pub fn read_if_there(path: &Path, max: usize) -> Result<Option<Vec<u8>>, Error> {
    match read_capped(path, max) {
        Err(Error::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// As [`write_secret`], over what is there: `path` holds the old text or the new one.
///
/// # Errors
/// [`Error::Disk`].
pub fn replace_secret(path: &Path, text: &str) -> Result<(), Error> {
    let temporary = temporary(path);
    if temporary.exists() {
        fs::remove_file(&temporary).map_err(Error::disk("remove", &temporary))?;
    }
    write_secret(&temporary, text)?;
    fs::rename(&temporary, path).map_err(Error::disk("write", path))?;
    sync_folder_of(path)
}

/// Writes a new file that only its owner may read: whole and durable, or not there. Never replaces one.
///
/// # Errors
/// [`Error::Disk`].
pub fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    let write = || {
        // Of a random name, which only its owner may read: a kill leaves no half of a key under the key's own name.
        let mut file =
            tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(folder_of(path))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(Error::disk("write", path))?;
    sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_lies_in_the_folder_we_are_in() {
        sync_folder_of(Path::new("a")).unwrap();
    }

    #[test]
    fn atomic_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"one").unwrap();
        assert!(!write_if_changed(&path, b"one").unwrap());
        assert!(write_if_changed(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(read_capped(&path, 2).is_err());
        assert_eq!(read_if_there(&dir.path().join("b"), 2).unwrap(), None);
        let error = write_atomic(&dir.path().join("no/b"), b"").unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::DISK);
        assert!(error.to_string().contains("no"), "{error}");
    }

    #[test]
    fn secrets_are_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        write_secret(&path, "s").unwrap();
        assert!(write_secret(&path, "t").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "s");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
