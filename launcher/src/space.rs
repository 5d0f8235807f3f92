//! Free space on the disk of a folder.

use std::path::Path;

/// Bytes that an ordinary user may still write to the disk of `dir`; `None` if the system does not
/// say.
#[cfg(unix)]
pub fn free(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that an ordinary user may still write to the disk of `dir`; `None` if the system does not
/// say.
#[cfg(not(unix))]
pub fn free(_dir: &Path) -> Option<u64> {
    None
}
