//! `seed`: shares any torrent from a folder that holds its content.

use crate::output::{Output, bytes};
use crate::serve::session_error;
use crate::{Error, torrent};
use serde_json::json;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use updraft_protocol::io::check;
use updraft_protocol::io::{AddTorrent, Have, Phase, Session, SessionConfig, Status, UploadPolicy};
use updraft_protocol::metainfo::Info;

/// How often the count is told, when it changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// The engine refreshes its numbers more often than this.
const REFRESH_MAX: Duration = Duration::from_millis(400);

/// What to seed, and where.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The .torrent file.
    pub torrent: PathBuf,
    /// The folder of the content, or the one that holds it.
    pub dir: PathBuf,
    /// Where to listen; `None` for any free port.
    pub listen: Option<SocketAddr>,
    /// Bytes per second.
    pub up_limit: Option<u64>,
    /// Seed what is there, even if it is not all.
    pub partial: bool,
}

/// Seeds until `stop` ends.
///
/// # Errors
/// [`Error::Content`] if the content is not complete (but with `partial`); [`Error::Listen`].
pub async fn seed(
    options: &Seed,
    out: Output,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let metainfo = torrent::read(&options.torrent)?;
    let info = Arc::new(metainfo.info);
    let files = content_files(&info, &options.dir)?;
    let mut config = SessionConfig {
        upload: UploadPolicy::Everyone,
        up_limit: options.up_limit,
        spread: true,
        ..SessionConfig::default()
    };
    if let Some(listen) = options.listen {
        config.listen = vec![listen];
    }
    let session = Session::start(config).await.map_err(session_error)?;
    let add = AddTorrent {
        have: Have::Check,
        seed_only: true,
        trackers: metainfo.trackers,
        ..AddTorrent::new(Arc::clone(&info), files)
    };
    let handle = session.add(add).await.map_err(session_error)?;
    let mut status = handle.status();
    tokio::pin!(stop);
    let result = tokio::select! {
        result = run(options, &info, &session, &mut status, out) => result,
        () = &mut stop => Ok(()),
    };
    // The count is refreshed a few times a second: the last one shall not miss what went out since.
    status.mark_unchanged();
    let _ = tokio::time::timeout(REFRESH_MAX, status.changed()).await;
    let uploaded = status.borrow().up_total;
    session.stop().await;
    if result.is_ok() {
        tell_uploaded(uploaded, status.borrow().peers, out);
    }
    result
}

async fn run(
    options: &Seed,
    info: &Info,
    session: &Session,
    status: &mut tokio::sync::watch::Receiver<Status>,
    out: Output,
) -> Result<(), Error> {
    let gone = || Error::Internal("the transfer engine ended".to_owned());
    let checked = |status: &Status| !matches!(status.phase, Phase::Checking { .. });
    let found = status.wait_for(checked).await.map_err(|_| gone())?.clone();
    if let Phase::Failed(why) = &found.phase {
        return Err(Error::content(&options.dir, why));
    }
    if found.have_bytes < found.wanted_bytes && !options.partial {
        let why = format!(
            "{} of {} are missing or wrong: name the folder that holds `{}`, or pass --partial",
            bytes(found.wanted_bytes - found.have_bytes),
            bytes(found.wanted_bytes),
            info.name
        );
        return Err(Error::content(&options.dir, why));
    }
    let addrs: Vec<_> = session.listen_addrs().iter().map(SocketAddr::to_string).collect();
    let hashes =
        [info.hashes.v1.map(|hash| hash.to_string()), info.hashes.v2.map(|hash| hash.to_string())];
    out.tell(
        "seeding",
        format!("seeding `{}`, {} on {}", info.name, bytes(found.have_bytes), addrs.join(" and ")),
        json!({
            "name": info.name,
            "bytes": found.have_bytes,
            "listen": addrs,
            "v1": hashes[0],
            "v2": hashes[1],
        }),
    );
    let mut told = 0;
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let (uploaded, peers, phase) = {
            let status = status.borrow_and_update();
            (status.up_total, status.peers, status.phase.clone())
        };
        if let Phase::Failed(why) = phase {
            return Err(Error::content(&options.dir, why));
        }
        if uploaded != told {
            told = uploaded;
            tell_uploaded(uploaded, peers, out);
        }
    }
}

fn tell_uploaded(uploaded: u64, peers: usize, out: Output) {
    out.tell(
        "uploaded",
        format!("uploaded={uploaded} ({}, {peers} peers)", bytes(uploaded)),
        json!({ "uploaded": uploaded, "peers": peers }),
    );
}

/// The backing path of every file: `dir` is where a client downloaded to, or the torrent's folder.
fn content_files(info: &Info, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    std::fs::metadata(dir).map_err(Error::disk("read", dir))?;
    let dir = std::path::absolute(dir).map_err(Error::disk("find", dir))?;
    Ok(check::locate(info, &dir))
}
