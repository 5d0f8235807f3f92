//! Peers and web servers that misbehave on purpose, over raw sockets. What they say is written out
//! by hand here, so that a mistake of our own wire code cannot hide.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::content::Noise;
use crate::lab::Node;

/// How often a server looks whether it should end.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(20);
/// How long a misbehaving peer waits for the next bytes.
const PEER_WAIT: Duration = Duration::from_secs(60);
/// The largest block.
const BLOCK_BYTES: u32 = 1 << 14;

/// What a peer does to whoever connects to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malice {
    /// Sends noise instead of a handshake.
    Noise,
    /// Shakes hands, then sends noise.
    NoiseAfterHandshake,
    /// Shakes hands with another torrent's hash.
    WrongTorrent,
    /// Announces a message of four gigabytes.
    Oversize,
    /// Says it has everything and answers every request with wrong bytes.
    Lie,
    /// Says it has everything, unchokes, and never answers.
    Stall,
    /// Accepts the connection and says nothing at all.
    Silence,
    /// Sends blocks that nobody asked for.
    Unasked,
    /// Sends messages with indices beyond the torrent.
    Indices,
    /// Says it has everything, and closes after the first request.
    HangUp,
}

/// A peer that misbehaves, listening on a host of the lab.
pub struct HostilePeer {
    /// Where it listens.
    pub addr: SocketAddr,
    connections: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl HostilePeer {
    /// Starts it. `hash` is the 20-byte hash of the handshake, `pieces` their number.
    pub fn start(node: &Node, port: u16, hash: [u8; 20], pieces: u32, malice: Malice) -> Self {
        let addr = node.addr(port);
        let listener = node.listen(port);
        let (connections, requests, stop) = Default::default();
        let peer = Self { addr, connections, requests, stop };
        let (connections, requests) = (Arc::clone(&peer.connections), Arc::clone(&peer.requests));
        serve(listener, Arc::clone(&peer.stop), move |stream| {
            connections.fetch_add(1, Ordering::Relaxed);
            // Whatever goes wrong ends the connection, as it should.
            let _ = misbehave(stream, hash, pieces, malice, &requests);
        });
        peer
    }

    /// Connections it got so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Block requests it got so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for HostilePeer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A peer at a product's meeting place that answers every request for a document with one that it made up.
pub struct DocumentLiar {
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl DocumentLiar {
    /// Starts it. `hash` is that of the meeting place.
    pub fn start(node: &Node, port: u16, hash: [u8; 20]) -> Self {
        let (asked, stop) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let liar = Self { asked: Arc::clone(&asked), stop: Arc::clone(&stop) };
        serve(node.listen(port), stop, move |stream| {
            let _ = make_up_documents(stream, hash, &asked);
        });
        liar
    }

    /// Requests for documents that it got so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for DocumentLiar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn make_up_documents(mut stream: TcpStream, hash: [u8; 20], asked: &AtomicU64) -> io::Result<()> {
    const EXTENDED: u8 = 20;
    const OUR_NUMBER: u8 = 9;
    const MADE_UP: &[u8] = b"signatures = []\n+++\nsequence = 999999999\n";
    stream.set_read_timeout(Some(PEER_WAIT))?;
    stream.read_exact(&mut [0; 68])?;
    let mut hello = handshake(hash, b"-HO0003-doooocuments");
    hello[25] |= 0x10; // BEP 10
    stream.write_all(&hello)?;
    let offer = format!("d1:md12:ud_documentsi{OUR_NUMBER}eee");
    stream.write_all(&message(EXTENDED, &[&[0], offer.as_bytes()].concat()))?;
    let mut their_number = None;
    loop {
        let (id, payload) = read_message(&mut stream)?;
        let (Some(EXTENDED), Some((&number, body))) = (id, payload.split_first()) else { continue };
        let text = String::from_utf8_lossy(body);
        if number == 0 {
            their_number = text
                .split_once("12:ud_documentsi")
                .and_then(|(_, rest)| rest.split_once('e')?.0.parse::<u8>().ok());
            continue;
        }
        // `d2:ati0e4:path9:head.toml1:ti0ee`
        let path = text
            .split_once("4:path")
            .and_then(|(_, rest)| rest.split_once(':'))
            .and_then(|(len, rest)| rest.get(..len.parse().ok()?));
        let (Some(path), Some(theirs)) = (path, their_number) else { continue };
        asked.fetch_add(1, Ordering::Relaxed);
        let size = MADE_UP.len();
        let mut answer = vec![theirs];
        answer.extend_from_slice(
            format!("d2:ati0e4:path{}:{path}4:sizei{size}e1:ti1ee", path.len()).as_bytes(),
        );
        answer.extend_from_slice(MADE_UP);
        stream.write_all(&message(EXTENDED, &answer))?;
    }
}

fn serve(
    listener: TcpListener,
    stop: Arc<AtomicBool>,
    handle: impl Fn(TcpStream) + Send + Sync + 'static,
) {
    listener.set_nonblocking(true).expect("a listener can be made non-blocking");
    let handle = Arc::new(handle);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let handle = Arc::clone(&handle);
                    thread::spawn(move || {
                        if stream.set_nonblocking(false).is_ok() {
                            handle(stream);
                        }
                    });
                }
                Err(_) => thread::sleep(ACCEPT_INTERVAL),
            }
        }
    });
}

/// The 68 bytes of a BEP 3 handshake; the reserved bits offer extensions and the fast extension.
pub fn handshake(hash: [u8; 20], peer_id: &[u8; 20]) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x04]);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(peer_id);
    bytes
}

/// A length-prefixed message.
pub fn message(id: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len() + 1).expect("messages are small");
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.push(id);
    bytes.extend_from_slice(payload);
    bytes
}

/// A request for one block (id 6).
pub fn request(piece: u32, offset: u32, len: u32) -> Vec<u8> {
    let numbers = [piece, offset, len];
    message(6, &numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>())
}

/// The bits of a peer that has every piece (id 5).
pub fn full_bitfield(pieces: u32) -> Vec<u8> {
    let mut bits = vec![0xff; pieces.div_ceil(8) as usize];
    if let (Some(last), spare @ 1..) = (bits.last_mut(), (8 - pieces % 8) % 8) {
        *last <<= spare;
    }
    message(5, &bits)
}

const UNCHOKE: u8 = 1;
const HAVE: u8 = 4;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;

fn misbehave(
    mut stream: TcpStream,
    hash: [u8; 20],
    pieces: u32,
    malice: Malice,
    requests: &AtomicU64,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PEER_WAIT))?;
    stream.set_write_timeout(Some(PEER_WAIT))?;
    let mut noise = Noise::new(u64::from(stream.peer_addr()?.port()));
    if malice == Malice::Silence {
        let _ = stream.read_exact(&mut [0; 4096]);
        thread::sleep(PEER_WAIT);
        return Ok(());
    }
    if malice == Malice::Noise {
        return send_noise(&mut stream, &mut noise);
    }
    stream.read_exact(&mut [0; 68])?;
    let mut shown = hash;
    if malice == Malice::WrongTorrent {
        shown[0] ^= 1;
    }
    let mut id = *b"-HO0001-000000000000";
    noise.fill(&mut id[8..]);
    stream.write_all(&handshake(shown, &id))?;
    match malice {
        Malice::NoiseAfterHandshake => return send_noise(&mut stream, &mut noise),
        Malice::Oversize => {
            stream.write_all(&u32::MAX.to_be_bytes())?;
            return send_noise(&mut stream, &mut noise);
        }
        Malice::Indices => {
            stream.write_all(&message(HAVE, &u32::MAX.to_be_bytes()))?;
            stream.write_all(&request(u32::MAX, u32::MAX, u32::MAX))?;
            stream.write_all(&message(PIECE, &[0xff; 8]))?;
        }
        _ => {}
    }
    stream.write_all(&full_bitfield(pieces))?;
    stream.write_all(&message(UNCHOKE, &[]))?;
    if malice == Malice::Unasked {
        let mut payload = vec![0; 8 + BLOCK_BYTES as usize];
        noise.fill(&mut payload[8..]);
        for _ in 0..64 {
            stream.write_all(&message(PIECE, &payload))?;
        }
    }
    loop {
        let (id, payload) = read_message(&mut stream)?;
        if id != Some(REQUEST) {
            continue;
        }
        requests.fetch_add(1, Ordering::Relaxed);
        match malice {
            Malice::HangUp => return Ok(()),
            Malice::Lie => {
                let len = u32::from_be_bytes(payload[8..12].try_into().expect("four bytes"))
                    .min(BLOCK_BYTES);
                let mut answer = payload[..8].to_vec();
                answer.resize(8 + len as usize, 0);
                noise.fill(&mut answer[8..]);
                stream.write_all(&message(PIECE, &answer))?;
            }
            _ => {}
        }
    }
}

fn send_noise(stream: &mut TcpStream, noise: &mut Noise) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..256 {
        noise.fill(&mut buffer);
        stream.write_all(&buffer)?;
    }
    Ok(())
}

/// Reads one message: its id (`None` for a keep-alive) and payload.
pub fn read_message(stream: &mut impl Read) -> io::Result<(Option<u8>, Vec<u8>)> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > 1 << 21 {
        return Err(io::Error::other("a message of more than 2 MiB"));
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    if bytes.is_empty() {
        return Ok((None, Vec::new()));
    }
    let payload = bytes.split_off(1);
    Ok((Some(bytes[0]), payload))
}

/// Connects to a seed as a leech and asks for the same block `count` times without reading the
/// answers, then keeps the connection until the value is dropped.
pub struct Flood {
    stream: TcpStream,
    /// Requests that went out before the other side closed or stopped reading.
    pub sent: u64,
}

impl Flood {
    /// Connects and floods.
    pub fn start(node: &Node, to: SocketAddr, hash: [u8; 20], count: u64) -> io::Result<Self> {
        let mut stream = node.connect(to)?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&handshake(hash, b"-HO0002-flooooooooor"))?;
        stream.read_exact(&mut [0; 68])?;
        stream.write_all(&message(2, &[]))?;
        let batch: Vec<u8> = request(0, 0, BLOCK_BYTES).repeat(64);
        let mut sent = 0;
        while sent < count && stream.write_all(&batch).is_ok() {
            sent += 64;
        }
        Ok(Self { stream, sent })
    }

    /// Whether the other side has closed the connection (reads what is left of its answers).
    pub fn closed(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// What a web server answers: the bytes after the request, status line included, or `None` to go on
/// and serve the file.
pub type Tamper = dyn Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync;

/// A web server for a folder that can be told to lie, and that counts.
pub struct WebServer {
    /// Its base URL, ending with `/`.
    pub url: String,
    log: Arc<Mutex<BTreeMap<String, (u64, u64)>>>,
    stop: Arc<AtomicBool>,
}

impl WebServer {
    /// Serves `root` on a host of the lab; `tamper` sees the path (without the leading `/`) and the
    /// file's bytes (empty when there is no such file) and may answer in its place.
    pub fn start(
        node: &Node,
        port: u16,
        root: &Path,
        tamper: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::on(node.listen(port), root, tamper)
    }

    /// [`WebServer::start`] on a socket that listens already.
    ///
    /// # Panics
    /// When it does not.
    pub fn on(
        listener: TcpListener,
        root: &Path,
        tamper: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}/", listener.local_addr().expect("it listens"));
        let (log, stop) = <(Arc<Mutex<BTreeMap<String, (u64, u64)>>>, Arc<AtomicBool>)>::default();
        let root = root.to_owned();
        let tamper: Arc<Tamper> = Arc::new(tamper);
        let counted = Arc::clone(&log);
        serve(listener, Arc::clone(&stop), move |stream| {
            let _ = answer_requests(stream, &root, &*tamper, &counted);
        });
        Self { url, log, stop }
    }

    /// Requests whose path begins with `prefix`, and the body bytes sent for them.
    pub fn count(&self, prefix: &str) -> (u64, u64) {
        let log = self.log.lock().expect("no handler panics while it holds the log");
        let hits = log.iter().filter(|(path, _)| path.starts_with(prefix));
        hits.fold((0, 0), |sum, (_, count)| (sum.0 + count.0, sum.1 + count.1))
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A whole answer with status, body and its length.
pub fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn answer_requests(
    mut stream: TcpStream,
    root: &Path,
    tamper: &Tamper,
    log: &Mutex<BTreeMap<String, (u64, u64)>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PEER_WAIT))?;
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") else {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            pending.extend_from_slice(&buffer[..count]);
            continue;
        };
        let head = String::from_utf8_lossy(&pending[..end]).into_owned();
        pending.drain(..end + 4);
        let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
        let path = path.split('?').next().unwrap_or_default().to_owned();
        let file: PathBuf = root.join(&path);
        let bytes =
            if path.contains("..") { Vec::new() } else { fs::read(&file).unwrap_or_default() };
        let range = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned)
        });
        let reply = if let Some(reply) = tamper(&path, &bytes) {
            reply
        } else if !file.is_file() {
            answer("404 Not Found", b"")
        } else if let Some((from, to)) =
            range.as_deref().and_then(|range| parse_range(range, bytes.len()))
        {
            let status = format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
                to - 1,
                bytes.len()
            );
            answer(&status, &bytes[from..to])
        } else {
            answer("200 OK", &bytes)
        };
        {
            let mut log = log.lock().expect("no handler panics while it holds the log");
            let count = log.entry(path).or_default();
            count.0 += 1;
            count.1 += reply.len() as u64;
        }
        stream.write_all(&reply)?;
        // An answer without a length ends with the connection.
        if !reply.windows(15).any(|window| window.eq_ignore_ascii_case(b"content-length:")) {
            return Ok(());
        }
    }
}

fn parse_range(range: &str, len: usize) -> Option<(usize, usize)> {
    let (from, to) = range.trim().split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { len } else { to.parse::<usize>().ok()?.saturating_add(1).min(len) };
    (from < to).then_some((from, to))
}

/// The 20 bytes of a hash in hex (longer ones are cut).
///
/// # Panics
/// When it is shorter or no hex.
pub fn hash_bytes(hex: &str) -> [u8; 20] {
    let mut hash = [0; 20];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hex digits");
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_bep_3_has_them() {
        assert_eq!(request(1, 2, 3), [0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(full_bitfield(9), [0, 0, 0, 3, 5, 0xff, 0x80]);
        assert_eq!(full_bitfield(8), [0, 0, 0, 2, 5, 0xff]);
        assert_eq!(handshake([7; 20], &[8; 20]).len(), 68);
        let (id, payload) = read_message(&mut &message(4, &[1, 2])[..]).unwrap();
        assert_eq!((id, payload), (Some(4), vec![1, 2]));
    }
}
