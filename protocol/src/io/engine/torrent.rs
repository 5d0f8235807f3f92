//! One torrent in the engine: its swarm, and what belongs to it outside the swarm.

use super::{Found, Note, Setup};
use crate::bitfield::Bitfield;
use crate::geometry::{Block, Span};
use crate::ids::{PeerKey, PieceIndex};
use crate::io::DocumentStore;
use crate::io::buffers::BufferPool;
use crate::io::quic::Quic;
use crate::io::session::{
    AddTorrent, Have, Phase, SUPPLY_BYTES_MAX, Status, Supply, TorrentError, TorrentEvent,
    pieces_of_files, pieces_within_files, priorities_of_pieces,
};
use crate::io::storage::{DiskOp, TorrentKey, resume};
use crate::io::trackers::{AnnounceState, Announcer, AnnouncerConfig, SwarmSize, TrackerReport};
use crate::io::webseed::{self, Pack, WebSeed};
use crate::metainfo::Info;
use crate::policy::packing::Content;
use crate::policy::picker::Priority;
use crate::swarm::{Config, Event, Stats, Swarm};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// Below this number of peers trackers are asked for more as soon as they allow it.
const PEERS_WANTED: usize = 10;
/// What trackers are told is left of a torrent that is known by its link alone, in bytes.
const LEFT_UNKNOWN: u64 = 16 * 1024;
/// Tracker reports and HTTP batches waiting to be forwarded.
const FORWARD_MAX: usize = 4;

#[derive(Debug)]
pub(super) enum State {
    /// Hashing what lies on disk.
    Checking { right: Bitfield, done: u32, total: u32 },
    /// In the swarm.
    Running(Box<Swarm>),
    /// Stopped by an error.
    Failed(TorrentError),
}

pub(super) struct Torrent {
    pub(super) info: Arc<Info>,
    pub(super) state: State,
    pub(super) seed_only: bool,
    pub(super) executable_bits: bool,
    pub(super) documents: Option<Arc<dyn DocumentStore>>,
    /// Whether its peers may be looked for in the DHT.
    pub(super) dht: bool,
    /// Pieces that are believed in without having been hashed in this process.
    pub(super) distrusted: Option<Bitfield>,
    pub(super) fetches: HashMap<PeerKey, AbortHandle>,
    /// Whether what is sent of it shrinks.
    pub(super) content: Content,
    /// Processor time that compressing took.
    pub(super) packing: Duration,
    /// The swarm may have orders.
    pub(super) touched: bool,
    /// The status has changed since it was published.
    pub(super) changed: bool,
    /// The last touch to finished files is under way or done.
    pub(super) finishing: bool,
    finished: bool,
    /// It is known by a link alone, and who waits for the rest.
    found: Option<Found>,
    /// It was at first.
    is_link: bool,
    priorities: Vec<Priority>,
    wanted: Bitfield,
    /// Of all pieces, wanted or not.
    total_bytes: u64,
    wanted_bytes: u64,
    have_bytes: u64,
    trackers: Vec<Vec<String>>,
    /// What each tracker that was asked last said of the swarm's size.
    trackers_heard: BTreeMap<String, SwarmSize>,
    web_seeds: Vec<Arc<WebSeed>>,
    packs: Vec<Pack>,
    supply: Option<Supply>,
    supply_task: Option<AbortHandle>,
    peers: Vec<SocketAddr>,
    status: watch::Sender<Status>,
    events: broadcast::Sender<TorrentEvent>,
    waiting: Vec<oneshot::Sender<Result<(), TorrentError>>>,
    announce: watch::Sender<AnnounceState>,
    announcer: Option<Announcer>,
}

impl Torrent {
    /// A torrent, and the pieces to check before it can start.
    pub(super) fn new(
        add: AddTorrent,
        found: Option<Found>,
        events: broadcast::Sender<TorrentEvent>,
    ) -> (Self, watch::Receiver<Status>, Option<Bitfield>) {
        let geometry = &add.info.geometry;
        let count = geometry.piece_count();
        let candidates = || match &add.resume {
            Some(path) => resume::load(path, &add.info.hashes, count),
            None => Bitfield::empty(count),
        };
        let (mut right, mut check) = (Bitfield::empty(count), Bitfield::empty(count));
        let mut distrusted = None;
        match &add.have {
            Have::Nothing => {}
            Have::Check => check = Bitfield::full(count),
            Have::Resume => check = candidates(),
            Have::Files(files) => {
                right = pieces_within_files(geometry, files);
                check = candidates();
                for piece in right.iter() {
                    check.remove(piece);
                }
                distrusted = Some(right.clone());
            }
            Have::Mixed { right: files, check: doubtful } => {
                right = pieces_within_files(geometry, files);
                check = pieces_of_files(geometry, doubtful);
                for piece in right.iter() {
                    check.remove(piece);
                }
                distrusted = Some(right.clone());
            }
        }
        let mut priorities = priorities_of_pieces(geometry, &add.priorities);
        if let Some(pieces) = &add.pieces {
            for piece in geometry.pieces().filter(|piece| !pieces.has(*piece)) {
                priorities[piece.get()] = Priority::UNWANTED;
            }
        }
        let mut wanted = Bitfield::empty(count);
        for piece in geometry.pieces().filter(|piece| priorities[piece.get()].is_wanted()) {
            wanted.insert(piece);
        }
        let bytes = |pieces: &Bitfield| {
            pieces.iter().map(|piece| u64::from(geometry.data_len(piece))).sum::<u64>()
        };
        let phase = Phase::Checking { done: 0, total: check.count() };
        let (status, receiver) = watch::channel(Status {
            phase,
            wanted_bytes: bytes(&wanted),
            have_bytes: 0,
            down_rate: 0,
            up_rate: 0,
            down_peers: 0,
            down_lan: 0,
            down_http: 0,
            http_content: 0,
            supplied: 0,
            up_total: 0,
            up_lan: 0,
            down_spared: 0,
            up_saved: 0,
            packing: Duration::ZERO,
            wasted: 0,
            peers: 0,
            seeds: 0,
            quic: 0,
            utp: 0,
            eta: None,
        });
        let torrent = Self {
            state: State::Checking { right, done: 0, total: check.count() },
            seed_only: add.seed_only,
            executable_bits: add.executable_bits,
            documents: add.documents,
            dht: add.dht,
            distrusted,
            fetches: HashMap::new(),
            content: Content::default(),
            packing: Duration::ZERO,
            touched: false,
            changed: true,
            finishing: false,
            finished: false,
            is_link: found.is_some(),
            found,
            total_bytes: bytes(&Bitfield::full(count)),
            wanted_bytes: bytes(&wanted),
            have_bytes: 0,
            priorities,
            wanted,
            trackers: add.trackers,
            trackers_heard: BTreeMap::new(),
            web_seeds: add.web_seeds.into_iter().map(Arc::new).collect(),
            packs: add.packs,
            supply: add.supply,
            supply_task: None,
            peers: add.peers,
            status,
            events,
            waiting: Vec::new(),
            announce: watch::Sender::new(AnnounceState::default()),
            announcer: None,
            info: add.info,
        };
        (torrent, receiver, (!check.is_empty()).then_some(check))
    }

    /// Results of hashing what lies on disk.
    pub(super) fn on_checked(&mut self, pieces: &[(PieceIndex, bool)]) {
        let State::Checking { right, done, .. } = &mut self.state else { return };
        for &(piece, ok) in pieces {
            *done += 1;
            if ok {
                right.insert(piece);
            }
        }
        self.changed = true;
        self.publish();
    }

    /// What is on disk is known: the swarm begins.
    pub(super) fn start(&mut self, setup: &Setup, seed: u64) {
        let State::Checking { right, .. } = &self.state else { return };
        let geometry = Arc::new(self.info.geometry.clone());
        // What a seed loses it must not fetch: that would write.
        let mut priorities = self.priorities.clone();
        if self.seed_only {
            priorities.fill(Priority::UNWANTED);
        }
        let config = Config {
            peer_id: setup.peer_id,
            client: concat!("Updraft ", env!("CARGO_PKG_VERSION")).to_owned(),
            listen_port: setup.listen.first().map(SocketAddr::port),
            quic_port: setup.quic.as_ref().and_then(Quic::port),
            transport: setup.config.transport,
            private: self.info.private,
            spread: setup.config.spread,
            connections_max: setup.config.connections_max,
            upload: setup.config.upload,
            documents: self.documents.is_some(),
            info: (!self.info.raw.is_empty()).then(|| Arc::clone(&self.info)),
            link: self.is_link.then_some(self.info.hashes),
            sources: self.web_seeds.len(),
            packs: self.packs.iter().map(Pack::packed).collect(),
            supplied: self.supply.is_some(),
            parcels: true,
            seed,
        };
        let swarm = Swarm::new(config, geometry, right, priorities);
        self.have_bytes = swarm
            .have()
            .iter()
            .filter(|&piece| self.wanted.has(piece))
            .map(|piece| u64::from(self.info.geometry.data_len(piece)))
            .sum();
        self.state = State::Running(Box::new(swarm));
        self.publish();
    }

    /// Begins to announce, if there is a tracker.
    pub(super) fn announce(
        &mut self,
        key: TorrentKey,
        setup: &Setup,
        client: &reqwest::Client,
        note: &mpsc::Sender<Note>,
    ) {
        self.announce.send_replace(self.announce_state(true));
        if self.trackers.iter().all(Vec::is_empty) || self.announcer.is_some() {
            return;
        }
        let (reports, mut received) = mpsc::channel(FORWARD_MAX);
        let config = AnnouncerConfig {
            tiers: self.trackers.clone(),
            hashes: self.info.hashes,
            peer_id: setup.peer_id,
            port: setup.listen.first().map_or(0, SocketAddr::port),
            bind: setup.bind,
            key: u32::try_from(setup.seed >> 32).expect("32 bits are left"),
            seed: setup.seed ^ u64::from(key.0),
        };
        self.announcer =
            Some(Announcer::start(client.clone(), config, self.announce.subscribe(), reports));
        let note = note.clone();
        tokio::spawn(async move {
            while let Some(report) = received.recv().await {
                if note.send(Note::Tracker { torrent: key, report }).await.is_err() {
                    return;
                }
            }
        });
    }

    /// The peers known from the start, and whether trackers will be heard.
    pub(super) fn first_inputs(&mut self) -> (Vec<SocketAddr>, bool) {
        (std::mem::take(&mut self.peers), self.announcer.is_some())
    }

    /// A tracker was asked; the peers it gave.
    pub(super) fn on_tracker(&mut self, report: TrackerReport) -> Vec<SocketAddr> {
        let size = self.trackers_heard.entry(report.url.clone()).or_default();
        let event = match report.result {
            Ok(said) => {
                *size = said;
                TorrentEvent::TrackerOk { url: report.url, peers: report.peers.len() }
            }
            Err(error) => {
                *size = SwarmSize::default();
                TorrentEvent::TrackerError { url: report.url, error }
            }
        };
        self.tell(event);
        report.peers
    }

    /// True once a tracker of every tier was heard.
    pub(super) fn trackers_asked(&self) -> bool {
        self.trackers
            .iter()
            .filter(|tier| !tier.is_empty())
            .all(|tier| tier.iter().any(|url| self.trackers_heard.contains_key(url)))
    }

    /// Seeders and leechers by the tracker that counts most: trackers know parts of a swarm.
    pub(super) fn swarm_size(&self) -> (u32, u32) {
        let most = |of: &dyn Fn(&SwarmSize) -> Option<u32>| {
            self.trackers_heard.values().filter_map(of).max().unwrap_or(0)
        };
        (most(&|size| size.seeders), most(&|size| size.leechers))
    }

    /// Begins to take what the caller has, as fast as the disk does.
    pub(super) fn take_supply(
        &mut self,
        key: TorrentKey,
        budget: &Arc<Semaphore>,
        note: &mpsc::Sender<Note>,
    ) {
        let Some(mut supply) = self.supply.take() else { return };
        let (info, budget, note) = (Arc::clone(&self.info), Arc::clone(budget), note.clone());
        let task = tokio::spawn(async move {
            while let Some(mut blocks) = supply.recv().await {
                blocks.retain(|(block, data)| {
                    data.len() == block.len as usize && info.geometry.block_index(*block).is_some()
                });
                let bytes: usize = blocks.iter().map(|(_, data)| data.len()).sum();
                if bytes > SUPPLY_BYTES_MAX {
                    continue; // More than the budget would never be granted.
                }
                let permits = u32::try_from(bytes).expect("a batch is small");
                let Ok(permit) = budget.acquire_many(permits).await else { return };
                if note.send(Note::Supplied { torrent: key, blocks }).await.is_err() {
                    return;
                }
                permit.forget(); // The engine gives it back once the bytes are written.
            }
            let _ = note.send(Note::SupplyEnded { torrent: key }).await;
        });
        self.supply_task = Some(task.abort_handle());
    }

    /// Begins an HTTP range.
    pub(super) fn fetch(
        &mut self,
        key: TorrentKey,
        fetch: PeerKey,
        source: usize,
        (span, pack): (Span, Option<usize>),
        (client, pool, budget, note): (
            &reqwest::Client,
            &BufferPool,
            &Arc<Semaphore>,
            &mpsc::Sender<Note>,
        ),
    ) {
        let Some(seed) = self.web_seeds.get(source).cloned() else { return };
        let (client, info, note) = (client.clone(), Arc::clone(&self.info), note.clone());
        let pack = pack.and_then(|pack| self.packs.get(pack).map(|of| (pack, of.clone())));
        let (pool, budget) = (pool.clone(), Arc::clone(budget));
        let task = tokio::spawn(async move {
            let (sink, mut batches) = mpsc::channel::<Vec<(Block, Bytes)>>(FORWARD_MAX);
            let forward = async {
                while let Some(blocks) = batches.recv().await {
                    let bytes: usize = blocks.iter().map(|(_, data)| data.len()).sum();
                    let permits = u32::try_from(bytes).expect("a batch is a buffer at most");
                    let Ok(permit) = budget.acquire_many(permits).await else { return };
                    let event = Note::Fetched { torrent: key, fetch, blocks };
                    if note.send(event).await.is_err() {
                        return;
                    }
                    permit.forget(); // The engine gives it back once the bytes are written.
                }
            };
            let work = async {
                let result = match &pack {
                    Some((number, pack)) => {
                        let from = seed.packs().get(*number);
                        webseed::fetch_pack(&client, &pool, from, &info, pack, &sink).await
                    }
                    None => webseed::fetch(&client, &pool, &seed, &info, span, &sink).await,
                };
                drop(sink);
                result
            };
            let (result, ()) = tokio::join!(work, forward);
            let error = result.err();
            let _ = note.send(Note::FetchEnded { torrent: key, fetch, error }).await;
        });
        self.fetches.insert(fetch, task.abort_handle());
    }

    /// Tells listeners of what the swarm decided; true if everything wanted has come.
    pub(super) fn on_event(&mut self, event: Event) -> bool {
        let mut complete = false;
        let told = match event {
            Event::PieceVerified(piece) => {
                if self.wanted.has(piece) {
                    self.have_bytes += u64::from(self.info.geometry.data_len(piece));
                }
                TorrentEvent::PieceVerified(piece)
            }
            Event::PieceWrong(piece) => TorrentEvent::PieceFailed(piece),
            Event::PieceLost(piece) => {
                if self.wanted.has(piece) {
                    self.have_bytes -= u64::from(self.info.geometry.data_len(piece));
                }
                if !self.seed_only {
                    (self.finishing, self.finished) = (false, false);
                }
                TorrentEvent::PieceLost(piece)
            }
            Event::PeerBanned { addr, reason } => {
                tracing::info!(%addr, %reason, "peer banned");
                TorrentEvent::PeerBanned { addr, reason: reason.to_string() }
            }
            Event::FirstComplete => TorrentEvent::FirstComplete,
            Event::Complete => {
                complete = true;
                return complete;
            }
            Event::Described => {
                self.tell_found();
                return complete;
            }
        };
        self.tell(told);
        complete
    }

    /// What the link leads to goes to who asked for it.
    fn tell_found(&mut self) {
        let State::Running(swarm) = &self.state else { return };
        if let Some((found, description)) = self.found.take().zip(swarm.description()) {
            let _ = found.send(description);
        }
    }

    /// The finished files have had their last touch.
    pub(super) fn on_completed(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            return self.fail(TorrentError::Disk {
                path: PathBuf::from(&self.info.name),
                op: DiskOp::Create.to_string(),
                kind: error.kind(),
                error: error.to_string(),
            });
        }
        if !self.is_complete() {
            self.finishing = false; // A piece was lost meanwhile.
            return;
        }
        self.finished = true;
        self.publish();
        self.tell(TorrentEvent::Complete);
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    /// Ends the transfer with an error.
    pub(super) fn fail(&mut self, error: TorrentError) {
        if matches!(self.state, State::Failed(_)) {
            return; // The first error is the cause.
        }
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        self.abort_tasks();
        self.state = State::Failed(error);
        self.publish();
    }

    /// Replies when the torrent has finished or failed.
    pub(super) fn await_finish(&mut self, reply: oneshot::Sender<Result<(), TorrentError>>) {
        match &self.state {
            State::Failed(error) => drop(reply.send(Err(error.clone()))),
            State::Running(_) if self.finished => drop(reply.send(Ok(()))),
            State::Running(_) | State::Checking { .. } => self.waiting.push(reply),
        }
    }

    /// True when nothing wanted is missing.
    pub(super) fn is_complete(&self) -> bool {
        matches!(&self.state, State::Running(swarm) if swarm.is_complete())
    }

    /// A peer's own number for the document extension.
    pub(super) fn documents_id(&self, peer: PeerKey) -> Option<u8> {
        match &self.state {
            State::Running(swarm) => swarm.documents_id(peer),
            State::Checking { .. } | State::Failed(_) => None,
        }
    }

    pub(super) fn tell(&self, event: TorrentEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Publishes the status, and what trackers are told.
    pub(super) fn publish(&mut self) {
        self.changed = false;
        let stats = match &self.state {
            State::Running(swarm) => swarm.stats(),
            State::Checking { .. } => Stats::default(),
            State::Failed(_) => {
                let message = self.phase();
                self.status.send_modify(|status| status.phase = message);
                return;
            }
        };
        let left = self.wanted_bytes - self.have_bytes;
        let eta = (left > 0 && stats.down_rate > 0)
            .then(|| Duration::from_secs(left.div_ceil(stats.down_rate)));
        let status = Status {
            phase: self.phase(),
            wanted_bytes: self.wanted_bytes,
            have_bytes: self.have_bytes,
            down_rate: stats.down_rate,
            up_rate: stats.up_rate,
            down_peers: stats.down_peers,
            down_lan: stats.down_lan,
            down_http: stats.down_http,
            http_content: stats.http_content,
            supplied: stats.supplied,
            up_total: stats.up,
            up_lan: stats.up_lan,
            down_spared: stats.down_spared,
            up_saved: stats.up_saved,
            packing: self.packing,
            wasted: stats.wasted,
            peers: stats.peers,
            seeds: stats.seeds,
            quic: stats.quic,
            utp: stats.utp,
            eta,
        };
        self.status.send_replace(status);
        let want_peers = (left > 0 || self.is_link) && stats.peers < PEERS_WANTED;
        let told = self.announce_state(want_peers);
        self.announce.send_if_modified(|state| {
            let changed = *state != told;
            *state = told;
            changed
        });
    }

    /// Says goodbye to trackers and drops everything.
    pub(super) async fn say_goodbye(mut self) {
        self.abort_tasks();
        self.announce.send_replace(self.announce_state(false));
        if let Some(announcer) = self.announcer.take() {
            announcer.stop().await;
        }
    }

    fn abort_tasks(&mut self) {
        self.fetches.drain().for_each(|(_, task)| task.abort());
        self.supply_task.take().into_iter().for_each(|task| task.abort());
    }

    fn announce_state(&self, want_peers: bool) -> AnnounceState {
        let stats = match &self.state {
            State::Running(swarm) => swarm.stats(),
            State::Checking { .. } | State::Failed(_) => Stats::default(),
        };
        AnnounceState {
            uploaded: stats.up,
            downloaded: stats.down_peers + stats.down_http,
            // BEP 21: who wants a part is no seed when it has it.
            // Of a link nobody knows how much there is; nothing would make us a seed.
            left: if self.is_link { LEFT_UNKNOWN } else { self.total_bytes - self.have_bytes },
            want_peers,
        }
    }

    fn phase(&self) -> Phase {
        match &self.state {
            State::Checking { done, total, .. } => Phase::Checking { done: *done, total: *total },
            State::Running(_) if self.finished => Phase::Seeding,
            State::Running(_) => Phase::Downloading,
            State::Failed(error) => Phase::Failed(error.to_string()),
        }
    }
}
