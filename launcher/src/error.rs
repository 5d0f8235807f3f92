//! What can go wrong, in words: what happened, where, and what to do about it.

use crate::apply::ApplyError;
use crate::exit::Exit;
use crate::units;
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use updraft_manifests::trust::TrustError;
use url::Url;

/// Why a command did not do its job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the feed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no install at that folder.
    #[error("{dir} holds no Updraft install", dir = .0.display())]
    NotInstalled(PathBuf),
    /// A folder with other things in it.
    #[error("{dir} is not empty and was not made by Updraft", dir = .0.display())]
    NotOurs(PathBuf),
    /// An install of another product, or of the same name under other keys.
    #[error("{dir} holds an install of `{found}` under another feed", dir = .dir.display())]
    OtherProduct {
        /// The folder.
        dir: PathBuf,
        /// The product in it.
        found: String,
    },
    /// No earlier release to go back to.
    #[error("the files of no earlier release are kept here")]
    NothingKept,
    /// Another launcher works on this install.
    #[error("another launcher is at work on {dir}", dir = .0.display())]
    Busy(PathBuf),
    /// No source answered.
    #[error("cannot get {what}: {why}")]
    Network {
        /// What was to be fetched.
        what: String,
        /// What each source said.
        why: String,
    },
    /// A bundle that is damaged, incomplete, old, or of something else.
    #[error("nothing can be brought in from the bundle {dir}: {why}", dir = .dir.display())]
    Bundle {
        /// The bundle.
        dir: PathBuf,
        /// What is wrong.
        why: Box<Self>,
    },
    /// Signatures, sequences or hashes do not fit.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// The same, of what a repository serves for its head.
    #[error("{from}: {error}")]
    Refused {
        /// The repository.
        from: Box<Url>,
        /// Why.
        error: TrustError,
    },
    /// A release that cannot be used, although it is signed.
    #[error("the release {version} cannot be used: {why}")]
    Release {
        /// Its version.
        version: String,
        /// What is wrong with it.
        why: String,
    },
    /// A version of the launcher itself that is not taken, although it is signed.
    #[error("the launcher {version} is not taken: {why}")]
    Launcher {
        /// Its version.
        version: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Disk {
        /// What was to be done.
        action: Cow<'static, str>,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not enough room.
    #[error(
        "not enough space on the disk of {dir}: {need} are needed, {free} are free",
        dir = .dir.display(), need = units::bytes(*.need), free = units::bytes(*.free)
    )]
    Space {
        /// The install folder.
        dir: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        free: u64,
        /// True if replacing files batch by batch may do with less.
        bounded: bool,
    },
    /// An update that replaces files batch by batch was begun.
    #[error("the update to {version} is half done: some files are new, some are not")]
    Halfway {
        /// Its version.
        version: String,
    },
    /// The launcher's own records cannot be read.
    #[error("the record {path} is damaged: {why}", path = .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No socket.
    #[error("{0}")]
    Listen(String),
    /// Some files are not as released.
    #[error("{files} of the installed files are damaged or missing ({bytes})",
        bytes = units::bytes(*.bytes))]
    Damaged {
        /// How many.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The player stopped it.
    #[error("stopped")]
    Interrupted,
    /// Anything else that the engine reports.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub fn disk(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Disk { action: action.into(), path, source }
    }

    /// As [`Error::disk`] for a step of the switch, whose paths are below `dir`.
    pub fn apply(dir: &Path) -> impl FnOnce(ApplyError) -> Self + use<> {
        let dir = dir.to_path_buf();
        move |ApplyError { action, path, source }| Self::Disk {
            action: action.into(),
            path: dir.join(path),
            source,
        }
    }

    /// The process' exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotInstalled(_) | Self::NotOurs(_) | Self::OtherProduct { .. } => Exit::Folder,
            Self::Bundle { why, .. } => why.exit(),
            Self::Busy(_) => Exit::Busy,
            Self::Network { .. } | Self::Listen(_) => Exit::Network,
            Self::Trust(_)
            | Self::Refused { .. }
            | Self::Release { .. }
            | Self::Launcher { .. } => Exit::Trust,
            Self::Disk { .. } | Self::Space { .. } | Self::State { .. } => Exit::Disk,
            Self::Damaged { .. } => Exit::Damaged,
            Self::Interrupted => Exit::Interrupted,
            Self::NothingKept | Self::Halfway { .. } | Self::Failed(_) => Exit::Failed,
        }
    }

    /// What the player can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotInstalled(_) => {
                "name the folder with --dir, or install first: updraft-launcher install FEED --dir DIR"
                    .into()
            }
            Self::NotOurs(_) => "choose an empty folder, or add --adopt to use what is right in \
                                 this one; nothing in it is deleted"
                .into(),
            Self::OtherProduct { .. } => "choose another folder".into(),
            Self::NothingKept => "what an update replaces is kept for 72 hours while there is room; \
                                  install an earlier version when its publisher offers it again"
                .into(),
            Self::Busy(_) => "wait until it is done, or stop it".into(),
            Self::Network { .. } => {
                "check the connection and the feed's address, then run the same command again; \
                 what is fetched is kept"
                    .into()
            }
            Self::Bundle { .. } => "nothing that is installed has changed, and what was read is kept: run it again if \
                                    the stick was unplugged, else `export` it anew where the game is"
                .into(),
            Self::Listen(_) => "choose another address or port with --listen".into(),
            Self::Disk { source, .. } => disk_hint(source)?.into(),
            Self::Space { need, free, bounded, .. } => {
                let short = units::bytes(need.saturating_sub(*free));
                let instead = if *bounded {
                    ", or add --bounded-space: files are replaced one after the other then, and until \
                     the last one is, the game cannot be played and there is no way back"
                } else {
                    ""
                };
                format!("free {short} and run it again{instead}")
            }
            Self::Halfway { .. } => "run `updraft-launcher update` to go on".into(),
            Self::State { .. } => "run `install FEED --dir DIR --adopt` on this folder: it checks \
                                   every file and writes the records anew"
                .into(),
            Self::Damaged { .. } => "run `updraft-launcher repair`".into(),
            Self::Interrupted => "run the same command again to go on: what is fetched is kept".into(),
            Self::Trust(TrustError::LauncherTooOld { .. }) => {
                "`updraft-launcher self-update` brings the newest launcher, if it was started by its \
                 stub; then run the same command again"
                    .into()
            }
            Self::Usage(_)
            | Self::Trust(_)
            | Self::Refused { .. }
            | Self::Release { .. }
            | Self::Launcher { .. }
            | Self::Failed(_) => return None,
        })
    }
}

fn disk_hint(source: &io::Error) -> Option<&'static str> {
    Some(match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space and run the same command again; what is fetched is kept"
        }
        io::ErrorKind::PermissionDenied => {
            "you may not write there: choose a folder of your own with --dir, close the game if it \
             runs, or change the folder's rights"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only: choose another with --dir",
        io::ErrorKind::ResourceBusy | io::ErrorKind::ExecutableFileBusy => {
            "the file is in use: close the game and run the same command again"
        }
        _ => return None,
    })
}
