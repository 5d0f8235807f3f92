//! One torrent being fetched or seeded, told as events.

use crate::error::Error;
use crate::events::{Event, Progress, Sink};
use crate::settings::Settings;
use crate::status::MachineName;
use crate::stop::Stop;
use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use updraft_protocol::io::{
    Encryption, LocalNetwork, Phase, Preference, Session, SessionConfig, SessionError, Status,
    TorrentError, TorrentEvent, TorrentHandle, UploadPolicy,
};

/// How long nothing may come from anywhere before the player is told.
pub(crate) const SILENCE_TOLD: Duration = Duration::from_secs(30);
/// How long nothing may come from anywhere before a release is given up.
pub const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// The most different warnings of one transfer; a swarm can produce any number.
const WARNINGS_MAX: usize = 32;
/// How often the state of seeding is told.
const SEEDING_EVERY: Duration = Duration::from_secs(1);

/// How to take part in the swarm.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Where to listen; empty for any port on all addresses.
    pub listen: Vec<SocketAddr>,
    /// Peers to dial from the start.
    pub peers: Vec<SocketAddr>,
    /// Bytes per second to the internet; `None` for no limit.
    pub up_limit: Option<u64>,
    /// Bytes per second from the internet; `None` for no limit.
    pub down_limit: Option<u64>,
    /// What connections run over.
    pub transport: Preference,
    /// When connections over TCP hide what they are.
    pub encryption: Encryption,
    /// Whether the player agreed to upload to the internet. To the LAN is always allowed.
    pub upload: bool,
    /// Whether others are looked for on the local network, or there alone.
    pub local: LocalNetwork,
    /// Whether others may be looked for there once the player sets it so.
    pub may_be_found: bool,
    /// What others are told that this machine is called.
    pub name: Option<MachineName>,
    /// Take everything from this bundle, and have nothing to do with any network.
    pub bundle: Option<PathBuf>,
    /// Whether the router may be asked to let others in. It is not before the player agreed to upload.
    pub port_mapping: bool,
    /// Nodes to enter the DHT by, none for the well-known ones; `None` to stay out of it. Only public torrents
    /// and products that allow it are looked for there.
    pub dht: Option<Vec<String>>,
}

impl Network {
    /// What the player has set, where nothing else was said.
    pub fn follow(&mut self, settings: &Settings) {
        self.upload |= settings.upload == Some(true);
        self.may_be_found = self.local == LocalNetwork::On && self.bundle.is_none();
        if self.may_be_found && !settings.lan {
            self.local = LocalNetwork::Off;
        }
        self.name = self.name.take().or_else(|| settings.name.clone());
    }

    /// Starts the engine and says where it listens.
    ///
    /// # Errors
    /// [`Error::Listen`] if an address is taken.
    pub async fn start(&self, events: &Sink) -> Result<Session, Error> {
        let mut config = SessionConfig {
            upload: if self.upload { UploadPolicy::Everyone } else { UploadPolicy::LanOnly },
            up_limit: self.up_limit,
            down_limit: self.down_limit,
            transport: self.transport,
            encryption: self.encryption,
            local_network: self.local,
            port_mapping: self.port_mapping && self.upload,
            dht: self.dht.clone(),
            ..SessionConfig::default()
        };
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        if self.bundle.is_some() {
            config.listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
            config.transport = Preference::Tcp;
            (config.local_network, config.port_mapping) = (LocalNetwork::Off, false);
        }
        let session = Session::start(config).await.map_err(|error| match error {
            SessionError::Listen { .. } => Error::Listen(error.to_string()),
            other => Error::Failed(other.to_string()),
        })?;
        let addresses = session.listen_addrs().iter().map(ToString::to_string).collect();
        events(Event::Listening { addresses });
        Ok(session)
    }
}

/// Where the bytes of a finished transfer came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// From peers, those on the LAN included.
    pub peers: u64,
    /// From peers on the LAN.
    pub lan: u64,
    /// Of what came from peers, what did not travel, as it came compressed.
    pub spared: u64,
    /// From web servers, as it came: packs by their compressed length.
    pub http: u64,
    /// The same unpacked.
    pub http_content: u64,
    /// Were there before.
    pub reused: u64,
    /// Came and were thrown away.
    pub wasted: u64,
    /// Sent to others.
    pub uploaded: u64,
}

impl Split {
    /// With what an earlier transfer of the same job fetched.
    pub fn after(self, earlier: Self) -> Self {
        Self {
            peers: self.peers + earlier.peers,
            lan: self.lan + earlier.lan,
            spared: self.spared + earlier.spared,
            http: self.http + earlier.http,
            http_content: self.http_content + earlier.http_content,
            reused: self.reused,
            wasted: self.wasted + earlier.wasted,
            uploaded: self.uploaded + earlier.uploaded,
        }
    }

    /// The last line of a job.
    pub fn complete(&self, version: String, since: Instant) -> Event {
        Event::Complete {
            version,
            seconds: since.elapsed().as_secs_f64(),
            peers_bytes: self.peers,
            lan_bytes: self.lan,
            spared_bytes: self.spared,
            http_bytes: self.http,
            reused_bytes: self.reused,
            wasted_bytes: self.wasted,
            uploaded: self.uploaded,
        }
    }
}

/// Waits until everything wanted is verified and on disk. `elsewhere` are bytes of the release that
/// this transfer has nothing to do with, because they are there already. Given up when nothing came for
/// `patience`.
///
/// # Errors
/// [`Error::Disk`], [`Error::Interrupted`], or [`Error::Network`] when nothing came for a long time.
pub async fn fetch(
    handle: &TorrentHandle,
    piece_count: u32,
    total: u64,
    patience: Duration,
    stop: &Stop,
    events: &Sink,
) -> Result<Split, Error> {
    let mut status = handle.status();
    let mut news = handle.events();
    let mut warnings = Warnings::new(events);
    let mut reused = None;
    let mut last_bytes = (0, Instant::now());
    let finished = handle.finished();
    tokio::pin!(finished);
    loop {
        let silence = tokio::time::sleep(SILENCE_TOLD.min(patience));
        tokio::select! {
            done = &mut finished => {
                done.map_err(torrent_error)?;
                // The engine's last word on its counters comes with the end.
                let now = status.borrow().clone();
                let first = *reused.get_or_insert_with(|| first_have(&now));
                let there = first + now.supplied + total.saturating_sub(now.wanted_bytes);
                return Ok(split(&now, there.min(total)));
            }
            () = stop.raised() => return Err(Error::Interrupted),
            changed = status.changed() => {
                if changed.is_err() {
                    return Err(torrent_error(TorrentError::Stopped));
                }
                let now = status.borrow_and_update().clone();
                if let Phase::Checking { done, total: pieces } = now.phase {
                    let bytes = |count: u32| total.saturating_mul(count.into()) / u64::from(piece_count.max(1));
                    events(Event::Checking { done: bytes(done), total: bytes(pieces) });
                    continue;
                }
                let first = *reused.get_or_insert_with(|| first_have(&now));
                let elsewhere = total.saturating_sub(now.wanted_bytes);
                events(Event::Progress(progress(&now, total, elsewhere, first)));
                let bytes = now.down_peers + now.down_http + now.supplied;
                if bytes != last_bytes.0 {
                    last_bytes = (bytes, Instant::now());
                }
            }
            event = news.recv() => match event {
                Ok(event) => warnings.take(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(torrent_error(TorrentError::Stopped)),
            },
            () = silence => {}
        }
        let silent = last_bytes.1.elapsed();
        if reused.is_some() && silent > SILENCE_TOLD {
            warnings.silent();
        }
        if reused.is_some() && silent > patience {
            return Err(Error::Network {
                what: "the rest of it".into(),
                why: format!(
                    "nothing came for {} minutes{}",
                    patience.as_secs() / 60,
                    warnings.reasons()
                ),
            });
        }
    }
}

/// Uploads until stopped.
///
/// # Errors
/// [`Error::Disk`] when the disk refuses.
pub async fn seed(handle: &TorrentHandle, stop: &Stop, events: &Sink) -> Result<(), Error> {
    let mut status = handle.status();
    let mut news = handle.events();
    let mut warnings = Warnings::new(events);
    let mut tick = tokio::time::interval(SEEDING_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            () = stop.raised() => {
                let now = status.borrow_and_update().clone();
                events(seeding(&Status { up_rate: 0, ..now }));
                return Ok(());
            }
            _ = tick.tick() => {
                let now = status.borrow_and_update().clone();
                if let Phase::Failed(why) = &now.phase {
                    return Err(Error::Failed(why.clone()));
                }
                let seeding = seeding(&now);
                if told.as_ref() != Some(&seeding) {
                    events(seeding.clone());
                    told = Some(seeding);
                }
            }
            event = news.recv() => match event {
                Ok(event) => warnings.take(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(torrent_error(TorrentError::Stopped)),
            },
        }
    }
}

/// What the disk or the engine refused, as an error of ours.
pub fn torrent_error(error: TorrentError) -> Error {
    match error {
        TorrentError::Disk { path, op, kind, error } => {
            // The message has more than the kind alone: the system's own words.
            let source = io::Error::new(kind, error);
            Error::Disk { action: op.into(), path, source }
        }
        other => Error::Failed(other.to_string()),
    }
}

/// Bytes that were there when the transfer began.
fn first_have(now: &Status) -> u64 {
    now.have_bytes.saturating_sub(now.down_peers + now.http_content + now.supplied)
}

fn split(now: &Status, reused: u64) -> Split {
    Split {
        peers: now.down_peers,
        lan: now.down_lan,
        spared: now.down_spared,
        http: now.down_http,
        http_content: now.http_content,
        reused,
        wasted: now.wasted,
        uploaded: now.up_total,
    }
}

fn seeding(now: &Status) -> Event {
    Event::Seeding {
        peers: now.peers,
        quic_peers: now.quic,
        utp_peers: now.utp,
        up_rate: now.up_rate,
        uploaded: now.up_total,
        saved_bytes: now.up_saved,
        packing_seconds: now.packing.as_secs_f64(),
    }
}

fn progress(now: &Status, total: u64, elsewhere: u64, first: u64) -> Progress {
    Progress {
        done: (elsewhere + now.have_bytes).min(total),
        total,
        down_rate: now.down_rate,
        up_rate: now.up_rate,
        eta: now.eta.map(|eta| eta.as_secs_f64()),
        peers: now.peers,
        seeds: now.seeds,
        quic_peers: now.quic,
        utp_peers: now.utp,
        peers_bytes: now.down_peers,
        lan_bytes: now.down_lan,
        spared_bytes: now.down_spared,
        http_bytes: now.down_http,
        reused_bytes: (elsewhere + first + now.supplied).min(total),
        uploaded: now.up_total,
    }
}

/// Tells each warning once.
struct Warnings<'a> {
    events: &'a Sink,
    told: HashSet<String>,
    last: Option<String>,
    silent: bool,
}

impl<'a> Warnings<'a> {
    fn new(events: &'a Sink) -> Self {
        Self { events, told: HashSet::new(), last: None, silent: false }
    }

    fn take(&mut self, event: TorrentEvent) {
        match event {
            TorrentEvent::TrackerError { url, error } => {
                self.tell(format!("tracker {url}: {error}"));
            }
            TorrentEvent::WebSeedError { error } => self.tell(error),
            TorrentEvent::PeerBanned { addr, reason } => {
                self.tell(format!("peer {addr} is banned: {reason}"));
            }
            TorrentEvent::PieceLost(piece) => {
                self.tell(format!("piece {piece} on the disk is no longer what it was"));
            }
            TorrentEvent::PieceVerified(_) => self.silent = false,
            TorrentEvent::PieceFailed(piece) => tracing::info!(%piece, "came in wrong"),
            TorrentEvent::TrackerOk { url, peers } => tracing::info!(url, peers, "tracker"),
            TorrentEvent::FirstComplete => (self.events)(Event::FirstReady),
            TorrentEvent::Complete => {}
        }
    }

    fn tell(&mut self, message: String) {
        tracing::info!(message);
        self.last = Some(message.clone());
        if self.told.len() < WARNINGS_MAX && self.told.insert(message.clone()) {
            (self.events)(Event::Warning { message });
        }
    }

    fn silent(&mut self) {
        if !std::mem::replace(&mut self.silent, true) {
            let message = format!(
                "nothing has come from anywhere for {} seconds; still trying{}",
                SILENCE_TOLD.as_secs(),
                self.reasons()
            );
            if self.told.len() < WARNINGS_MAX && self.told.insert(message.clone()) {
                (self.events)(Event::Warning { message });
            }
        }
    }

    fn reasons(&self) -> String {
        self.last.as_ref().map_or_else(String::new, |last| format!(" (last: {last})"))
    }
}
