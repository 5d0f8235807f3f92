//! Exit codes. They are part of the interface: scripts depend on them.

use std::process::ExitCode;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done; for `check`: up to date.
    Done = 0,
    /// 1: failed for a reason not listed here.
    Failed = 1,
    /// 2: the command line or the feed makes no sense.
    Usage = 2,
    /// 3: `check`: there is an update.
    UpdateAvailable = 3,
    /// 4: `verify`: files are damaged or missing.
    Damaged = 4,
    /// 5: another launcher is at work on this install.
    Busy = 5,
    /// 6: no source could be reached, or the port is taken.
    Network = 6,
    /// 7: what the sources served was refused: signatures, sequences, hashes.
    Trust = 7,
    /// 8: the disk: full, read-only, not allowed, or a damaged record.
    Disk = 8,
    /// 9: the folder: no install, not empty, or of another product.
    Folder = 9,
    /// 130: stopped by the player; the same command goes on from there.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
