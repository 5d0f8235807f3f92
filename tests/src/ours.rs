//! Our two programs, started as a user starts them. What the command lines look like and what they
//! print is known here and nowhere else in the suites.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::lab::Node;
use crate::process::Proc;

/// The launcher's own folder at the top of an install.
pub const STATE_FOLDER: &str = ".updraft";
/// How long a program may take until it says that it is ready.
pub const READY_WAIT: Duration = Duration::from_secs(30);
/// How long a transfer of some megabytes may take.
pub const TRANSFER_WAIT: Duration = Duration::from_secs(60);

/// Where a program runs.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine as it is.
    Here,
    /// On a host of a lab.
    #[cfg(target_os = "linux")]
    On(Node),
}

#[cfg(target_os = "linux")]
impl From<&Node> for Place {
    fn from(node: &Node) -> Self {
        Self::On(node.clone())
    }
}

impl Place {
    /// A command that will run there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Here => Command::new(program),
            #[cfg(target_os = "linux")]
            Self::On(node) => node.command(program),
        }
    }

    /// The launcher there.
    pub fn launcher(&self) -> Command {
        self.command(binary("updraft-launcher"))
    }

    /// The publisher there.
    pub fn publisher(&self) -> Command {
        self.command(binary("updraft-publisher"))
    }
}

/// The path of one of our programs: `$UPDRAFT_BIN_DIR`, or the release folder of the workspace.
///
/// # Panics
/// When it was not built.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("UPDRAFT_BIN_DIR").map_or_else(
        || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = std::env::var_os("CARGO_TARGET_DIR");
            target.map_or_else(|| root.join("target"), PathBuf::from).join("release")
        },
        PathBuf::from,
    );
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is not built: cargo build --release --workspace --bins",
        path.display()
    );
    path
}

/// Makes a torrent with our publisher.
///
/// # Panics
/// When it fails.
pub fn create_torrent(path: &Path, out: &Path, format: &str, trackers: &[String]) {
    let mut command = Place::Here.publisher();
    command.args(["torrent", "create"]).arg(path).arg("-o").arg(out).args(["--format", format]);
    for tracker in trackers {
        command.args(["--tracker", tracker]);
    }
    Proc::start("torrent create", command).finish(READY_WAIT);
}

/// Seeds a torrent with our publisher; `dir` holds the torrent's file or folder.
pub fn seed(place: &Place, torrent: &Path, dir: &Path, listen: SocketAddr) -> Proc {
    let mut command = place.publisher();
    command.arg("seed").arg(torrent).arg("--dir").arg(dir).args(["--listen", &listen.to_string()]);
    Proc::start("our seed", command)
}

/// Downloads a torrent with our launcher.
pub fn fetch(place: &Place, torrent: &Path, dir: &Path, listen: SocketAddr, peers: &[SocketAddr], stay: bool) -> Proc {
    let mut command = place.launcher();
    command.arg("fetch").arg(torrent).arg("--dir").arg(dir).args(["--listen", &listen.to_string()]);
    for peer in peers {
        command.args(["--peer", &peer.to_string()]);
    }
    if stay {
        command.arg("--stay");
    }
    Proc::start("our fetch", command)
}

/// Waits until a `fetch --stay` has all of its torrent.
pub fn wait_fetched(fetch: &Proc, within: Duration) {
    fetch.wait_line("complete", within);
}
