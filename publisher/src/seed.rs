//! `seed`: shares any torrents from a folder that holds their content.

use crate::output::{Output, bytes};
use crate::serve::session_error;
use crate::{Error, torrent};
use serde_json::json;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use updraft_protocol::io::check;
use updraft_protocol::io::{
    AddTorrent, Encryption, Have, Phase, Preference, Session, SessionConfig, Status, UploadPolicy,
};
use updraft_protocol::metainfo::{Info, Metainfo};

/// How often the count is told, when it changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// The engine refreshes its numbers more often than this.
const REFRESH_MAX: Duration = Duration::from_millis(400);

/// What to seed, and where.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The .torrent files.
    pub torrents: Vec<PathBuf>,
    /// The folder of the content, or the one that holds it; with several torrents, the one that
    /// holds them all.
    pub dir: PathBuf,
    /// Where to listen; `None` for any free port.
    pub listen: Option<SocketAddr>,
    /// Bytes per second.
    pub up_limit: Option<u64>,
    /// What connections run over.
    pub transport: Preference,
    /// When connections over TCP and uTP hide what they are.
    pub encryption: Encryption,
    /// Nodes to enter the DHT by, none for the well-known ones; `None` to stay out of it.
    pub dht: Option<Vec<String>>,
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
    let mut torrents = Vec::with_capacity(options.torrents.len());
    for path in &options.torrents {
        let metainfo = torrent::read(path)?;
        torrents.push((content_files(&metainfo.info, &options.dir)?, metainfo));
    }
    let mut config = SessionConfig {
        upload: UploadPolicy::Everyone,
        up_limit: options.up_limit,
        transport: options.transport,
        encryption: options.encryption,
        dht: options.dht.clone(),
        spread: true,
        ..SessionConfig::default()
    };
    if let Some(listen) = options.listen {
        config.listen = vec![listen];
    }
    let session = Session::start(config).await.map_err(session_error)?;
    let mut seeded = Vec::with_capacity(torrents.len());
    for (files, Metainfo { info, trackers, .. }) in torrents {
        let info = Arc::new(info);
        let add = AddTorrent {
            have: Have::Check,
            seed_only: true,
            dht: true,
            trackers,
            ..AddTorrent::new(Arc::clone(&info), files)
        };
        let handle = session.add(add).await.map_err(session_error)?;
        seeded.push(Seeded { info, status: handle.status() });
    }
    tokio::pin!(stop);
    let result = tokio::select! {
        result = run(options, &session, &mut seeded, out) => result,
        () = &mut stop => Ok(()),
    };
    // Counts are refreshed a few times a second: the last ones shall not miss what went out since.
    tokio::time::sleep(REFRESH_MAX).await;
    let (uploaded, peers) = counts(&seeded);
    session.stop().await;
    if result.is_ok() {
        tell_uploaded(uploaded, peers, out);
    }
    result
}

/// A torrent in the session.
struct Seeded {
    info: Arc<Info>,
    status: watch::Receiver<Status>,
}

/// Bytes sent and peers, of all torrents.
fn counts(seeded: &[Seeded]) -> (u64, usize) {
    seeded.iter().fold((0, 0), |(uploaded, peers), torrent| {
        let status = torrent.status.borrow();
        (uploaded + status.up_total, peers + status.peers)
    })
}

async fn run(
    options: &Seed,
    session: &Session,
    seeded: &mut [Seeded],
    out: Output,
) -> Result<(), Error> {
    let addrs: Vec<_> = session.listen_addrs().iter().map(SocketAddr::to_string).collect();
    for Seeded { info, status } in &mut *seeded {
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
        let (name, have) = (&info.name, bytes(found.have_bytes));
        out.tell(
            "seeding",
            format!("seeding `{name}`, {have} on {}", addrs.join(" and ")),
            json!({
                "name": name,
                "bytes": found.have_bytes,
                "listen": addrs,
                "v1": info.hashes.v1.map(|hash| hash.to_string()),
                "v2": info.hashes.v2.map(|hash| hash.to_string()),
            }),
        );
    }
    let mut told = 0;
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        for torrent in &*seeded {
            if let Phase::Failed(why) = &torrent.status.borrow().phase {
                return Err(Error::content(&options.dir, why));
            }
        }
        let (uploaded, peers) = counts(seeded);
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
