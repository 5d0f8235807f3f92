//! What can go wrong, to what, and what to do about it.

use crate::exit;
use crate::waiting::Waiting;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use updraft_manifests::keys::PublicKey;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong arguments or configuration.
    #[error("{0}")]
    Usage(String),
    /// The configuration file cannot be used.
    #[error("{path}: {why}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The build holds what would break a player or leak a secret.
    #[error("the build was refused, nothing was published:\n  {}", problems.join("\n  "))]
    Refused {
        /// One line per fault, with the name.
        problems: Vec<String>,
    },
    /// A file of the build changed while it was read.
    #[error("{path} changed while it was being published: stop what writes to the build, run again", path = path.display())]
    BuildChanged {
        /// The file.
        path: PathBuf,
    },
    /// Damaged or unexpected content.
    #[error("{path}: {why}", path = path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Several faults, found by `verify`.
    #[error("{count} faults in {path}: delete the damaged files and publish the same build again, or copy them from a mirror", path = path.display())]
    Faults {
        /// The repository.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A key is missing, unreadable or of another role.
    #[error("the {role} key {path}: {why}", path = path.display())]
    Key {
        /// Its role.
        role: &'static str,
        /// Its file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The program that signs for a role did not.
    #[error("`{program}`, which signs for the {role} role: {why}")]
    Signer {
        /// The role.
        role: &'static str,
        /// The command, as configured.
        program: String,
        /// What is wrong.
        why: String,
    },
    /// Documents lack signatures.
    #[error(
        "nothing went live yet: signatures are missing\n  {}\nsign with `updraft-publisher sign DOCUMENT --key \
         FILE` wherever a key is, put the document back if it was elsewhere, and run the same command again",
        .0.iter().map(waiting_line).collect::<Vec<_>>().join("\n  ")
    )]
    Waiting(Vec<Waiting>),
    /// The disk.
    #[error("cannot {action} {path}: {}", advice(source), path = path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {}", listen_advice(source))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// The network.
    #[error("{0}")]
    Network(String),
    /// Another publisher works on the same repository.
    #[error(
        "another updraft-publisher is working on {path}: run the same command again when it is done",
        path = path.display()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Another publisher has changed what is offered while this one was at work.
    #[error(
        "another updraft-publisher has changed {path} meanwhile, so nothing of this run went live: run the same \
         command again, it goes on with what is ready",
        path = path.display()
    )]
    Overtaken {
        /// The head.
        path: PathBuf,
    },
    /// Stopped before the end.
    #[error("stopped; what was published before is untouched")]
    Stopped,
    /// A fault of this program.
    #[error("{0} (this is a fault of updraft-publisher: please report it)")]
    Internal(String),
}

impl Error {
    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config { .. } => exit::USAGE,
            Self::Refused { .. } | Self::BuildChanged { .. } => exit::REFUSED,
            Self::Content { .. } | Self::Faults { .. } => exit::CONTENT,
            Self::Key { .. } | Self::Signer { .. } => exit::KEY,
            Self::Waiting(_) => exit::WAITING,
            Self::Disk { .. } => exit::DISK,
            Self::Listen { .. } | Self::Network(_) => exit::NETWORK,
            Self::Busy { .. } | Self::Overtaken { .. } => exit::BUSY,
            Self::Stopped => exit::STOPPED,
            Self::Internal(_) => exit::INTERNAL,
        }
    }

    /// For `map_err`: a disk error of `action` on `path`.
    pub fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Disk { action, path, source }
    }

    /// Content that is not what it should be.
    pub fn content(path: &Path, why: impl ToString) -> Self {
        Self::Content { path: path.to_path_buf(), why: why.to_string() }
    }
}

fn waiting_line(waiting: &Waiting) -> String {
    let Waiting { path, role, missing, keys, strangers, replaced } = waiting;
    let list =
        |keys: &[PublicKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let path = path.display();
    let mut line = format!("{path} waits for {missing} more of the {role} keys {}", list(keys));
    if !strangers.is_empty() {
        line += &format!(
            "\n    signed by {}, too, which does not count: the root lists no such {role} key",
            list(strangers)
        );
    }
    if let Some((version, signatures)) = replaced {
        line += &format!(
            "\n    it took the place of {version}, which waited there with {signatures} signatures and does \
             not any more"
        );
    }
    line
}

fn advice(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space and run again"
        }
        io::ErrorKind::PermissionDenied => "check the owner and the permissions",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        io::ErrorKind::NotFound => "check the path",
        _ => return error.to_string(),
    };
    format!("{error}: {hint}")
}

fn listen_advice(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the other program, or choose another port (0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need rights; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => return error.to_string(),
    };
    format!("{error}: {hint}")
}
