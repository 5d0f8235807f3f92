//! Free space on the disk of a folder.

use std::path::Path;

/// Bytes that an ordinary user may still write to the disk of `dir`; `None` if the system does not
/// say.
#[cfg(unix)]
pub fn free(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that this user may still write to the disk of `dir`; `None` if the system does not say.
#[cfg(windows)]
pub fn free(dir: &Path) -> Option<u64> {
    fs4::available_space(dir).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_folder_has_some() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free(dir.path()).is_some_and(|bytes| bytes > 0));
        // Windows tells of the disk where the folder would be.
        assert!(cfg!(windows) || free(&dir.path().join("none")).is_none());
    }
}
