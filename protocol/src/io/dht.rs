//! Peers of public torrents from the distributed hash table (BEP 5, by `mainline`), and ourselves for others to
//! find.
//!
//! The node is there once a torrent wants it, not before: until then nobody is told of this machine. It knows
//! IPv4 alone, and has a UDP port of its own, which peers are told (message 9). What is heard there is anybody's
//! word: addresses of local networks are passed over, and the dialler bounds the rest.

use super::engine::Note;
use crate::ids::InfoHash;
use crate::policy::locality::is_lan;
use futures_util::StreamExt;
use mainline::async_dht::AsyncDht;
use mainline::errors::PutQueryError;
use mainline::{DEFAULT_BOOTSTRAP_NODES, Dht as Node, Id, ServerSettings};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// How often a torrent is looked up and announced: nodes forget an announcement after half an hour.
const INTERVAL: Duration = Duration::from_secs(15 * 60);
/// How soon again while nobody is found, at first; the wait doubles from there.
const INTERVAL_ALONE: Duration = Duration::from_secs(5);
/// Look-ups at once.
const LOOKUPS_MAX: usize = 4;
/// Addresses taken of one look-up.
const ADDRESSES_MAX: usize = 200;
/// Nodes that peers told of, kept for when none of the network's own entries answers.
const HEARD_MAX: usize = 8;
/// What the node keeps for others: names of torrents, peers of each, and other values (BEP 44), which nobody
/// here asks for. 2 MiB at most.
const HASHES_MAX: usize = 500;
const PEERS_MAX: usize = 100;
const VALUES_MAX: usize = 16;

/// The part of a session that is in the DHT. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Dht {
    torrents: watch::Sender<Vec<InfoHash>>,
    heard: mpsc::Sender<SocketAddrV4>,
    /// The node's UDP port, once it is there.
    port: Option<u16>,
    task: AbortHandle,
}

impl Dht {
    /// Makes ready for a node that enters the network by `bootstrap` (`host:port`; empty for the well-known
    /// ones) and announces the listening port. `None` where nobody beyond this machine could answer. Must be
    /// called in a tokio runtime.
    pub(super) fn start(
        bootstrap: Vec<String>,
        listen: &[SocketAddr],
        note: mpsc::Sender<Note>,
    ) -> Option<Self> {
        let own = place(listen)?;
        let (torrents, wanted) = watch::channel(Vec::new());
        let (heard, told) = mpsc::channel(HEARD_MAX);
        let work = Work { bootstrap, own, note, nodes: VecDeque::new() };
        let task = tokio::spawn(work.run(wanted, told)).abort_handle();
        Some(Self { torrents, heard, port: None, task })
    }

    /// The torrents to find peers of from now on; none of them private (BEP 27).
    pub(super) fn set_torrents(&self, torrents: Vec<InfoHash>) {
        self.torrents.send_if_modified(|old| {
            let changed = *old != torrents;
            *old = torrents;
            changed
        });
    }

    /// Where peers reach the node.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// The node is there.
    pub(super) fn set_port(&mut self, port: u16) {
        self.port = Some(port);
    }

    /// A peer says that it has a node at this port.
    pub(super) fn hear(&self, addr: SocketAddr, port: u16) {
        if let IpAddr::V4(ip) = addr.ip().to_canonical()
            && port != 0
        {
            // One more or less does not matter.
            let _ = self.heard.try_send(SocketAddrV4::new(ip, port));
        }
    }
}

impl Drop for Dht {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The address that is announced, if there is one that others reach.
pub(super) fn place(listen: &[SocketAddr]) -> Option<SocketAddrV4> {
    listen.iter().find_map(|addr| match addr {
        SocketAddr::V4(addr) if !addr.ip().is_loopback() => Some(*addr),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    })
}

/// How a look-up ended.
enum Outcome {
    /// So many addresses were told.
    Found(usize),
    /// No node answered.
    Alone,
}

struct Work {
    bootstrap: Vec<String>,
    own: SocketAddrV4,
    note: mpsc::Sender<Note>,
    /// Nodes that peers told of.
    nodes: VecDeque<SocketAddrV4>,
}

/// A torrent's turns.
struct Turn {
    /// `None` while it is looked up.
    at: Option<Instant>,
    /// The wait after the next look-up that finds nobody.
    wait: Duration,
}

impl Work {
    async fn run(
        mut self,
        mut torrents: watch::Receiver<Vec<InfoHash>>,
        mut heard: mpsc::Receiver<SocketAddrV4>,
    ) {
        if torrents.wait_for(|torrents| !torrents.is_empty()).await.is_err() {
            return;
        }
        let Some(mut node) = self.open().await else { return };
        let mut opened = Instant::now();
        let room = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let (done, mut ended) = mpsc::channel(LOOKUPS_MAX);
        let mut turns: BTreeMap<InfoHash, Turn> = BTreeMap::new();
        loop {
            let now = Instant::now();
            {
                let wanted = torrents.borrow_and_update();
                turns.retain(|hash, _| wanted.contains(hash));
                for &hash in wanted.iter() {
                    let new = Turn { at: Some(now), wait: INTERVAL_ALONE };
                    turns.entry(hash).or_insert(new);
                }
            }
            for (&hash, turn) in &mut turns {
                if turn.at.is_none_or(|at| at > now) {
                    continue;
                }
                turn.at = None;
                let (node, note, port) = (node.clone(), self.note.clone(), self.own.port());
                let (room, done) = (Arc::clone(&room), done.clone());
                tokio::spawn(async move {
                    let permit = room.acquire_owned().await;
                    let outcome = look_up(&node, hash, port, &note).await;
                    drop(permit);
                    let _ = done.send((hash, outcome)).await;
                });
            }
            let next = turns.values().filter_map(|turn| turn.at).min();
            tokio::select! {
                changed = torrents.changed() => if changed.is_err() { return },
                Some(told) = heard.recv() => {
                    if !self.nodes.contains(&told) {
                        self.nodes.truncate(HEARD_MAX - 1);
                        self.nodes.push_front(told);
                    }
                }
                Some((hash, outcome)) = ended.recv() => {
                    if let Some(turn) = turns.get_mut(&hash) {
                        let wait = if let Outcome::Found(1..) = outcome { INTERVAL } else { turn.wait };
                        turn.wait = (turn.wait * 2).min(INTERVAL);
                        turn.at = Some(Instant::now() + wait);
                    }
                    // Perhaps the entries can be found by now; and peers' own nodes lead into the network as
                    // well as any others.
                    if matches!(outcome, Outcome::Alone) && opened.elapsed() >= INTERVAL_ALONE {
                        let Some(anew) = self.open().await else { return };
                        (node, opened) = (anew, Instant::now());
                    }
                }
                () = sleep_until(next.unwrap_or(now + INTERVAL)) => {}
            }
        }
    }

    /// Starts a node, and tells the engine its port.
    async fn open(&self) -> Option<AsyncDht> {
        let nodes = self.nodes.iter().map(SocketAddrV4::to_string).collect();
        let (bootstrap, ip) = (self.bootstrap.clone(), *self.own.ip());
        // Looking up names waits.
        let opened = tokio::task::spawn_blocking(move || open(&bootstrap, nodes, ip)).await;
        let node = match opened.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(node) => node,
            Err(error) => {
                tracing::warn!(%error, "no DHT");
                return None;
            }
        };
        let port = node.info().await.local_addr().port();
        tracing::debug!(port, "a node of the DHT");
        self.note.send(Note::DhtPort(port)).await.ok()?;
        Some(node)
    }
}

/// Starts a node that enters by `bootstrap`, or the well-known nodes, and by `nodes`.
fn open(bootstrap: &[String], nodes: Vec<String>, ip: Ipv4Addr) -> io::Result<AsyncDht> {
    let server = ServerSettings {
        max_info_hashes: HASHES_MAX,
        max_peers_per_info_hash: PEERS_MAX,
        max_immutable_values: VALUES_MAX,
        max_mutable_values: VALUES_MAX,
        ..ServerSettings::default()
    };
    let mut builder = Node::builder();
    // It answers from the start, as every client's does, or peers would be told of it in vain.
    builder.bind_address(ip).port(0).server_mode().server_settings(server);
    let known = match bootstrap {
        [] => DEFAULT_BOOTSTRAP_NODES.map(str::to_owned).to_vec(),
        given => given.to_vec(),
    };
    builder.bootstrap(&[known, nodes].concat());
    Ok(builder.build()?.as_async())
}

/// Looks a torrent up, and announces us to the nodes that were met.
async fn look_up(node: &AsyncDht, hash: InfoHash, port: u16, note: &mpsc::Sender<Note>) -> Outcome {
    let id = Id::from(hash.0);
    let mut found = 0;
    let mut answers = node.get_peers(id);
    while let Some(addrs) = answers.next().await {
        let addrs = addrs.into_iter().map(SocketAddr::V4);
        let addrs = addrs.filter(|addr| !is_lan(addr.ip())).take(ADDRESSES_MAX - found);
        let addrs: Vec<SocketAddr> = addrs.collect();
        found += addrs.len();
        if !addrs.is_empty() && note.send(Note::Heard { hash, addrs }).await.is_err() {
            return Outcome::Found(found);
        }
    }
    match node.announce_peer(id, Some(port)).await {
        Ok(_) => tracing::debug!(%hash, found, "announced in the DHT"),
        Err(error) => {
            tracing::debug!(%hash, found, %error, "no node of the DHT took the announcement");
            if matches!(error, PutQueryError::NoClosestNodes) && found == 0 {
                return Outcome::Alone;
            }
        }
    }
    Outcome::Found(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_where_nobody_comes_is_not_in_the_network() {
        let listen = |addrs: &[&str]| -> Vec<SocketAddr> {
            addrs.iter().map(|addr| addr.parse().unwrap()).collect()
        };
        assert_eq!(place(&listen(&["127.0.0.1:7", "[::]:7"])), None);
        let all = place(&listen(&["[::]:7", "0.0.0.0:8"])).unwrap();
        assert_eq!((all.ip().is_unspecified(), all.port()), (true, 8));
    }
}
