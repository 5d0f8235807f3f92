//! Exit codes, the same for every command. Scripts may rely on them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also "was done already" |
//! | 1 | a fault of this program |
//! | 2 | wrong arguments or configuration |
//! | 3 | the build was refused: something in it would break a player |
//! | 4 | a repository, torrent or document is damaged, or not what was expected |
//! | 5 | a key is missing, unreadable or of another role |
//! | 6 | the disk: not found, not writable, full |
//! | 7 | the network: an address is in use, a server cannot be reached |
//! | 8 | another publisher works on the same repository, or has just changed it: run again |
//! | 9 | a document waits for signatures; nothing went live |
//! | 130 | stopped by Ctrl-C before it was done |

/// Done.
pub const OK: u8 = 0;
/// A fault of this program.
pub const INTERNAL: u8 = 1;
/// Wrong arguments or configuration.
pub const USAGE: u8 = 2;
/// The build was refused.
pub const REFUSED: u8 = 3;
/// Damaged or unexpected content.
pub const CONTENT: u8 = 4;
/// Trouble with a key.
pub const KEY: u8 = 5;
/// Trouble with the disk.
pub const DISK: u8 = 6;
/// Trouble with the network.
pub const NETWORK: u8 = 7;
/// The repository is locked.
pub const BUSY: u8 = 8;
/// Signatures are missing.
pub const WAITING: u8 = 9;
/// Stopped before the end.
pub const STOPPED: u8 = 130;
