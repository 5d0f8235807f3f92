//! The handle a program holds: a session with its listening sockets, and the torrents in it.

use super::DocumentStore;
use super::accept::{Listener, accept_all};
use super::datagrams;
use super::engine::{self, Command};
use super::link::{Link, nameless};
use super::quic::Quic;
use super::sockets::{datagram_sockets, listen};
use super::storage::TorrentKey;
use super::utp::Utp;
use super::webseed::{Pack, WebSeed};
use crate::bitfield::Bitfield;
use crate::geometry::{Block, Geometry};
use crate::ids::{InfoHash, InfoHashes, PeerId, PeerKey, PieceIndex};
use crate::metainfo::Info;
use crate::policy::encryption::Encryption;
use crate::policy::picker::Priority;
use crate::policy::transport::Preference;
use crate::swarm::{PeerSummary, UploadPolicy};
use bytes::Bytes;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Commands waiting for the engine.
const COMMANDS_MAX: usize = 64;
/// Events a slow listener may be behind before it misses some. Room for all of them is there from the
/// start, 80 bytes each, for every torrent.
const EVENTS_KEPT: usize = 512;
/// Time that stopping may take: saying goodbye to trackers, flushing files.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session is told once.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where to listen. If the first address has a specific IP, outgoing connections leave from it.
    pub listen: Vec<SocketAddr>,
    /// Who may be sent payload.
    pub upload: UploadPolicy,
    /// Bytes of payload per second to peers beyond the LAN; `None` for no limit.
    pub up_limit: Option<u64>,
    /// Bytes of payload per second from peers beyond the LAN and from HTTP; `None` for no limit.
    pub down_limit: Option<u64>,
    /// What connections are to run over.
    pub transport: Preference,
    /// When connections over TCP and uTP hide what they are.
    pub encryption: Encryption,
    /// Connections per torrent.
    pub connections_max: usize,
    /// The publisher's seed: gives each piece to somebody once before any twice.
    pub spread: bool,
    /// What part the local network has.
    pub local_network: LocalNetwork,
    /// Whether the router is asked to let others in (UPnP). An engine that listens on loopback or at
    /// public addresses alone asks nobody.
    pub port_mapping: bool,
    /// If the session is in the DHT (BEP 5): nodes to enter it by, as `host:port`, or none for the well-known
    /// ones. It has a node there from the first torrent on that wants one. An engine that listens on loopback,
    /// or on the local network only, has none.
    pub dht: Option<Vec<String>>,
}

/// What part the local network has in a session. Peers that are met otherwise may be on it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalNetwork {
    /// Nobody is looked for there.
    #[default]
    Off,
    /// Peers of public torrents are looked for on every link that `listen` is reached on, and find us
    /// (BEP 14). An engine that listens on loopback has no such link.
    On,
    /// The same, and nothing is sent further: trackers and web servers are not asked, nobody is dialled
    /// or answered who is not on a link of this machine.
    Only,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            upload: UploadPolicy::LanOnly,
            up_limit: None,
            down_limit: None,
            transport: Preference::default(),
            encryption: Encryption::default(),
            connections_max: 50,
            spread: false,
            local_network: LocalNetwork::Off,
            port_mapping: false,
            dht: None,
        }
    }
}

/// Why a session could not start or take a torrent.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No address of `listen` could be bound.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gave no threads, randomness or HTTP client.
    #[error("cannot start the transfer engine: {0}")]
    Start(#[source] io::Error),
    /// A torrent of the same info-hash is there already.
    #[error("the torrent {0} is already being transferred by this process")]
    Duplicate(InfoHash),
    /// Not every piece can be verified with what the torrent file holds.
    #[error("the torrent lacks piece hashes for `{0}`: get the whole .torrent file")]
    NoPieceHashes(String),
    /// The lists given do not have one entry per file.
    #[error("{given} paths were given for a torrent of {files} files")]
    FileCount {
        /// Entries given.
        given: usize,
        /// Files of the torrent.
        files: usize,
    },
    /// The session was stopped.
    #[error("the transfer engine has been stopped")]
    Stopped,
}

/// Why a download ended without its files.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TorrentError {
    /// The disk refused: full, read-only, broken.
    #[error("cannot {op} {path}: {error}", path = path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What was tried.
        op: String,
        /// Kind of the system's error.
        kind: io::ErrorKind,
        /// The system's reason.
        error: String,
    },
    /// The v1 and v2 hashes of a hybrid torrent describe different content.
    #[error(
        "the torrent contradicts itself at piece {0}: its SHA-1 and SHA-256 hashes do not belong to the same data"
    )]
    Inconsistent(PieceIndex),
    /// The session was stopped.
    #[error("the transfer engine has been stopped")]
    Stopped,
}

/// What is on disk already.
#[derive(Clone, Debug)]
pub enum Have {
    /// Nothing.
    Nothing,
    /// Hash what lies at the backing paths and keep what is right.
    Check,
    /// Hash only what the resume log says was verified. Without a log: nothing.
    Resume,
    /// These files are right, the caller knows, by [`crate::ids::FileIndex`]; each piece is hashed
    /// once more before it is first served. The rest as [`Have::Resume`].
    Files(Vec<bool>),
    /// Files that are right, as with [`Have::Files`], and files that may be damaged: these are hashed
    /// now, and what is right of them is kept. The rest is taken as absent.
    Mixed {
        /// By file: right, as the caller knows.
        right: Vec<bool>,
        /// By file: to be hashed.
        check: Vec<bool>,
    },
}

/// Blocks that the caller has already, in batches of at most [`SUPPLY_BYTES_MAX`]: each exactly one of
/// [`crate::geometry::Geometry::block`], in any order, right or not. They are written and hashed like
/// a peer's; nobody is asked for anything until the sender is dropped.
pub type Supply = mpsc::Receiver<Vec<(Block, Bytes)>>;

/// The most payload of one batch of a [`Supply`].
pub const SUPPLY_BYTES_MAX: usize = 256 * 1024;

/// A torrent for a session.
pub struct AddTorrent {
    /// The torrent.
    pub info: Arc<Info>,
    /// The backing path of each file, absolute, by [`crate::ids::FileIndex`].
    pub files: Vec<PathBuf>,
    /// How much each file is wanted. A piece of several files counts as the highest of them.
    pub priorities: Vec<Priority>,
    /// If given, only these pieces of the wanted files are wanted.
    pub pieces: Option<Bitfield>,
    /// What is on disk already.
    pub have: Have,
    /// Never write: serve what is there.
    pub seed_only: bool,
    /// Set the executable bit of finished files where the torrent says so.
    pub executable_bits: bool,
    /// Where verified pieces are recorded, so that a killed download resumes.
    pub resume: Option<PathBuf>,
    /// HTTP and UDP trackers in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources.
    pub web_seeds: Vec<WebSeed>,
    /// Runs of pieces that HTTP sources may have compressed, in the torrent's order; no piece is in two.
    pub packs: Vec<Pack>,
    /// Peers known from the start.
    pub peers: Vec<SocketAddr>,
    /// Whether peers are looked for in the DHT, and find us there, where the session is in it. Private torrents
    /// never are (BEP 27).
    pub dht: bool,
    /// Answers other launchers' requests for documents; `None` to not speak that extension.
    pub documents: Option<Arc<dyn DocumentStore>>,
    /// Blocks from elsewhere than the swarm.
    pub supply: Option<Supply>,
}

impl AddTorrent {
    /// Everything wanted, nothing there, nobody known.
    pub fn new(info: Arc<Info>, files: Vec<PathBuf>) -> Self {
        Self {
            priorities: vec![Priority::NORMAL; files.len()],
            pieces: None,
            info,
            files,
            have: Have::Nothing,
            seed_only: false,
            executable_bits: false,
            resume: None,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            packs: Vec::new(),
            peers: Vec::new(),
            dht: false,
            documents: None,
            supply: None,
        }
    }
}

/// What a torrent is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Hashing what lies on disk.
    Checking {
        /// Pieces hashed.
        done: u32,
        /// Pieces to hash.
        total: u32,
    },
    /// Fetching.
    Downloading,
    /// Everything wanted is verified and on disk.
    Seeding,
    /// Stopped by an error; see [`TorrentHandle::finished`].
    Failed(String),
}

/// How a torrent is doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes of the wanted files.
    pub wanted_bytes: u64,
    /// Bytes of them that are verified.
    pub have_bytes: u64,
    /// Payload in, bytes per second.
    pub down_rate: u64,
    /// Payload out, bytes per second.
    pub up_rate: u64,
    /// Payload from peers.
    pub down_peers: u64,
    /// The part of it from the LAN.
    pub down_lan: u64,
    /// Payload over HTTP, packs by their compressed length.
    pub down_http: u64,
    /// What was needed of it, unpacked.
    pub http_content: u64,
    /// Payload from the [`Supply`], right or not.
    pub supplied: u64,
    /// Payload sent.
    pub up_total: u64,
    /// The part of it that went to the LAN.
    pub up_lan: u64,
    /// Of the payload from peers, what did not travel, as it came compressed.
    pub down_spared: u64,
    /// Of the payload sent, what did not travel.
    pub up_saved: u64,
    /// Processor time that compressing it took.
    pub packing: Duration,
    /// Payload that came twice, wrong or unasked.
    pub wasted: u64,
    /// Connections.
    pub peers: usize,
    /// Connections to peers that have everything.
    pub seeds: usize,
    /// Connections over QUIC.
    pub quic: usize,
    /// Connections over uTP.
    pub utp: usize,
    /// Time left at the present rate.
    pub eta: Option<Duration>,
}

/// Something that happened in a torrent.
#[derive(Clone, Debug)]
pub enum TorrentEvent {
    /// A piece is verified and on disk.
    PieceVerified(PieceIndex),
    /// A piece came in wrong and is fetched again.
    PieceFailed(PieceIndex),
    /// A piece that was there is no longer right on disk.
    PieceLost(PieceIndex),
    /// A peer was thrown out.
    PeerBanned {
        /// Its address.
        addr: SocketAddr,
        /// What it did.
        reason: String,
    },
    /// A tracker answered.
    TrackerOk {
        /// Its URL.
        url: String,
        /// How many addresses it gave.
        peers: usize,
    },
    /// A tracker did not answer, or refused.
    TrackerError {
        /// Its URL.
        url: String,
        /// Why.
        error: String,
    },
    /// An HTTP source failed; it is tried again later.
    WebSeedError {
        /// Why, with the URL.
        error: String,
    },
    /// What is wanted first is verified and on disk; lengths and bits of files are set at the end.
    FirstComplete,
    /// Everything wanted is verified and on disk.
    Complete,
}

/// A running engine with its sockets. Clones share it; it ends with [`Session::stop`] or when the
/// last clone and the last torrent handle are dropped.
#[derive(Clone, Debug)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    listen: Arc<[SocketAddr]>,
    peer_id: PeerId,
}

impl Session {
    /// Binds the sockets and starts the engine on a thread of its own. One thread is enough for
    /// several GiB/s, as hashing and files are left to others, and nothing that the caller does on
    /// its own threads holds up a peer.
    ///
    /// # Errors
    /// When an address cannot be bound (of several unspecified ones, when none can), or the system
    /// refuses threads or randomness.
    pub async fn start(config: SessionConfig) -> Result<Self, SessionError> {
        let (reply, started) = oneshot::channel();
        let work = || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(reply.send(Err(SessionError::Start(error)))),
            };
            runtime.block_on(async move {
                match Self::open(config) {
                    Ok((session, engine, commands)) => {
                        if reply.send(Ok(session)).is_ok() {
                            engine.run(commands).await;
                        }
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            });
            // What is left are look-ups of documents on a disk that does not answer.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("network".to_owned());
        thread.spawn(work).map_err(SessionError::Start)?;
        started.await.map_err(|_| SessionError::Stopped)?
    }

    /// Sockets and engine, on the runtime that will run it.
    fn open(
        config: SessionConfig,
    ) -> Result<(Self, engine::Engine, mpsc::Receiver<Command>), SessionError> {
        let listeners = listen(&config.listen)?;
        let addrs: Arc<[SocketAddr]> =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let mut random = [0; 20];
        getrandom::fill(&mut random)
            .map_err(|error| SessionError::Start(io::Error::other(error.to_string())))?;
        let (id, seed) = random.split_at(12);
        let peer_id = PeerId::ours(id.try_into().expect("split at twelve"));
        let seed = u64::from_le_bytes(seed.try_into().expect("eight bytes are left"));
        let bind = config.listen.first().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let local_only = config.local_network == LocalNetwork::Only;
        let datagrams = config.transport.has_datagrams();
        let datagrams = datagrams.then(|| open_datagrams(&config, &addrs)).transpose();
        let (quic, utp) = datagrams.map_err(SessionError::Start)?.unzip();
        let listen = Arc::clone(&addrs);
        let (by_quic, by_utp) = (quic.clone(), utp.clone());
        let setup = engine::Setup { config, peer_id, seed, bind, listen, quic, utp };
        let engine = engine::Engine::start(setup).map_err(SessionError::Start)?;
        if let Some(quic) = by_quic {
            quic.accept(&engine.net_events(), &commands.downgrade());
        }
        let by_utp = by_utp.iter().flat_map(Utp::listeners).map(Listener::Utp);
        for listener in listeners.into_iter().map(Listener::Tcp).chain(by_utp) {
            let (greeter, alive) = (engine.greeter(), commands.downgrade());
            tokio::spawn(accept_all(listener, greeter, alive, local_only));
        }
        Ok((Self { commands, listen: addrs, peer_id }, engine, receiver))
    }

    /// The addresses listened on, with their real ports.
    pub fn listen_addrs(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// What this session calls itself towards peers and trackers.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Takes on a torrent.
    ///
    /// # Errors
    /// When it is there already, cannot be verified, or the paths do not fit it.
    pub async fn add(&self, add: AddTorrent) -> Result<TorrentHandle, SessionError> {
        let files = add.info.files.len();
        if add.files.len() != files || add.priorities.len() != files {
            return Err(SessionError::FileCount { given: add.files.len(), files });
        }
        if let Some(piece) = add.info.geometry.pieces().find(|&piece| !can_verify(&add, piece)) {
            let (file, _) = add.info.v2_place(piece).ok_or(SessionError::Stopped)?;
            let name = add.info.files[file.get()].path.join("/");
            return Err(SessionError::NoPieceHashes(name));
        }
        self.send(add, None).await
    }

    /// Opens a meeting place without content: connections under `hash` carry documents only.
    ///
    /// # Errors
    /// As [`Session::add`].
    pub async fn add_rendezvous(
        &self,
        hash: InfoHash,
        documents: Arc<dyn DocumentStore>,
        trackers: Vec<Vec<String>>,
        peers: Vec<SocketAddr>,
    ) -> Result<Rendezvous, SessionError> {
        let hashes = InfoHashes { v1: Some(hash), v2: None };
        let link = Link { hashes, trackers, peers, dht: false };
        let opened = self.add_nameless(link, Some(documents), None).await;
        opened.map(Rendezvous)
    }

    /// A torrent of no pieces; what it really is goes to `found`, if that is asked for.
    pub(super) async fn add_nameless(
        &self,
        Link { hashes, trackers, peers, dht }: Link,
        documents: Option<Arc<dyn DocumentStore>>,
        found: Option<engine::Found>,
    ) -> Result<TorrentHandle, SessionError> {
        let none = AddTorrent::new(Arc::new(nameless(hashes)), Vec::new());
        self.send(AddTorrent { documents, trackers, peers, dht, ..none }, found).await
    }

    async fn send(
        &self,
        add: AddTorrent,
        found: Option<engine::Found>,
    ) -> Result<TorrentHandle, SessionError> {
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (reply, answer) = oneshot::channel();
        let command = Command::Add { add: Box::new(add), found, events: events.clone(), reply };
        self.commands.send(command).await.map_err(|_| SessionError::Stopped)?;
        let (key, status) = answer.await.map_err(|_| SessionError::Stopped)??;
        Ok(TorrentHandle { key, commands: self.commands.clone(), status, events })
    }

    /// Changes who may be sent payload, at once.
    pub async fn set_upload(&self, policy: UploadPolicy) {
        let _ = self.commands.send(Command::SetUpload(policy)).await;
    }

    /// Whether peers are looked for on the local network and find us there, at once.
    pub async fn set_found_locally(&self, found: bool) {
        let _ = self.commands.send(Command::SetFoundLocally(found)).await;
    }

    /// Changes the limits, at once. Bytes per second; `None` for no limit.
    pub async fn set_limits(&self, up: Option<u64>, down: Option<u64>) {
        let _ = self.commands.send(Command::SetLimits { up, down }).await;
    }

    /// Says goodbye to trackers, flushes and closes the files. Takes at most a few seconds.
    pub async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Stop(reply)).await.is_ok() {
            let _ = tokio::time::timeout(STOP_TIMEOUT, done).await;
        }
    }
}

/// A torrent in a session. Clones share it.
#[derive(Clone, Debug)]
pub struct TorrentHandle {
    key: TorrentKey,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    events: broadcast::Sender<TorrentEvent>,
}

impl TorrentHandle {
    /// How it is doing; refreshed about four times a second while that changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What happens from now on. A listener that is thousands behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<TorrentEvent> {
        self.events.subscribe()
    }

    /// Waits until everything wanted is verified and on disk.
    ///
    /// # Errors
    /// When the disk refuses, the torrent contradicts itself, or the session is stopped.
    pub async fn finished(&self) -> Result<(), TorrentError> {
        let (reply, done) = oneshot::channel();
        let command = Command::Finished { torrent: self.key, reply };
        self.commands.send(command).await.map_err(|_| TorrentError::Stopped)?;
        done.await.map_err(|_| TorrentError::Stopped)?
    }

    /// Flushes every file written so far to the medium and closes what is open for writing.
    ///
    /// # Errors
    /// The system's.
    pub async fn sync(&self) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        let stopped = || io::Error::other("the transfer engine has been stopped");
        let command = Command::Sync { torrent: self.key, reply };
        self.commands.send(command).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }

    /// The same bytes live at these paths now. Nothing is hashed again.
    pub async fn remap(&self, files: Vec<PathBuf>) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Remap { torrent: self.key, files, reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// From now on nothing is written: the files are somebody else's, and what they no longer hold is
    /// not fetched again. To be called when everything wanted is there and synced.
    pub async fn seed_only(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::SeedOnly { torrent: self.key, reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Tells of peers to dial.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        let _ = self.commands.send(Command::Peers { torrent: self.key, peers }).await;
    }

    /// The connections there are.
    pub async fn peers(&self) -> Vec<PeerSummary> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::ListPeers { torrent: self.key, reply }).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Asks a connected peer that passes on documents ([`PeerSummary::documents`]) for one by its
    /// repository path. What comes is **not verified**.
    pub async fn request_document(&self, peer: PeerKey, path: &str) -> Option<Bytes> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Document { peer, path: path.to_owned(), reply };
        self.commands.send(command).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Ends it: says goodbye to trackers and peers, closes the files.
    pub async fn remove(self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Remove { torrent: self.key, reply }).await.is_ok() {
            let _ = tokio::time::timeout(STOP_TIMEOUT, done).await;
        }
    }
}

/// A meeting place: connections that carry documents only.
#[derive(Clone, Debug)]
pub struct Rendezvous(TorrentHandle);

impl Rendezvous {
    /// As [`TorrentHandle::request_document`].
    pub async fn request_document(&self, peer: PeerKey, path: &str) -> Option<Bytes> {
        self.0.request_document(peer, path).await
    }

    /// As [`TorrentHandle::add_peers`].
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) {
        self.0.add_peers(peers).await;
    }

    /// As [`TorrentHandle::peers`].
    pub async fn peers(&self) -> Vec<PeerSummary> {
        self.0.peers().await
    }
}

/// True if the torrent file says what `piece` must hash to.
fn can_verify(add: &AddTorrent, piece: PieceIndex) -> bool {
    add.info.geometry.data_len(piece) == 0
        || if add.info.is_v2() {
            add.info.v2_root(piece).is_some()
        } else {
            add.info.v1_pieces.as_ref().is_some_and(|pieces| piece.get() < pieces.len())
        }
}

/// The pieces that hold bytes of the files marked.
pub(super) fn pieces_of_files(geometry: &Geometry, files: &[bool]) -> Bitfield {
    let mut pieces = Bitfield::empty(geometry.piece_count());
    for (file, _) in (0..).zip(files).filter(|(_, marked)| **marked) {
        for piece in geometry.pieces_of(crate::ids::FileIndex(file)) {
            pieces.insert(PieceIndex(piece));
        }
    }
    pieces
}

/// How much each piece is wanted: as much as the most wanted file in it.
pub(super) fn priorities_of_pieces(geometry: &Geometry, files: &[Priority]) -> Vec<Priority> {
    let mut pieces = vec![Priority::UNWANTED; geometry.piece_count() as usize];
    for (file, &priority) in (0..).zip(files) {
        for piece in geometry.pieces_of(crate::ids::FileIndex(file)) {
            let piece = &mut pieces[piece as usize];
            *piece = priority.max(*piece);
        }
    }
    pieces
}

/// The pieces of which every byte belongs to the files marked.
pub(super) fn pieces_within_files(geometry: &Geometry, files: &[bool]) -> Bitfield {
    let mut pieces = pieces_of_files(geometry, files);
    for (file, _) in (0..).zip(files).filter(|(_, marked)| !**marked) {
        for piece in geometry.pieces_of(crate::ids::FileIndex(file)) {
            pieces.remove(PieceIndex(piece));
        }
    }
    pieces
}

/// What is spoken over UDP, at the numbers of `listen`.
fn open_datagrams(config: &SessionConfig, listen: &[SocketAddr]) -> io::Result<(Quic, Utp)> {
    let shared = datagram_sockets(listen)?.into_iter().map(datagrams::share);
    let shared: io::Result<Vec<_>> = shared.collect();
    let (ports, ends) = shared?.into_iter().unzip();
    let local_only = config.local_network == LocalNetwork::Only;
    let quic = Quic::open(ports, config.transport.yields(), local_only)?;
    Ok((quic, Utp::open(ends)?))
}
