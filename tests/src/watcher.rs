//! Peers that only watch: one connection to each of some clients, over raw sockets, to learn which
//! pieces are out among them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::hostile::{handshake, read_message};
use crate::lab::Node;

const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const HAVE_ALL: u8 = 14;
/// How long a client may be silent; it sends keep-alives more often.
const SILENCE_MAX: Duration = Duration::from_secs(180);
/// Between two attempts to reach a client that does not listen yet.
const DIAL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Seen {
    pieces: Mutex<BTreeSet<u32>>,
    changed: Condvar,
}

/// Watches some clients of one torrent until it is dropped or they go.
pub struct Watcher {
    seen: Arc<Seen>,
    pieces: u32,
}

impl Watcher {
    /// Connects from `node` to every one of `clients`, as soon as it listens. `hash` is the 20-byte
    /// hash of the handshake, `pieces` their number.
    pub fn start(node: &Node, clients: &[SocketAddr], hash: [u8; 20], pieces: u32) -> Self {
        let seen = Arc::<Seen>::default();
        for (index, client) in clients.iter().copied().enumerate() {
            let (seen, node) = (Arc::clone(&seen), node.clone());
            let id = format!("-WA0001-{index:012}");
            thread::spawn(move || {
                let stream = loop {
                    match node.connect(client) {
                        Ok(stream) => break stream,
                        Err(_) => thread::sleep(DIAL_INTERVAL),
                    }
                };
                let id = id.into_bytes().try_into().expect("an id has twenty bytes");
                // Whatever goes wrong ends the watch; who waits for a piece will say so.
                let _ = watch(stream, hash, &id, pieces, &seen);
            });
        }
        Self { seen, pieces }
    }

    /// Waits until every piece is out at some client.
    ///
    /// # Panics
    /// When the time is over.
    pub fn wait_all(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut pieces = self.seen.pieces.lock().expect("no watcher panics");
        while pieces.len() < self.pieces as usize {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = pieces.len();
            assert!(!left.is_zero(), "{found} of {} pieces are out: {within:?}", self.pieces);
            pieces = self.seen.changed.wait_timeout(pieces, left).expect("no watcher panics").0;
        }
    }
}

fn watch(
    mut stream: TcpStream,
    hash: [u8; 20],
    id: &[u8; 20],
    pieces: u32,
    seen: &Seen,
) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(&handshake(hash, id))?;
    stream.read_exact(&mut [0; 68])?;
    loop {
        let (id, payload) = read_message(&mut stream)?;
        let mut known = seen.pieces.lock().expect("no watcher panics");
        match (id, payload.as_slice()) {
            (Some(HAVE), &[a, b, c, d]) => {
                known.insert(u32::from_be_bytes([a, b, c, d]));
            }
            (Some(HAVE_ALL), _) => known.extend(0..pieces),
            (Some(BITFIELD), bits) => {
                let set = |piece: &u32| bits[(piece / 8) as usize] & (0x80 >> (piece % 8)) != 0;
                let claimed = 0..pieces.min(u32::try_from(bits.len() * 8).unwrap_or(0));
                known.extend(claimed.filter(set));
            }
            _ => continue,
        }
        seen.changed.notify_all();
    }
}
