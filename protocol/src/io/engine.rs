//! The task that owns everything: each swarm, each connection's end, the disk's queue, the limits.
//!
//! It takes one event at a time, hands it to the swarm it concerns, and carries out what the swarm
//! orders. It never waits for a peer, a disk or a tracker: what cannot go on at once is refused or
//! closed.

mod connecting;
mod documents;
mod nodes;
mod packing;
mod torrent;

use super::buffers::{BufferPool, READ_BUFFERS_MAX, RECEIVE_BUFFERS_MAX};
use super::connection::{self, Connection, NetEvent, Route};
use super::dht::Dht;
use super::documents::{Documents, Lookups};
use super::lsd::Lsd;
use super::mapping::Mapping;
use super::parcels::{Packed, Packer};
use super::quic::Quic;
use super::session::{
    AddTorrent, LocalNetwork, SessionConfig, SessionError, Status, TorrentError, TorrentEvent,
};
use super::storage::{AddFiles, Disk, DiskEvent, DiskOp, TorrentKey, Verdict, WRITE_BYTES_MAX};
use super::utp::Utp;
use super::webseed::{self, FetchError};
use crate::geometry::Block;
use crate::ids::{InfoHash, PeerId, PeerKey};
use crate::policy::limiter::Limiter;
use crate::swarm::{
    Description, DescriptionError, FetchEnd, Input, Output, PeerSummary, UploadPolicy,
};
use crate::wire::documents::DocumentMessage;
use crate::wire::extension::ours;
use crate::wire::message::Message;
use bytes::Bytes;
use packing::Gathered;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use torrent::{State, Torrent};

/// Threads for the disk: two cores hash at 3.5 GB/s, and a disk has no use for more queues.
const DISK_THREADS: usize = 2;
/// Events waiting for the engine, per channel; whoever sends more waits.
const EVENTS_MAX: usize = 256;
/// Events taken in one go.
const BATCH: usize = 64;
/// Status is published this often while it changes.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// Blocks ordered from the disk in one go: what one read buffer holds.
const READ_BLOCKS: usize = 16;
/// Blocks that the disk may owe one peer: what is read ahead at most, in whole blocks, twice. Only who
/// asks for crumbs comes near it, and is not to fill the disk's queue with them.
const AWAITED_MAX: usize = 512;
/// Documents looked up for peers at once.
const LOOKUPS_MAX: usize = 32;

/// What a session hands to its engine.
pub(super) struct Setup {
    pub(super) config: SessionConfig,
    pub(super) peer_id: PeerId,
    pub(super) seed: u64,
    pub(super) bind: Option<IpAddr>,
    pub(super) listen: Arc<[SocketAddr]>,
    pub(super) quic: Option<Quic>,
    pub(super) utp: Option<Utp>,
}

/// Who waits for what a link leads to.
pub(super) type Found = oneshot::Sender<Result<Description, DescriptionError>>;

/// What handles ask of the engine.
pub(super) enum Command {
    Add {
        add: Box<AddTorrent>,
        /// If the torrent is known by a link alone: where to tell what it is.
        found: Option<Found>,
        events: broadcast::Sender<TorrentEvent>,
        reply: oneshot::Sender<Result<(TorrentKey, watch::Receiver<Status>), SessionError>>,
    },
    Finished {
        torrent: TorrentKey,
        reply: oneshot::Sender<Result<(), TorrentError>>,
    },
    Sync {
        torrent: TorrentKey,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Remap {
        torrent: TorrentKey,
        files: Vec<PathBuf>,
        reply: oneshot::Sender<()>,
    },
    Peers {
        torrent: TorrentKey,
        peers: Vec<SocketAddr>,
    },
    ListPeers {
        torrent: TorrentKey,
        reply: oneshot::Sender<Vec<PeerSummary>>,
    },
    Document {
        peer: PeerKey,
        path: String,
        reply: oneshot::Sender<Option<Bytes>>,
    },
    SeedOnly {
        torrent: TorrentKey,
        reply: oneshot::Sender<()>,
    },
    Remove {
        torrent: TorrentKey,
        reply: oneshot::Sender<()>,
    },
    SetUpload(UploadPolicy),
    SetFoundLocally(bool),
    SetLimits {
        up: Option<u64>,
        down: Option<u64>,
    },
    Stop(oneshot::Sender<()>),
}

/// What helper tasks tell the engine.
#[derive(Debug)]
pub(super) enum Note {
    /// Blocks of an HTTP range, with their bytes taken from the write budget.
    Fetched { torrent: TorrentKey, fetch: PeerKey, blocks: Vec<(Block, Bytes)> },
    /// Blocks that the caller had, with their bytes taken from the write budget.
    Supplied { torrent: TorrentKey, blocks: Vec<(Block, Bytes)> },
    /// The caller has no more.
    SupplyEnded { torrent: TorrentKey },
    /// An HTTP range has ended.
    FetchEnded { torrent: TorrentKey, fetch: PeerKey, error: Option<FetchError> },
    /// The finished files have their exact lengths and bits.
    Completed { torrent: TorrentKey, result: io::Result<()> },
    /// A tracker answered or failed.
    Tracker { torrent: TorrentKey, report: super::trackers::TrackerReport },
    /// A peer of a torrent was found on the local network.
    Found { hash: InfoHash, addr: SocketAddr },
    /// Peers of a torrent were found in the DHT.
    Heard { hash: InfoHash, addrs: Vec<SocketAddr> },
    /// Our node of the DHT is at this UDP port.
    DhtPort(u16),
    /// Blocks for a peer were compressed, or not.
    Packed(Packed),
    /// A document was looked up for a peer.
    Answer { peer: PeerKey, message: DocumentMessage },
}

struct PeerEntry {
    torrent: TorrentKey,
    lan: bool,
    connection: Connection,
    gathered: Gathered,
    lookups: Lookups,
    /// Its address, if it is in the DHT, and we are with this torrent.
    node: Option<SocketAddr>,
}

/// The engine and all it owns.
pub(super) struct Engine {
    setup: Setup,
    epoch: Instant,
    limiter: Limiter,
    http: reqwest::Client,
    disk: Disk,
    disk_events: mpsc::Receiver<DiskEvent>,
    shared: connection::Shared,
    net_events: mpsc::Receiver<NetEvent>,
    note: mpsc::Sender<Note>,
    notes: mpsc::Receiver<Note>,
    lookups: Arc<Semaphore>,
    /// The upload limit stands in the way of documents for others.
    lookups_wait: bool,
    packer: Packer,
    torrents: BTreeMap<TorrentKey, Torrent>,
    by_hash: HashMap<InfoHash, TorrentKey>,
    /// The names in it, for those who answer encrypted handshakes.
    names: watch::Sender<Vec<InfoHash>>,
    peers: HashMap<PeerKey, PeerEntry>,
    documents: Documents,
    lsd: Option<Lsd>,
    dht: Option<Dht>,
    mapping: Option<Mapping>,
    next_torrent: u32,
    next_peer: u32,
    publish_at: Option<Duration>,
}

impl Engine {
    /// Starts the disk's threads; the engine runs once [`Engine::run`] does. Must be called in a tokio
    /// runtime.
    pub(super) fn start(setup: Setup) -> io::Result<Self> {
        let (disk_sender, disk_events) = mpsc::channel(EVENTS_MAX);
        let (net_sender, net_events) = mpsc::channel(EVENTS_MAX);
        let (note, notes) = mpsc::channel(EVENTS_MAX);
        let disk = Disk::start(DISK_THREADS, BufferPool::new(READ_BUFFERS_MAX), disk_sender)?;
        let lsd = (setup.config.local_network != LocalNetwork::Off)
            .then(|| Lsd::start(Arc::clone(&setup.listen), setup.seed, note.clone()));
        let bootstrap = setup.config.dht.clone();
        let bootstrap = bootstrap.filter(|_| setup.config.local_network != LocalNetwork::Only);
        let dht = bootstrap.and_then(|nodes| Dht::start(nodes, &setup.listen, note.clone()));
        let maps = setup.config.port_mapping && setup.config.local_network != LocalNetwork::Only;
        let datagrams = setup.quic.as_ref().and_then(Quic::port);
        let mapping = maps.then(|| Mapping::start(&setup.listen, datagrams)).flatten();
        let budget = usize::try_from(WRITE_BYTES_MAX).expect("8 MiB fit any address space");
        Ok(Self {
            epoch: Instant::now(),
            limiter: Limiter::new(setup.config.up_limit, setup.config.down_limit),
            http: webseed::http_client(setup.bind).map_err(io::Error::other)?,
            disk,
            disk_events,
            shared: connection::Shared {
                pool: BufferPool::new(RECEIVE_BUFFERS_MAX),
                budget: Arc::new(Semaphore::new(budget)),
                room: Arc::new(Semaphore::new(connection::MESSAGE_BYTES_MAX)),
                events: net_sender,
                declines: Arc::new(Semaphore::new(connection::DECLINES_MAX)),
            },
            net_events,
            packer: Packer::start(note.clone())?,
            note,
            notes,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            lookups_wait: false,
            torrents: BTreeMap::new(),
            by_hash: HashMap::new(),
            names: watch::Sender::default(),
            peers: HashMap::new(),
            documents: Documents::default(),
            lsd,
            dht,
            mapping,
            next_torrent: 0,
            next_peer: 0,
            publish_at: None,
            setup,
        })
    }

    /// Where accepted connections are handed in.
    pub(super) fn net_events(&self) -> mpsc::Sender<NetEvent> {
        self.shared.events.clone()
    }

    /// What answers those who dial by TCP or uTP.
    pub(super) fn greeter(&self) -> connection::Greeter {
        let encryption = self.setup.config.encryption;
        connection::Greeter {
            events: self.net_events(),
            torrents: self.names.subscribe(),
            encryption,
        }
    }

    fn share_names(&self) {
        self.names.send_replace(self.by_hash.keys().copied().collect());
    }

    /// Runs until it is told to stop or every handle is gone.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let (mut net, mut disk, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let reply = loop {
            let wake = self.next_wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.epoch + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = self.net_events.recv_many(&mut net, BATCH) => {
                    debug_assert!(count > 0, "the engine holds a sender itself");
                }
                _ = self.disk_events.recv_many(&mut disk, BATCH) => {}
                _ = self.notes.recv_many(&mut notes, BATCH) => {}
                command = commands.recv() => match command {
                    Some(Command::Stop(reply)) => break Some(reply),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                () = sleep => {}
            }
            net.drain(..).for_each(|event| self.on_net(event));
            disk.drain(..).for_each(|event| self.on_disk(event));
            notes.drain(..).for_each(|note| self.on_note(note));
            self.on_time();
            // Carrying out may touch the torrent anew, when a peer turns out to be gone.
            while let Some(key) = self.touched() {
                self.carry_out(key);
            }
        };
        self.stop().await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    fn touched(&self) -> Option<TorrentKey> {
        self.torrents.iter().find(|(_, torrent)| torrent.touched).map(|(&key, _)| key)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Hands an input to the swarm of a torrent; what it orders is carried out before the next wait.
    fn input(&mut self, torrent: TorrentKey, input: Input) {
        let now = self.now();
        let Some(torrent) = self.torrents.get_mut(&torrent) else { return };
        torrent.touched = true;
        if let State::Running(swarm) = &mut torrent.state {
            swarm.handle(now, &mut self.limiter, input);
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let swarms = self.torrents.values().filter_map(|torrent| match &torrent.state {
            State::Running(swarm) => swarm.poll_timeout(&self.limiter),
            State::Checking { .. } | State::Failed(_) => None,
        });
        let documents = self.documents.is_waiting().then(|| self.now() + STATUS_EVERY);
        let limit = self.lookups_wait.then(|| self.limiter.up.ready_at()).flatten();
        swarms.chain(self.publish_at).chain(documents).chain(limit).min()
    }

    fn on_time(&mut self) {
        let now = self.now();
        let due: Vec<TorrentKey> = self
            .torrents
            .iter()
            .filter(|(_, torrent)| match &torrent.state {
                State::Running(swarm) => {
                    swarm.poll_timeout(&self.limiter).is_some_and(|at| at <= now)
                }
                State::Checking { .. } | State::Failed(_) => false,
            })
            .map(|(&key, _)| key)
            .collect();
        due.into_iter().for_each(|key| self.input(key, Input::Timeout));
        self.documents.expire(now);
        self.resume_lookups();
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publish_at = None;
            for torrent in self.torrents.values_mut().filter(|torrent| torrent.changed) {
                torrent.publish();
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Add { add, found, events, reply } => {
                let _ = reply.send(self.add(*add, found, events));
            }
            Command::Finished { torrent, reply } => {
                if let Some(torrent) = self.torrents.get_mut(&torrent) {
                    torrent.await_finish(reply);
                }
            }
            Command::Sync { torrent, reply } => self.disk.sync(torrent, reply),
            Command::Remap { torrent, files, reply } => {
                self.disk.remap(torrent, files);
                let _ = reply.send(());
            }
            Command::SeedOnly { torrent: key, reply } => {
                if let Some(torrent) = self.torrents.get_mut(&key) {
                    torrent.seed_only = true;
                }
                self.input(key, Input::SeedOnly);
                let _ = reply.send(());
            }
            Command::Peers { torrent, peers } => self.input(torrent, Input::Peers(peers)),
            Command::ListPeers { torrent, reply } => {
                let peers = self.torrents.get(&torrent).and_then(|torrent| match &torrent.state {
                    State::Running(swarm) => Some(swarm.peers()),
                    State::Checking { .. } | State::Failed(_) => None,
                });
                let _ = reply.send(peers.unwrap_or_default());
            }
            Command::Document { peer, path, reply } => {
                if self.peers.contains_key(&peer) {
                    let order = self.documents.request(self.now(), peer, path, reply);
                    self.send_documents(order);
                }
            }
            Command::Remove { torrent, reply } => self.remove(torrent, Some(reply)),
            Command::SetUpload(policy) => {
                self.setup.config.upload = policy;
                let keys: Vec<TorrentKey> = self.torrents.keys().copied().collect();
                keys.into_iter().for_each(|key| self.input(key, Input::SetUpload(policy)));
            }
            Command::SetFoundLocally(found) => {
                if !found {
                    self.lsd = None;
                } else if self.lsd.is_none() {
                    let listen = Arc::clone(&self.setup.listen);
                    self.lsd = Some(Lsd::start(listen, self.setup.seed, self.note.clone()));
                    self.announce();
                }
            }
            Command::SetLimits { up, down } => {
                let now = self.now();
                self.limiter.up.set_rate(now, up);
                self.limiter.down.set_rate(now, down);
                let keys: Vec<TorrentKey> = self.torrents.keys().copied().collect();
                keys.into_iter().for_each(|key| self.input(key, Input::Timeout));
            }
            Command::Stop(_) => unreachable!("taken out by the loop"),
        }
    }

    fn add(
        &mut self,
        mut add: AddTorrent,
        found: Option<Found>,
        events: broadcast::Sender<TorrentEvent>,
    ) -> Result<(TorrentKey, watch::Receiver<Status>), SessionError> {
        let hashes = add.info.hashes;
        if let Some(hash) = hashes.swarm_hashes().find(|hash| self.by_hash.contains_key(hash)) {
            return Err(SessionError::Duplicate(hash));
        }
        if self.is_local_only() {
            add.trackers.clear();
            add.web_seeds.clear();
        }
        let key = TorrentKey(self.next_torrent);
        self.next_torrent += 1;
        self.disk.add(
            key,
            AddFiles {
                info: Arc::clone(&add.info),
                files: add.files.clone(),
                wanted: add.priorities.iter().map(|file| file.is_wanted()).collect(),
                resume: add.resume.clone(),
            },
        );
        let (torrent, status, checks) = Torrent::new(add, found, events);
        self.by_hash.extend(hashes.swarm_hashes().map(|hash| (hash, key)));
        self.share_names();
        if let Some(distrusted) = &torrent.distrusted {
            self.disk.distrust(key, distrusted);
        }
        self.torrents.insert(key, torrent);
        match checks {
            Some(pieces) => self.disk.check(key, pieces),
            None => self.begin(key),
        }
        Ok((key, status))
    }

    /// What is on disk is known: the swarm starts.
    fn begin(&mut self, key: TorrentKey) {
        let Some(torrent) = self.torrents.get_mut(&key) else { return };
        let setup = &self.setup;
        let seed = setup.seed ^ (u64::from(key.0) << 32);
        torrent.start(setup, seed);
        torrent.take_supply(key, &self.shared.budget, &self.note);
        torrent.announce(key, setup, &self.http, &self.note);
        let (peers, trackers) = torrent.first_inputs();
        self.announce();
        self.input(key, Input::Peers(peers));
        if !trackers {
            self.input(key, Input::TrackersAsked);
        }
        self.finish_if_complete(key);
    }

    fn is_local_only(&self) -> bool {
        self.setup.config.local_network == LocalNetwork::Only
    }

    /// Says which torrents to find peers of on the local network and in the DHT. BEP 27: never a private one.
    fn announce(&self) {
        let public = || {
            self.torrents.values().filter(|torrent| {
                matches!(torrent.state, State::Running(_)) && !torrent.info.private
            })
        };
        let names = |torrent: &Torrent| torrent.info.hashes.swarm_hashes().collect::<Vec<_>>();
        if let Some(lsd) = &self.lsd {
            lsd.set_torrents(public().flat_map(names).collect());
        }
        if let Some(dht) = &self.dht {
            dht.set_torrents(public().filter(|torrent| torrent.dht).flat_map(names).collect());
        }
    }

    /// Everything wanted is here: the files get their last touch, then whoever waits is told.
    fn finish_if_complete(&mut self, key: TorrentKey) {
        let Some(torrent) = self.torrents.get_mut(&key) else { return };
        if !torrent.is_complete() || torrent.finishing {
            return;
        }
        torrent.finishing = true;
        let (reply, done) = oneshot::channel();
        if torrent.seed_only {
            let _ = reply.send(Ok(()));
        } else {
            self.disk.complete(key, torrent.executable_bits, reply);
        }
        let note = self.note.clone();
        tokio::spawn(async move {
            let result = done.await.unwrap_or_else(|_| Err(io::Error::other("disk threads ended")));
            let _ = note.send(Note::Completed { torrent: key, result }).await;
        });
    }

    fn remove(&mut self, key: TorrentKey, reply: Option<oneshot::Sender<()>>) {
        let Some(mut torrent) = self.torrents.remove(&key) else { return };
        torrent.publish();
        self.by_hash.retain(|_, other| *other != key);
        self.share_names();
        self.peers.retain(|_, peer| peer.torrent != key);
        self.announce();
        self.disk.remove(key);
        tokio::spawn(async move {
            torrent.say_goodbye().await;
            if let Some(reply) = reply {
                let _ = reply.send(());
            }
        });
    }

    async fn stop(mut self) {
        // The last word on what was sent.
        self.torrents.values_mut().for_each(Torrent::publish);
        self.peers.clear();
        let syncs: Vec<oneshot::Receiver<io::Result<()>>> = self
            .torrents
            .iter()
            .filter(|(_, torrent)| !torrent.seed_only)
            .map(|(&key, _)| {
                let (reply, done) = oneshot::channel();
                self.disk.sync(key, reply);
                done
            })
            .collect();
        let goodbyes: Vec<_> = std::mem::take(&mut self.torrents)
            .into_values()
            .map(|torrent| tokio::spawn(async move { torrent.say_goodbye().await }))
            .collect();
        // The threads must be able to report, or they would wait for us while we wait for them.
        let mut events = self.disk_events;
        let drain = tokio::spawn(async move { while events.recv().await.is_some() {} });
        for done in syncs {
            let _ = done.await;
        }
        if let Some(mapping) = self.mapping.take() {
            mapping.stop().await;
        }
        for goodbye in goodbyes {
            let _ = goodbye.await;
        }
        let disk = self.disk;
        let _ = tokio::task::spawn_blocking(move || disk.stop()).await;
        drain.abort();
        if let Some(quic) = &self.setup.quic {
            quic.close();
        }
    }

    fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Incoming { stream, addr, handshake } => {
                self.on_incoming(stream, addr, handshake);
            }
            NetEvent::Dialled { torrent, addr, result } => match result {
                Some((stream, handshake)) => {
                    self.connect(torrent, stream, addr, true, handshake, Vec::new());
                }
                None => self.input(torrent, Input::DialFailed { addr }),
            },
            NetEvent::Upgraded { torrent, addr, stream, handshake } => {
                self.connect(torrent, stream, addr, true, handshake, Vec::new());
            }
            NetEvent::Messages { peer, messages, payload, spared } => {
                if let Some(entry) = self.peers.get(&peer)
                    && spared > 0
                {
                    self.input(entry.torrent, Input::Spared { peer, bytes: spared as u64 });
                }
                self.on_messages(peer, messages, payload);
            }
            NetEvent::Sent { peer, payload } => {
                if let Some(entry) = self.peers.get(&peer) {
                    self.input(entry.torrent, Input::Sent { peer, bytes: payload });
                }
            }
            NetEvent::Closed { peer, reason } => {
                if let Some(entry) = self.peers.remove(&peer) {
                    tracing::debug!(%peer, %reason, "connection closed");
                    self.documents.on_closed(peer);
                    self.input(entry.torrent, Input::Closed { peer });
                }
            }
        }
    }

    fn on_messages(&mut self, peer: PeerKey, messages: Vec<Message>, payload: usize) {
        self.shared.room.add_permits(connection::weight(&messages));
        let Some(entry) = self.peers.get(&peer) else {
            return self.shared.budget.add_permits(payload);
        };
        let key = entry.torrent;
        for message in messages {
            match &message {
                Message::Extended { id: ours::DOCUMENTS, payload } => {
                    self.on_document_message(key, peer, payload);
                }
                Message::Port(port) => self.on_node(peer, *port),
                _ => self.input(key, Input::Received { peer, message }),
            }
        }
        // Of the payload, what goes to the disk stays in the budget until it is written.
        let to_disk = self.carry_out(key);
        self.shared.budget.add_permits(payload.saturating_sub(to_disk));
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Fetched { torrent, fetch, blocks } => {
                let payload: usize = blocks.iter().map(|(_, data)| data.len()).sum();
                for (block, data) in blocks {
                    self.input(torrent, Input::Fetched { fetch, block, data });
                }
                let to_disk = self.carry_out(torrent);
                self.shared.budget.add_permits(payload.saturating_sub(to_disk));
            }
            Note::Supplied { torrent, blocks } => {
                let payload: usize = blocks.iter().map(|(_, data)| data.len()).sum();
                for (block, data) in blocks {
                    self.input(torrent, Input::Supplied { block, data });
                }
                let to_disk = self.carry_out(torrent);
                self.shared.budget.add_permits(payload.saturating_sub(to_disk));
            }
            Note::SupplyEnded { torrent } => self.input(torrent, Input::SupplyEnded),
            Note::FetchEnded { torrent: key, fetch, error } => {
                let end = error.as_ref().map_or(FetchEnd::Complete, FetchError::end);
                if let Some(torrent) = self.torrents.get_mut(&key) {
                    torrent.fetches.remove(&fetch);
                    if let Some(error) = error {
                        torrent.tell(TorrentEvent::WebSeedError { error: error.to_string() });
                    }
                }
                self.input(key, Input::FetchEnded { fetch, end });
            }
            Note::Completed { torrent: key, result } => {
                let Some(torrent) = self.torrents.get_mut(&key) else { return };
                torrent.on_completed(result);
                if !torrent.seed_only {
                    // Nobody waits for it: what is here is served meanwhile.
                    self.disk.sync(key, oneshot::channel().0);
                }
            }
            Note::Tracker { torrent: key, report } => {
                let Some(torrent) = self.torrents.get_mut(&key) else { return };
                let peers = torrent.on_tracker(report);
                let asked = torrent.trackers_asked();
                let (seeders, leechers) = torrent.swarm_size();
                self.input(key, Input::SwarmSize { seeders, leechers });
                self.input(key, Input::Peers(peers));
                if asked {
                    self.input(key, Input::TrackersAsked);
                }
            }
            Note::Found { hash, addr } => {
                if let Some(&key) = self.by_hash.get(&hash)
                    && self.torrents.get(&key).is_some_and(|torrent| !torrent.info.private)
                {
                    tracing::debug!(%addr, %hash, "found on the local network");
                    self.input(key, Input::Announced(addr));
                }
            }
            Note::Heard { hash, addrs } => self.on_heard(hash, addrs),
            Note::DhtPort(port) => self.on_dht_port(port),
            Note::Packed(packed) => self.on_packed(packed),
            Note::Answer { peer, message } => self.on_looked_up(peer, message),
        }
    }

    fn on_disk(&mut self, event: DiskEvent) {
        match event {
            DiskEvent::Written { bytes, .. } => {
                let bytes = usize::try_from(bytes).expect("a write fits in memory");
                self.shared.budget.add_permits(bytes);
            }
            DiskEvent::Piece { torrent, piece, verdict } => match verdict {
                Verdict::Verified => self.input(torrent, Input::Stored { piece, right: true }),
                Verdict::Wrong => self.input(torrent, Input::Stored { piece, right: false }),
                Verdict::Inconsistent => self.fail(torrent, TorrentError::Inconsistent(piece)),
            },
            DiskEvent::Read { torrent, peer, blocks, failed } => {
                self.on_read(torrent, peer, blocks, failed);
            }
            DiskEvent::Lost { torrent, piece } => self.input(torrent, Input::Lost { piece }),
            DiskEvent::Checked { torrent, pieces } => {
                if let Some(torrent) = self.torrents.get_mut(&torrent) {
                    torrent.on_checked(&pieces);
                }
            }
            DiskEvent::CheckDone { torrent } => self.begin(torrent),
            DiskEvent::Error { torrent, path, op, error } => {
                tracing::warn!(path = %path.display(), %op, %error, "the disk refused");
                let complete = self.torrents.get(&torrent).is_some_and(Torrent::is_complete);
                if op == DiskOp::Resume || (op == DiskOp::Read && complete) {
                    // Without a log the next start hashes more; a bad spot is lost, and only that.
                    return;
                }
                let (op, kind, error) = (op.to_string(), error.kind(), error.to_string());
                self.fail(torrent, TorrentError::Disk { path, op, kind, error });
            }
        }
    }

    /// Ends the transfer of a torrent. What is verified stays where it is.
    fn fail(&mut self, key: TorrentKey, error: TorrentError) {
        let Some(torrent) = self.torrents.get_mut(&key) else { return };
        torrent.fail(error);
        self.peers.retain(|_, peer| peer.torrent != key);
    }

    fn send(&mut self, peer: PeerKey, messages: Vec<Message>) {
        let Some(entry) = self.peers.get(&peer) else { return };
        if !messages.is_empty() && !entry.connection.send(messages) {
            tracing::debug!(%peer, "the peer reads too slowly");
            let torrent = entry.torrent;
            self.peers.remove(&peer);
            self.documents.on_closed(peer);
            self.input(torrent, Input::Closed { peer });
        }
    }

    /// Does what the swarm of a torrent orders; returns the bytes handed to the disk.
    fn carry_out(&mut self, key: TorrentKey) -> usize {
        if let Some(torrent) = self.torrents.get_mut(&key) {
            torrent.touched = false;
        }
        let mut to_disk = 0;
        let mut batches: BTreeMap<PeerKey, Vec<Message>> = BTreeMap::new();
        let mut writes: Vec<Vec<(Block, Bytes)>> = Vec::new();
        let mut reads: Vec<(PeerKey, Vec<Block>)> = Vec::new();
        let mut complete = false;
        while let Some(output) = self.next_output(key) {
            match output {
                Output::Send { peer, message } => batches.entry(peer).or_default().push(message),
                // Requests come one by one; read together, they cost one call and one event.
                Output::Read { peer, blocks } => match reads.last_mut() {
                    Some((last, run))
                        if *last == peer && run.len() + blocks.len() <= READ_BLOCKS =>
                    {
                        run.extend(blocks);
                    }
                    _ => reads.push((peer, blocks)),
                },
                Output::Write { block, data } => {
                    to_disk += data.len();
                    match writes.last_mut() {
                        Some(run) if follows(run, block) => run.push((block, data)),
                        _ => writes.push(vec![(block, data)]),
                    }
                }
                Output::Dial { addr, quic: _, punch: true } => self.dial(key, addr, Route::Punch),
                Output::Dial { addr, quic, punch: false } => {
                    self.dial(key, addr, quic.map_or(Route::Plain, Route::QuicFirst));
                }
                Output::Upgrade { addr, quic } => self.upgrade(key, addr, quic),
                Output::Close { peer } => {
                    if let Some(messages) = batches.remove(&peer) {
                        self.send(peer, messages);
                    }
                    self.peers.remove(&peer).into_iter().for_each(|it| it.connection.close());
                    self.documents.on_closed(peer);
                }
                Output::Fetch { fetch, source, span, pack } => {
                    if let Some(torrent) = self.torrents.get_mut(&key) {
                        let shared =
                            (&self.http, &self.shared.pool, &self.shared.budget, &self.note);
                        torrent.fetch(key, fetch, source, (span, pack), shared);
                    }
                }
                Output::FetchCancel { fetch } => {
                    if let Some(torrent) = self.torrents.get_mut(&key)
                        && let Some(task) = torrent.fetches.remove(&fetch)
                    {
                        task.abort();
                    }
                }
                Output::Event(event) => {
                    if let Some(torrent) = self.torrents.get_mut(&key) {
                        complete |= torrent.on_event(event);
                    }
                }
            }
        }
        for run in writes {
            let Some(piece) = run.first().map(|(block, _)| block.piece) else { continue };
            let bytes: usize = run.iter().map(|(_, data)| data.len()).sum();
            if self.disk.write(key, piece, run).is_err() {
                // The budget is far smaller than the queue, so this means the disk has stopped.
                self.shared.budget.add_permits(bytes);
                self.fail(
                    key,
                    TorrentError::Disk {
                        path: PathBuf::new(),
                        op: "write".into(),
                        kind: io::ErrorKind::Other,
                        error: "the disk threads take no more work".into(),
                    },
                );
            }
        }
        for (peer, blocks) in reads {
            let count = blocks.len();
            let awaited = self.peers.get(&peer).map_or(0, |entry| entry.gathered.awaited);
            let refused = if awaited < AWAITED_MAX {
                self.disk.read(key, peer, blocks).err().map(|busy| busy.0)
            } else {
                Some(blocks)
            };
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.gathered.awaited += count - refused.as_ref().map_or(0, Vec::len);
            }
            if let Some(blocks) = refused {
                self.input(key, Input::Unsent { peer, blocks });
            }
        }
        for (peer, messages) in batches {
            self.send(peer, messages);
        }
        if let Some(torrent) = self.torrents.get_mut(&key) {
            torrent.changed = true;
        }
        if complete {
            self.finish_if_complete(key);
        }
        if self.publish_at.is_none() {
            self.publish_at = Some(self.now() + STATUS_EVERY);
        }
        to_disk
    }

    fn next_output(&mut self, key: TorrentKey) -> Option<Output> {
        match &mut self.torrents.get_mut(&key)?.state {
            State::Running(swarm) => swarm.poll(),
            State::Checking { .. } | State::Failed(_) => None,
        }
    }
}

/// True if `block` comes right after the run, in the same piece: one write takes both.
fn follows(run: &[(Block, Bytes)], block: Block) -> bool {
    run.last().is_some_and(|(last, _)| {
        last.piece == block.piece && last.offset + last.len == block.offset
    })
}
