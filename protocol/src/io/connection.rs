//! One connection: the handshake either way, then a task that reads and one that writes.
//!
//! The reader turns bytes into batches of messages and waits whenever there is no buffer, no write
//! budget or no room at the engine: that is how a slow disk slows down the network. The writer takes
//! what the engine gives it and reports payload that has left. Neither decides anything.

use super::buffers::{BUFFER_LEN, BufferPool};
use super::parcels;
use super::plain::Plain;
use super::quic::Quic;
use super::sealed::{self, Sealed};
use super::stream::{ReadHalf, Stream, WriteHalf};
use super::utp::Utp;
use crate::ids::{InfoHash, InfoHashes, PeerId, PeerKey};
use crate::policy::encryption::Encryption;
use crate::policy::transport::{QUIC_PATIENCE, Transport};
use crate::wire::handshake::{Abilities, HANDSHAKE_LEN, Handshake};
use crate::wire::message::{self, Message, WireError};
use bytes::{Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Time for the other end to say its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes nothing for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// What was said last may still go out for so long.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages handed to the engine in one go.
const MESSAGES_MAX: usize = 256;
/// Messages on their way to the engine, as [`weight`] counts them: they may be far larger in memory than
/// on the wire.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Batches the engine may have queued for one peer.
const BATCHES_MAX: usize = 16 * 1024;
/// Bytes of messages, payload of blocks not counted (the swarm bounds that), that the engine may have
/// queued for one peer; one that reads no faster is closed.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// What a long message may grow by before more of it has come.
const LONG_STEP: usize = 64 * 1024;
/// What is read into a buffer below this is copied out, so that a trickle does not hold whole
/// buffers.
const COPY_BELOW: usize = 64 * 1024;
/// What may lie in the socket unsent, in bytes. What was queued there cannot be overtaken, taken back, or
/// given to another peer, so it is kept to what hides a wake-up: [`UNSENT_TIME`] of the peer's rate.
const UNSENT_MIN: u32 = 16 * 1024;
const UNSENT_MAX: u32 = 128 * 1024;
const UNSENT_TIME: Duration = Duration::from_millis(60);
/// The rate is looked at this often.
const UNSENT_REVIEW: Duration = Duration::from_millis(100);
/// Slices of one vectored write.
const SLICES_MAX: usize = 64;

/// What connection tasks tell the engine.
#[derive(Debug)]
pub(super) enum NetEvent {
    /// Somebody dialled us and said its handshake; nothing has been answered.
    Incoming { stream: Stream, addr: SocketAddr, handshake: Handshake },
    /// Dialling has ended.
    Dialled {
        torrent: super::storage::TorrentKey,
        addr: SocketAddr,
        result: Option<(Stream, Handshake)>,
    },
    /// A second connection, over QUIC, was made with the peer known by `addr`.
    Upgraded {
        torrent: super::storage::TorrentKey,
        addr: SocketAddr,
        stream: Stream,
        handshake: Handshake,
    },
    /// Messages came, with so many bytes of payload taken from the write budget, of which so many did
    /// not travel.
    Messages { peer: PeerKey, messages: Vec<Message>, payload: usize, spared: usize },
    /// Payload has left.
    Sent { peer: PeerKey, payload: u32 },
    /// The connection ended.
    Closed { peer: PeerKey, reason: CloseReason },
}

/// Why a connection ended, as told to the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloseReason {
    #[error("closed by the peer")]
    ByPeer,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer took nothing for a minute")]
    Stuck,
}

/// The engine's end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    batches: mpsc::Sender<Vec<Message>>,
    queued: Arc<AtomicUsize>,
    reader: AbortHandle,
    writer: Option<AbortHandle>,
}

impl Connection {
    /// Queues messages; false if the peer reads too slowly and is to be closed.
    pub(super) fn send(&self, messages: Vec<Message>) -> bool {
        let weight = weight(&messages);
        let queued = self.queued.fetch_add(weight, Ordering::Relaxed) + weight;
        queued <= QUEUED_BYTES_MAX && self.batches.try_send(messages).is_ok()
    }

    /// Ends it. What was said before still goes out, if the peer takes it soon.
    pub(super) fn close(mut self) {
        let Some(writer) = self.writer.take() else { return };
        // It ends by itself once its queue is closed and empty; a stuck one must not linger.
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            writer.abort();
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.take().into_iter().for_each(|writer| writer.abort());
    }
}

/// What every connection shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) pool: BufferPool,
    pub(super) budget: Arc<Semaphore>,
    /// Room for messages on their way, in bytes of [`MESSAGE_BYTES_MAX`].
    pub(super) room: Arc<Semaphore>,
    pub(super) events: mpsc::Sender<NetEvent>,
    /// Room for those that are told who we are and no more.
    pub(super) declines: Arc<Semaphore>,
}

/// Connections that are declined at once; more are closed.
pub(super) const DECLINES_MAX: usize = 16;

/// Starts the two tasks of a connection whose handshakes are done; `hello` goes out first.
pub(super) fn start(shared: &Shared, peer: PeerKey, stream: Stream, hello: Vec<u8>) -> Connection {
    let (batches, queue) = mpsc::channel(BATCHES_MAX);
    let queued = Arc::new(AtomicUsize::new(0));
    let (read, write) = stream.split();
    let (reading, writing) = (shared.clone(), shared.events.clone());
    let reader = tokio::spawn(async move {
        let reason = read_messages(&reading, peer, read).await;
        let _ = reading.events.send(NetEvent::Closed { peer, reason }).await;
    });
    let count = Arc::clone(&queued);
    let writer = tokio::spawn(async move {
        if let Err(reason) = write_messages(&writing, peer, write, queue, &count, hello).await {
            let _ = writing.send(NetEvent::Closed { peer, reason }).await;
        }
    });
    let (reader, writer) = (reader.abort_handle(), Some(writer.abort_handle()));
    Connection { batches, queued, reader, writer }
}

/// How a peer is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By what every client has.
    Plain,
    /// By QUIC at its port of this number, or else by what every client has.
    QuicFirst(u16),
    /// By QUIC alone.
    Quic(u16),
    /// By uTP alone, since the peer does the same now.
    Punch,
}

/// What dialling needs beside the address.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) bind: Option<IpAddr>,
    pub(super) quic: Option<Quic>,
    pub(super) utp: Option<Utp>,
    /// What every client has, in the order in which it is tried.
    pub(super) ways: [Transport; 2],
    pub(super) hashes: InfoHashes,
    pub(super) peer_id: PeerId,
    pub(super) encryption: Encryption,
    /// Whether the torrent is in the DHT.
    pub(super) dht: bool,
}

impl Dial {
    /// Connects and exchanges handshakes. `None` if anything on the way fails.
    pub(super) async fn dial(self, addr: SocketAddr, route: Route) -> Option<(Stream, Handshake)> {
        if let (Route::QuicFirst(port) | Route::Quic(port), Some(quic)) = (route, &self.quic) {
            // With its scope, if it has one.
            let mut at = addr;
            at.set_port(port);
            match timeout(QUIC_PATIENCE, quic.connect(at)).await {
                Ok(Ok(stream)) => return told(at, in_time(self.exchange(stream)).await),
                Ok(Err(error)) => tracing::debug!(%at, %error, "dialling by QUIC failed"),
                Err(_) => tracing::debug!(%at, "dialling by QUIC timed out"),
            }
        }
        if matches!(route, Route::Quic(_)) {
            return None;
        }
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        let ways = if route == Route::Punch { &[Transport::Utp][..] } else { &self.ways };
        for &way in ways.iter().filter(|way| **way != Transport::Utp || self.utp.is_some()) {
            match self.by(way, addr).await {
                Ok(connected) => return Some(connected),
                // libtorrent without TCP takes such connections, and hangs up.
                Err(failure) if failure.says_nothing() => {
                    failed = failure.reason();
                    tracing::debug!(%addr, %way, error = %failed, "cannot connect");
                }
                Err(failure) => return told(addr, Err(failure.reason())),
            }
        }
        told(addr, Err(failed))
    }

    /// Connects one way, and a second time without encryption or with it, if that may be why it failed.
    async fn by(&self, way: Transport, addr: SocketAddr) -> Result<(Stream, Handshake), Failed> {
        let encrypted = self.encryption.dials_encrypted();
        let first = self.once(way, addr, encrypted).await;
        let again = matches!(&first, Err(Failed::Handshake(error)) if encrypted || hung_up(error));
        if again && self.encryption.dials_twice() {
            tracing::debug!(%addr, encrypted = !encrypted, "dialling once more");
            return self.once(way, addr, !encrypted).await;
        }
        first
    }

    async fn once(
        &self,
        way: Transport,
        addr: SocketAddr,
        encrypted: bool,
    ) -> Result<(Stream, Handshake), Failed> {
        let connected = timeout(CONNECT_TIMEOUT, self.connect(way, addr)).await;
        let stream = connected.unwrap_or_else(|late| Err(late.into())).map_err(Failed::Connect)?;
        let exchanged = if encrypted {
            in_time(self.exchange_sealed(stream)).await
        } else {
            in_time(self.exchange(Stream::Plain(stream))).await
        };
        exchanged.map_err(Failed::Handshake)
    }

    async fn connect(&self, way: Transport, addr: SocketAddr) -> io::Result<Plain> {
        if let Some(utp) = self.utp.as_ref().filter(|_| way == Transport::Utp) {
            return utp.connect(addr).await;
        }
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(ip) = self.bind.filter(|ip| ip.is_ipv4() == addr.is_ipv4()) {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        let stream = socket.connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Plain::Tcp(stream))
    }

    async fn exchange(&self, mut stream: Stream) -> io::Result<(Stream, Handshake)> {
        let (_, hello) = self.hello()?;
        stream.write_all(&hello).await?;
        self.hear(stream).await
    }

    /// The same behind message stream encryption, with which our handshake goes along.
    async fn exchange_sealed(&self, mut stream: Plain) -> io::Result<(Stream, Handshake)> {
        let (torrent, hello) = self.hello()?;
        let agreed = sealed::begin(&mut stream, torrent, self.encryption, &hello).await?;
        self.hear(Stream::Sealed(Box::new(Sealed::new(stream, agreed)))).await
    }

    fn hello(&self) -> io::Result<(InfoHash, [u8; HANDSHAKE_LEN])> {
        let torrent = self.hashes.swarm_hashes().next().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((torrent, handshake(self.hashes, torrent, self.peer_id, self.dht).encode()))
    }

    async fn hear(&self, mut stream: Stream) -> io::Result<(Stream, Handshake)> {
        let theirs = read_handshake(&mut stream).await?;
        if self.hashes.contains(theirs.info_hash) {
            return Ok((stream, theirs));
        }
        let other = theirs.info_hash;
        Err(io::Error::other(format!("the peer answered for another torrent, {other}")))
    }
}

/// How far dialling came.
enum Failed {
    Connect(io::Error),
    Handshake(io::Error),
}

impl Failed {
    /// True if nothing was heard from the peer.
    fn says_nothing(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Handshake(error) => hung_up(error),
        }
    }

    fn reason(self) -> io::Error {
        match self {
            Self::Connect(error) | Self::Handshake(error) => error,
        }
    }
}

/// True if a peer closed without a word, as those do that take nothing but encryption.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|late| Err(late.into()))
}

fn told<T>(addr: SocketAddr, dialled: io::Result<T>) -> Option<T> {
    dialled.inspect_err(|error| tracing::debug!(%addr, %error, "dialling failed")).ok()
}

/// Our own handshake under one of the torrent's names. With `dht` it tells of our node there.
pub(super) fn handshake(
    hashes: InfoHashes,
    info_hash: crate::ids::InfoHash,
    peer_id: PeerId,
    dht: bool,
) -> Handshake {
    let abilities = Abilities { extensions: true, fast: true, v2: hashes.v2.is_some(), dht };
    Handshake { info_hash, peer_id, abilities }
}

/// Reads the handshake of somebody who dialled us, and hands the connection to the engine.
pub(super) async fn accept(mut stream: Stream, addr: SocketAddr, events: mpsc::Sender<NetEvent>) {
    let heard = in_time(read_handshake(&mut stream)).await;
    take_in(heard.map(|handshake| (stream, handshake)), addr, &events).await;
}

async fn take_in(
    heard: io::Result<(Stream, Handshake)>,
    addr: SocketAddr,
    events: &mpsc::Sender<NetEvent>,
) {
    match heard {
        Ok((stream, handshake)) => {
            let _ = events.send(NetEvent::Incoming { stream, addr, handshake }).await;
        }
        Err(error) => tracing::debug!(%addr, %error, "refused a connection"),
    }
}

/// Says who we are, and no more; the other end closes.
pub(super) fn decline(shared: &Shared, mut stream: Stream, hello: Vec<u8>) {
    let Ok(permit) = Arc::clone(&shared.declines).try_acquire_owned() else { return };
    tokio::spawn(async move {
        let told = async {
            stream.write_all(&hello).await?;
            stream.read_exact(&mut [0]).await
        };
        let _ = timeout(HANDSHAKE_TIMEOUT, told).await;
        drop(permit);
    });
}

/// What it takes to answer those who dial us by TCP or uTP, encrypted or not.
#[derive(Clone, Debug)]
pub(super) struct Greeter {
    pub(super) events: mpsc::Sender<NetEvent>,
    /// The names of the torrents that are here.
    pub(super) torrents: watch::Receiver<Vec<InfoHash>>,
    pub(super) encryption: Encryption,
}

impl Greeter {
    /// As [`accept`].
    pub(super) async fn accept(self, stream: Plain, addr: SocketAddr) {
        take_in(in_time(self.greet(stream)).await, addr, &self.events).await;
    }

    async fn greet(&self, mut plain: Plain) -> io::Result<(Stream, Handshake)> {
        if let Plain::Tcp(stream) = &plain {
            stream.set_nodelay(true)?;
        }
        let mut first = [0; PREFIX_LEN];
        plain.read_exact(&mut first).await?;
        if first == handshake_prefix() {
            if !self.encryption.takes_plain() {
                return Err(io::Error::other("only encrypted connections are taken"));
            }
            let mut stream = Stream::Plain(plain);
            let handshake = read_rest(&mut stream, first).await?;
            return Ok((stream, handshake));
        }
        if !self.encryption.takes_encrypted() {
            return Err(not_bittorrent());
        }
        let torrents = self.torrents.borrow().clone();
        let agreed = sealed::answer(&mut plain, first, &torrents, self.encryption).await?;
        let mut stream = Stream::Sealed(Box::new(Sealed::new(plain, agreed)));
        let handshake = read_handshake(&mut stream).await?;
        Ok((stream, handshake))
    }
}

/// The first bytes of a handshake, which tell other protocols apart.
const PREFIX_LEN: usize = 20;

async fn read_handshake(stream: &mut Stream) -> io::Result<Handshake> {
    let mut first = [0; PREFIX_LEN];
    // Do not wait for the rest of other protocols.
    stream.read_exact(&mut first).await?;
    if first != handshake_prefix() {
        return Err(not_bittorrent());
    }
    read_rest(stream, first).await
}

async fn read_rest(stream: &mut Stream, first: [u8; PREFIX_LEN]) -> io::Result<Handshake> {
    let mut bytes = [0; HANDSHAKE_LEN];
    bytes[..PREFIX_LEN].copy_from_slice(&first);
    stream.read_exact(&mut bytes[PREFIX_LEN..]).await?;
    Handshake::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn not_bittorrent() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, crate::wire::handshake::NotBitTorrent)
}

fn handshake_prefix() -> [u8; PREFIX_LEN] {
    *b"\x13BitTorrent protocol"
}

async fn read_messages(shared: &Shared, peer: PeerKey, mut stream: ReadHalf) -> CloseReason {
    let mut tail = BytesMut::new();
    loop {
        if let Err(error) = stream.readable().await {
            return error.into();
        }
        match read_batch(shared, &mut stream, &mut tail).await {
            Ok(mut frames) => {
                while !frames.is_empty() {
                    match decode_some(&mut frames) {
                        Ok(messages) => {
                            if deliver_all(shared, peer, messages).await.is_none() {
                                return CloseReason::ByPeer;
                            }
                        }
                        Err(error) => return error.into(),
                    }
                }
            }
            Err(reason) => return reason,
        }
    }
}

/// Hands messages to the engine. A parcel goes by itself, and has its part of the budget before it is
/// unpacked: a few hundred bytes may hold a megabyte. `None` when the engine is gone.
async fn deliver_all(shared: &Shared, peer: PeerKey, messages: Vec<Message>) -> Option<()> {
    let mut plain = Vec::with_capacity(messages.len());
    for message in messages {
        match parcels::content_len(&message) {
            None => plain.push(message),
            Some(content) => {
                deliver(shared, peer, std::mem::take(&mut plain)).await?;
                let permit = shared.budget.acquire_many(permits(content)).await.ok()?;
                let (unpacked, spared) = parcels::unpack(message);
                hand_over(shared, peer, unpacked, spared, permit).await?;
            }
        }
    }
    deliver(shared, peer, plain).await
}

async fn deliver(shared: &Shared, peer: PeerKey, messages: Vec<Message>) -> Option<()> {
    if messages.is_empty() {
        return Some(());
    }
    let payload = messages.iter().map(payload_len).sum();
    let permit = shared.budget.acquire_many(permits(payload)).await.ok()?;
    hand_over(shared, peer, messages, 0, permit).await
}

/// With at least as much of the budget as the messages have payload.
async fn hand_over(
    shared: &Shared,
    peer: PeerKey,
    messages: Vec<Message>,
    spared: usize,
    mut permit: SemaphorePermit<'_>,
) -> Option<()> {
    let payload: usize = messages.iter().map(payload_len).sum();
    drop(permit.split(permit.num_permits().saturating_sub(payload)));
    // Asked for last, as the engine gives it back whatever the disk does.
    shared.room.acquire_many(permits(weight(&messages))).await.ok()?.forget();
    let event = NetEvent::Messages { peer, messages, payload, spared };
    shared.events.send(event).await.ok()?;
    permit.forget(); // The engine gives it back once the bytes are written.
    Some(())
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch is far below 4 GiB")
}

/// Payload of a message, in bytes; compressed blocks count as what they become.
fn payload_len(message: &Message) -> usize {
    match message {
        Message::Piece { data, .. } => data.len(),
        Message::Parcel { plain, .. } => *plain as usize,
        _ => 0,
    }
}

/// What messages count while they wait, in bytes, payload of blocks left out.
pub(super) fn weight(messages: &[Message]) -> usize {
    messages.iter().map(queued_len).sum()
}

fn queued_len(message: &Message) -> usize {
    /// A message without a payload of its own, in memory.
    const PLAIN: usize = 64;
    PLAIN
        + match message {
            Message::Extended { payload, .. } => payload.len(),
            Message::Bitfield(bytes) | Message::Hashes { hashes: bytes, .. } => bytes.len(),
            _ => 0,
        }
}

/// Reads once and returns the whole frames that are in; what is left over stays in `tail`.
async fn read_batch(
    shared: &Shared,
    stream: &mut ReadHalf,
    tail: &mut BytesMut,
) -> Result<Bytes, CloseReason> {
    let expected = message::frame_len(tail)?.unwrap_or(0);
    if expected > BUFFER_LEN - COPY_BELOW {
        return read_long(stream, tail, expected);
    }
    let mut buffer = shared.pool.take().await;
    let kept = tail.len();
    buffer[..kept].copy_from_slice(tail);
    let read = match stream.try_read(&mut buffer[kept..]) {
        Ok(0) => return Err(CloseReason::ByPeer),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Bytes::new()),
        Err(error) => return Err(error.into()),
    };
    let filled = kept + read;
    let (whole, payload) = whole_frames(&buffer[..filled])?;
    tail.clear();
    tail.extend_from_slice(&buffer[whole..filled]);
    if whole == 0 {
        return Ok(Bytes::new());
    }
    if payload && whole > COPY_BELOW {
        return Ok(buffer.freeze(..whole));
    }
    Ok(Bytes::copy_from_slice(&buffer[..whole]))
}

/// A message longer than a buffer, such as a bitfield of a million pieces, grows in `tail`.
fn read_long(
    stream: &mut ReadHalf,
    tail: &mut BytesMut,
    expected: usize,
) -> Result<Bytes, CloseReason> {
    let held = tail.len();
    tail.resize(held + (expected - held).min(LONG_STEP), 0);
    let read = stream.try_read(&mut tail[held..]);
    tail.truncate(held + read.as_ref().map_or(0, |read| *read));
    match read {
        Ok(0) => return Err(CloseReason::ByPeer),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Bytes::new()),
        Err(error) => return Err(error.into()),
    }
    let (whole, _) = whole_frames(tail)?;
    Ok(tail.split_to(whole).freeze())
}

/// How many bytes at the front are whole messages, and whether a block is among them.
fn whole_frames(bytes: &[u8]) -> Result<(usize, bool), WireError> {
    let (mut at, mut payload) = (0, false);
    while let Some(len) = message::frame_len(&bytes[at..])? {
        if bytes.len() - at < len {
            break;
        }
        payload |= bytes.get(at + 4) == Some(&7);
        at += len;
    }
    Ok((at, payload))
}

/// Takes the first messages off whole frames.
fn decode_some(frames: &mut Bytes) -> Result<Vec<Message>, WireError> {
    let mut messages = Vec::new();
    while messages.len() < MESSAGES_MAX
        && let Some(len) = message::frame_len(frames)?
    {
        messages.push(message::decode(&frames.split_to(len).slice(4..))?);
    }
    Ok(messages)
}

async fn write_messages(
    events: &mpsc::Sender<NetEvent>,
    peer: PeerKey,
    mut stream: WriteHalf,
    mut queue: mpsc::Receiver<Vec<Message>>,
    queued: &AtomicUsize,
    hello: Vec<u8>,
) -> Result<(), CloseReason> {
    let mut unsent = Unsent::new(&stream)?;
    if !hello.is_empty() {
        stream.write_all(&hello).await?;
        // Transmission reads what came along with a handshake over uTP only when more comes.
        stream.deliver().await?;
    }
    let mut batches = Vec::new();
    let mut heads = BytesMut::new();
    while queue.recv_many(&mut batches, 64).await > 0 {
        let messages: Vec<Message> = batches.drain(..).flatten().collect();
        let mut rest = messages.as_slice();
        while !rest.is_empty() {
            let (group, later) = rest.split_at(group_len(rest));
            rest = later;
            heads.clear();
            let mut ends = Vec::with_capacity(group.len());
            for message in group {
                message::encode(message, &mut heads);
                ends.push(heads.len());
            }
            let payload: usize = group.iter().map(payload_len).sum();
            write_group(&mut stream, group, &heads, &ends).await?;
            queued.fetch_sub(weight(group), Ordering::Relaxed);
            if payload > 0 {
                unsent.wrote(&stream, payload)?;
                let payload = u32::try_from(payload).expect("a group is far below 4 GiB");
                if events.send(NetEvent::Sent { peer, payload }).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// How much may lie in a socket unsent (`TCP_NOTSENT_LOWAT`, or QUIC's send window), after the rate at which it empties.
struct Unsent {
    max: u32,
    since: Instant,
    bytes: usize,
}

impl Unsent {
    fn new(stream: &WriteHalf) -> io::Result<Self> {
        stream.set_unsent_max(UNSENT_MIN)?;
        Ok(Self { max: UNSENT_MIN, since: Instant::now(), bytes: 0 })
    }

    /// So much payload has gone into the socket.
    fn wrote(&mut self, stream: &WriteHalf, bytes: usize) -> io::Result<()> {
        self.bytes += bytes;
        let passed = self.since.elapsed();
        if stream.bound_follows_window() {
            stream.set_unsent_max(self.max)?;
        }
        if passed < UNSENT_REVIEW {
            return Ok(());
        }
        let fitting = self.bytes as u128 * UNSENT_TIME.as_millis() / passed.as_millis();
        let fitting = u32::try_from(fitting).unwrap_or(UNSENT_MAX).clamp(UNSENT_MIN, UNSENT_MAX);
        if fitting.abs_diff(self.max) > self.max / 4 {
            stream.set_unsent_max(fitting)?;
            self.max = fitting;
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

/// How many messages go out with one call: any number of short ones, and as many blocks as there
/// are slices for.
fn group_len(messages: &[Message]) -> usize {
    let blocks = messages.iter().enumerate().filter(|(_, message)| payload_len(message) > 0);
    blocks.map(|(at, _)| at).nth(SLICES_MAX / 2 - 1).unwrap_or(messages.len())
}

/// Writes heads and payload in turn, without copying the payload.
async fn write_group(
    stream: &mut WriteHalf,
    group: &[Message],
    heads: &[u8],
    ends: &[usize],
) -> Result<(), CloseReason> {
    let mut slices: Vec<&[u8]> = Vec::with_capacity(SLICES_MAX);
    let mut from = 0;
    for (message, &end) in group.iter().zip(ends) {
        if let Message::Piece { data, .. } | Message::Parcel { frame: data, .. } = message {
            slices.push(&heads[from..end]);
            slices.push(data);
            from = end;
        }
    }
    slices.push(&heads[from..]);
    let mut slices: Vec<IoSlice> =
        slices.into_iter().filter(|slice| !slice.is_empty()).map(IoSlice::new).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let taken = timeout(WRITE_TIMEOUT, stream.write_vectored(rest)).await;
        match taken.map_err(|_| CloseReason::Stuck)?? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer full of the shortest messages is a quarter of a million bytes, and twenty times as much in
    /// memory: no more than a few are there at once.
    #[test]
    fn frames_become_messages_a_few_at_a_time() {
        let mut frames = Bytes::from(vec![0; 4 * (2 * MESSAGES_MAX + 3)]);
        let mut counts = Vec::new();
        while !frames.is_empty() {
            let messages = decode_some(&mut frames).unwrap();
            assert!(weight(&messages) <= MESSAGE_BYTES_MAX);
            counts.push(messages.len());
        }
        assert_eq!(counts, [MESSAGES_MAX, MESSAGES_MAX, 3]);
    }
}
