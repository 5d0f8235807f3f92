//! A world of shipping engines under virtual time.
//!
//! Hosts run the real [`Swarm`] behind links with a rate and a delay, a disk, a tracker and an origin
//! that are models. Nothing waits for a clock, and every choice comes from one seed, so a run is a
//! function of its seed: a crowd of a thousand takes seconds, and a failure can be looked at again.
//!
//! What the model keeps of a network: an uplink is shared fairly among connections, in turn, a block
//! at a time; a downlink is a queue; a connection keeps its order; loss costs a round trip; messages
//! wait behind the blocks queued before them. What it leaves out: slow start, and the headers of TCP
//! and IP (rates are what TCP leaves for payload). Those are for the benchmarks with real sockets.

mod crowd;
mod faults;
mod flow_level;
mod host;
mod net;
mod report;

pub use crowd::Crowd;
pub use faults::{FAULTS, Fault, Finish, Loss};
pub use flow_level::FlowLevel;
pub use host::{Behaviour, Host};
pub use report::{Bound, Quantiles, Report};

use crate::bitfield::Bitfield;
use crate::geometry::{Block, FileSpan, Geometry, Span};
use crate::ids::{PeerId, PeerKey, PieceIndex};
use crate::policy::limiter::Limiter;
use crate::policy::picker::Priority;
use crate::policy::transport::{Preference, Transport};
use crate::swarm::{Config, Event, FetchEnd, Input, Output, Stats, Swarm, UploadPolicy};
use crate::wire::handshake::Abilities;
use crate::wire::message::Message;
use bytes::Bytes;
use net::{Cargo, Net};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Peers in one answer of the tracker.
const TRACKER_PEERS: usize = 50;
/// A host asks the tracker again after this time while it has few peers…
const ANNOUNCE_SOON: Duration = Duration::from_secs(15);
/// …and after this otherwise.
const ANNOUNCE: Duration = Duration::from_secs(120);
/// Connections below which a host asks soon.
const FEW_PEERS: usize = 20;
/// Time until dialling somebody who does not answer fails.
const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// Time until an answer of the origin that has gone silent is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Inputs at one instant after which an engine is taken to spin.
const SPIN: u32 = 1_000_000;
/// The first byte of a block from a liar.
const LIE: u8 = 1;
static TRUTH: [u8; 16 * 1024] = [0; 16 * 1024];
static LIES: [u8; 16 * 1024] = [LIE; 16 * 1024];

#[derive(Debug)]
enum Happening {
    /// A host appears.
    Start { host: usize },
    /// A host asks the tracker.
    Announce { host: usize },
    /// A dialled connection stands, or does not.
    Dialled { from: usize, to: usize },
    /// An uplink has sent what it was sending.
    Departed { host: usize },
    /// Something has come to the near end of a downlink.
    Reached { flow: usize, cargo: Cargo },
    /// Something has come.
    Arrived { flow: usize, cargo: Cargo },
    /// A piece is on disk and hashed.
    Stored { host: usize, piece: PieceIndex, right: bool },
    /// A peer that chokes at random unchokes again.
    Relent { host: usize, peer: PeerKey },
    /// The origin does not answer any more.
    Refused { host: usize, fetch: PeerKey },
    /// An engine asked to be woken.
    Wake { host: usize },
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    serial: u64,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: the heap gives it first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// A host and what became of it.
#[derive(Debug)]
pub struct Node {
    /// What it was made from.
    pub host: Host,
    /// Its engine; `None` before it appears and after it has left.
    pub swarm: Option<Swarm>,
    /// Its limits.
    pub limiter: Limiter,
    /// When it had everything it wants.
    pub complete_at: Option<Duration>,
    /// When it had 99 of 100 pieces.
    pub nearly_at: Option<Duration>,
    /// So many HTTP answers to it break off in the middle…
    pub http_breaks: u32,
    /// …and ask to be left alone so long.
    pub http_rest: Option<Duration>,
    /// Counters at the end, of a host that left.
    pub last_stats: Stats,
    peers: BTreeMap<PeerKey, usize>,
    next_key: u32,
    written: BTreeMap<PieceIndex, (u32, bool)>,
    wake: Option<Duration>,
    rng: fastrand::Rng,
}

impl Node {
    /// Counters, of a host that is there or was.
    pub fn stats(&self) -> Stats {
        self.swarm.as_ref().map_or(self.last_stats, Swarm::stats)
    }
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// The time since the beginning.
    pub now: Duration,
    /// The hosts, by the order they were added.
    pub nodes: Vec<Node>,
    /// The torrent.
    pub geometry: Arc<Geometry>,
    /// Who was thrown out, by whom.
    pub banned: Vec<(usize, SocketAddr)>,
    /// Payload that the hosts which began with everything had sent when every piece had reached
    /// somebody else, in bytes.
    pub first_copy: Option<u64>,
    /// Payload that left all hosts, in bytes, by second.
    pub sent: Vec<u64>,
    /// Time that uplinks of hosts which began with everything stood idle before that.
    pub seed_idle: Duration,
    net: Net,
    queue: BinaryHeap<Entry>,
    serial: u64,
    copies_out: Bitfield,
    tracked: Vec<usize>,
    tracker_until: Option<Duration>,
    origin_until: Option<Duration>,
    rng: fastrand::Rng,
    trace: DefaultHasher,
}

/// The address of a host.
pub fn addr(host: usize) -> SocketAddr {
    let number = u32::try_from(host).expect("hosts are counted in u32");
    // 198.18.0.0/15 is set aside for benchmarks (RFC 2544).
    SocketAddr::from((std::net::Ipv4Addr::from_bits(0xc612_0000 + number), 6881))
}

fn host_of(addr: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(addr) = addr else { return None };
    usize::try_from(addr.ip().to_bits().checked_sub(0xc612_0000)?).ok()
}

impl World {
    /// An empty world around a torrent of one file.
    pub fn new(seed: u64, pieces: u32, piece_length: u32) -> Self {
        let total = u64::from(pieces) * u64::from(piece_length);
        let files = vec![FileSpan { offset: 0, length: total }];
        let geometry = Geometry::new(piece_length, total, files).expect("one file is a torrent");
        Self {
            now: Duration::ZERO,
            nodes: Vec::new(),
            copies_out: Bitfield::empty(pieces),
            geometry: Arc::new(geometry),
            banned: Vec::new(),
            first_copy: None,
            sent: Vec::new(),
            seed_idle: Duration::ZERO,
            net: Net::default(),
            queue: BinaryHeap::new(),
            serial: 0,
            tracked: Vec::new(),
            tracker_until: None,
            origin_until: None,
            rng: fastrand::Rng::with_seed(seed),
            trace: DefaultHasher::new(),
        }
    }

    /// Adds a host; it appears when it is due.
    pub fn add(&mut self, host: Host) -> usize {
        let at = self.nodes.len();
        self.net.add_host(host.up, host.down, host.delay, host.loss);
        let start = host.start;
        self.nodes.push(Node {
            limiter: Limiter::new(host.limit_up, host.limit_down),
            host,
            swarm: None,
            complete_at: None,
            nearly_at: None,
            http_breaks: 0,
            http_rest: None,
            last_stats: Stats::default(),
            peers: BTreeMap::new(),
            next_key: 0,
            written: BTreeMap::new(),
            wake: None,
            rng: fastrand::Rng::with_seed(self.rng.u64(..)),
        });
        if start > self.now {
            self.later(start, Happening::Start { host: at });
        } else {
            self.start(at);
        }
        at
    }

    /// From `until`, a time since the beginning, on the tracker is dead.
    pub fn kill_tracker(&mut self, until: Duration) {
        self.tracker_until = Some(until);
    }

    /// From now on the origin is dead: what it was sending breaks off, and nobody is answered.
    pub fn kill_origin(&mut self) {
        self.origin_until = Some(self.now);
        for flow in self.net.fetches() {
            let (host, fetch) = (self.net.flow(flow).to, self.net.flow(flow).far);
            self.net.close(flow);
            self.later(self.now + STALL_TIMEOUT, Happening::Refused { host, fetch });
        }
    }

    /// The rate of the origin that serves HTTP, shared by all who ask, in bytes per second.
    pub fn set_origin(&mut self, rate: u64, delay: Duration) {
        self.net.set_origin(rate, delay);
    }

    /// Connects two hosts that are there, without dialling.
    pub fn connect(&mut self, from: usize, to: usize) {
        let (out, back) = (self.key(from), self.key(to));
        let flow = self.net.open(from, out, to, back);
        self.nodes[from].peers.insert(out, flow);
        self.nodes[to].peers.insert(back, flow + 1);
        for (host, peer, other, outgoing) in [(from, out, to, true), (to, back, from, false)] {
            let abilities = Abilities { extensions: true, fast: true, v2: true, dht: false };
            let (id, lan) = (peer_id(other, self.nodes[other].host.foreign), false);
            self.input(
                host,
                Input::Connected {
                    peer,
                    addr: addr(other),
                    outgoing,
                    id,
                    abilities,
                    lan,
                    transport: Transport::Tcp,
                },
            );
        }
    }

    /// Connects everybody who is there with everybody.
    pub fn connect_all(&mut self) {
        for from in 0..self.nodes.len() {
            (from + 1..self.nodes.len()).for_each(|to| self.connect(from, to));
        }
    }

    /// A host goes, and its connections with it.
    pub fn leave(&mut self, host: usize) {
        let Some(swarm) = self.nodes[host].swarm.take() else { return };
        self.nodes[host].last_stats = swarm.stats();
        self.tracked.retain(|&tracked| tracked != host);
        for flow in std::mem::take(&mut self.nodes[host].peers).into_values() {
            self.drop_flow(flow);
        }
    }

    /// From now on nothing leaves the host, and nobody is told.
    pub fn silence(&mut self, host: usize) {
        self.net.silence(host);
    }

    /// Gives an engine an input.
    pub fn input(&mut self, host: usize, input: Input) {
        let node = &mut self.nodes[host];
        let Some(swarm) = node.swarm.as_mut() else { return };
        swarm.handle(self.now, &mut node.limiter, input);
        self.drain(host);
        let node = &mut self.nodes[host];
        let Some(swarm) = node.swarm.as_ref() else { return };
        let wake = swarm.poll_timeout(&node.limiter).map(|wake| wake.max(self.now));
        if let Some(wake) = wake.filter(|&wake| node.wake.is_none_or(|planned| wake < planned)) {
            node.wake = Some(wake);
            self.later(wake, Happening::Wake { host });
        }
    }

    /// Runs until `done`, at most until `limit`. True if done.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let mut at_once = 0;
        while !done(self) {
            if self.queue.peek().is_none_or(|entry| entry.at > limit) {
                self.now = self.now.max(limit);
                return false;
            }
            let Entry { at, happening, .. } = self.queue.pop().expect("peeked in the line before");
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < SPIN, "an engine spins at {at:?}");
            self.now = at;
            self.happen(happening);
        }
        true
    }

    /// Runs until all of `hosts` have everything, or until `limit`. When the last one had it.
    ///
    /// # Panics
    /// If `limit` comes first.
    pub fn run(&mut self, hosts: &[usize], limit: Duration) -> Duration {
        let left = std::cell::Cell::new(0);
        let done = self.run_until(limit, |world| {
            // Whoever was last seen unfinished is looked at first.
            let unfinished = |&host: &usize| world.nodes[host].complete_at.is_none();
            if hosts.get(left.get()).is_some_and(unfinished) {
                return false;
            }
            let next = hosts.iter().position(unfinished);
            left.set(next.unwrap_or_default());
            next.is_none()
        });
        assert!(
            done,
            "after {:?}: {:?}",
            self.now,
            hosts
                .iter()
                .filter(|&&host| self.nodes[host].complete_at.is_none())
                .map(|&host| (host, self.nodes[host].stats()))
                .collect::<Vec<_>>()
        );
        hosts.iter().filter_map(|&host| self.nodes[host].complete_at).max().unwrap_or_default()
    }

    /// A digest of everything that happened: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Bytes of the torrent.
    pub fn size(&self) -> u64 {
        self.geometry.content_len()
    }

    fn key(&mut self, host: usize) -> PeerKey {
        let node = &mut self.nodes[host];
        node.next_key += 1;
        PeerKey(node.next_key)
    }

    fn later(&mut self, at: Duration, happening: Happening) {
        self.serial += 1;
        self.queue.push(Entry { at, serial: self.serial, happening });
    }

    fn start(&mut self, at: usize) {
        let count = self.geometry.piece_count();
        let node = &mut self.nodes[at];
        let config = Config {
            peer_id: peer_id(at, node.host.foreign),
            client: "simulated".into(),
            listen_port: (!node.host.nat).then_some(6881),
            quic_port: None,
            transport: Preference::Tcp,
            connections_max: node.host.connections,
            upload: UploadPolicy::Everyone,
            documents: false,
            private: false,
            spread: node.host.spread,
            info: None,
            sources: node.host.sources,
            packs: Vec::new(),
            link: None,
            supplied: false,
            parcels: false,
            seed: node.rng.u64(..),
        };
        let have = match &node.host.have {
            Some(have) => have.clone(),
            None if node.host.seed => Bitfield::full(count),
            None => Bitfield::empty(count),
        };
        let priorities = node.host.priorities.clone();
        let priorities = priorities.unwrap_or_else(|| vec![Priority::NORMAL; count as usize]);
        node.swarm = Some(Swarm::new(config, Arc::clone(&self.geometry), &have, priorities));
        if node.host.tracked {
            self.later(self.now, Happening::Announce { host: at });
        }
        self.input(at, Input::Timeout);
    }

    fn announce(&mut self, host: usize) {
        let Some(swarm) = self.nodes[host].swarm.as_ref() else { return };
        let few = swarm.stats().peers < FEW_PEERS;
        let again = if few && !swarm.is_complete() { ANNOUNCE_SOON } else { ANNOUNCE };
        self.later(self.now + again, Happening::Announce { host });
        if self.tracker_until.is_some_and(|until| until <= self.now) {
            return;
        }
        let complete = self.nodes[host].swarm.as_ref().is_some_and(Swarm::is_complete);
        let wanted = |&&other: &&usize| {
            other != host && !(complete && self.nodes[other].complete_at.is_some())
        };
        let others: Vec<usize> = self.tracked.iter().filter(wanted).copied().collect();
        let chosen = self.rng.choose_multiple(others, TRACKER_PEERS);
        if !self.tracked.contains(&host) {
            self.tracked.push(host);
        }
        let is_seed =
            |&&host: &&usize| self.nodes[host].swarm.as_ref().is_some_and(Swarm::is_complete);
        let seeders = self.tracked.iter().filter(is_seed).count();
        let count = |hosts: usize| u32::try_from(hosts).expect("hosts are counted in u32");
        let leechers = count(self.tracked.len() - seeders);
        self.input(host, Input::SwarmSize { seeders: count(seeders), leechers });
        self.input(host, Input::Peers(chosen.into_iter().map(addr).collect()));
        self.input(host, Input::TrackersAsked);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start { host } => self.start(host),
            Happening::Announce { host } => self.announce(host),
            Happening::Dialled { from, to } => self.dialled(from, to),
            Happening::Departed { host } => self.departed(host),
            Happening::Reached { flow, cargo } => {
                let at = self.net.through_downlink(self.now, flow, cargo.len);
                self.later(at, Happening::Arrived { flow, cargo });
            }
            Happening::Arrived { flow, cargo } => self.arrived(flow, cargo),
            Happening::Stored { host, piece, right } => self.stored(host, piece, right),
            Happening::Relent { host, peer } => {
                if let Some(&flow) = self.nodes[host].peers.get(&peer) {
                    self.enqueue(host, flow, Message::Unchoke);
                }
            }
            Happening::Refused { host, fetch } => {
                self.nodes[host].peers.remove(&fetch);
                let end = FetchEnd::Failed { retry_after: None };
                self.input(host, Input::FetchEnded { fetch, end });
            }
            Happening::Wake { host } => {
                self.nodes[host].wake = None;
                self.input(host, Input::Timeout);
            }
        }
    }

    fn dialled(&mut self, from: usize, to: usize) {
        let lan = false;
        let there = |world: &Self| {
            world.nodes.get(to).is_some_and(|node| {
                let accepts = |swarm: &Swarm| !swarm.refuses(world.now, addr(from), lan, None);
                node.swarm.as_ref().is_some_and(accepts) && !node.host.nat
            }) && !world.net.is_silent(to)
        };
        if self.nodes[from].swarm.is_none() {
            return;
        }
        if there(self) {
            self.connect(from, to);
        } else {
            self.input(from, Input::DialFailed { addr: addr(to) });
        }
    }

    /// Puts a message into a flow.
    fn enqueue(&mut self, host: usize, flow: usize, message: Message) {
        self.net.enqueue(flow, message);
        self.transmit(host);
    }

    /// Sends the next thing, if the uplink is free.
    fn transmit(&mut self, host: usize) {
        if let Some(at) = self.net.begin(self.now, host) {
            self.later(at, Happening::Departed { host });
        }
    }

    fn departed(&mut self, host: usize) {
        let Some((flow, cargo)) = self.net.departed(self.now, host) else { return };
        let sent = cargo.payload;
        let second = usize::try_from(self.now.as_secs()).unwrap_or(usize::MAX);
        if self.sent.len() <= second {
            self.sent.resize(second + 1, 0);
        }
        self.sent[second] += u64::from(sent);
        let peer = self.net.flow(flow).near;
        if let Some(at) = self.net.reaches(self.now, flow, &mut self.rng) {
            let happening = if self.net.has_downlink(flow) {
                Happening::Reached { flow, cargo }
            } else {
                Happening::Arrived { flow, cargo }
            };
            self.later(at, happening);
        }
        if sent > 0 && !self.net.is_origin(host) {
            self.input(host, Input::Sent { peer, bytes: sent });
        }
        self.transmit(host);
        self.note_idle(host);
    }

    /// A seed's uplink that has nothing to send while somebody lacks something is counted.
    fn note_idle(&mut self, host: usize) {
        let idle_since = self.net.idle_since(host);
        if self.net.is_origin(host) || !self.nodes[host].host.seed {
            return;
        }
        if let Some(since) = idle_since
            && self.first_copy.is_none()
        {
            self.seed_idle += self.now.saturating_sub(since);
        }
    }

    fn arrived(&mut self, flow: usize, cargo: Cargo) {
        self.net.landed(flow);
        let (host, peer) = (self.net.flow(flow).to, self.net.flow(flow).far);
        if let Some((fetch, complete)) = self.net.flow(flow).fetch {
            for message in cargo.messages {
                let Message::Piece { piece, offset, data } = message else { continue };
                let len = u32::try_from(data.len()).expect("a block is short");
                let block = Block { piece, offset, len };
                self.input(host, Input::Fetched { fetch, block, data });
            }
            if self.net.is_drained(flow) {
                self.net.close(flow);
                self.nodes[host].peers.remove(&fetch);
                let retry_after = self.nodes[host].http_rest;
                let end =
                    if complete { FetchEnd::Complete } else { FetchEnd::Failed { retry_after } };
                self.input(host, Input::FetchEnded { fetch, end });
            }
            return;
        }
        for message in cargo.messages {
            if !self.net.is_open(flow) {
                return;
            }
            self.input(host, Input::Received { peer, message });
        }
    }

    fn stored(&mut self, host: usize, piece: PieceIndex, right: bool) {
        self.input(host, Input::Stored { piece, right });
        let count = self.geometry.piece_count();
        let node = &mut self.nodes[host];
        let Some(swarm) = node.swarm.as_ref().filter(|_| right) else { return };
        if node.nearly_at.is_none() && swarm.have().count() >= count - count / 100 {
            node.nearly_at = Some(self.now);
        }
        if !node.host.seed && self.copies_out.insert(piece) && self.copies_out.is_full() {
            let seeds = self.nodes.iter().filter(|node| node.host.seed);
            self.first_copy = Some(seeds.map(|node| node.stats().up).sum());
        }
        if self.nodes[host].complete_at.is_some() && self.nodes[host].host.leaves {
            self.leave(host);
        }
    }

    /// Tells the other end that a connection is gone.
    fn drop_flow(&mut self, flow: usize) {
        let (other, far) = (self.net.flow(flow).to, self.net.flow(flow).far);
        self.net.close(flow);
        self.net.close(flow ^ 1);
        if self.nodes[other].peers.remove(&far).is_some() {
            self.input(other, Input::Closed { peer: far });
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.nodes[host].swarm.as_mut().and_then(Swarm::poll) {
            match output {
                Output::Send { peer, message } => {
                    let message = self.spoken(host, message);
                    if let Some(&flow) = self.nodes[host].peers.get(&peer) {
                        self.enqueue(host, flow, message);
                    }
                }
                Output::Read { peer, blocks } => self.read(host, peer, blocks),
                Output::Write { block, data } => {
                    let blocks = self.geometry.block_count(block.piece);
                    let node = &mut self.nodes[host];
                    let (count, tainted) = node.written.entry(block.piece).or_default();
                    *count += 1;
                    *tainted |= data[0] == LIE;
                    if *count == blocks {
                        let right = !*tainted;
                        node.written.remove(&block.piece);
                        let at = self.now + node.host.disk;
                        self.later(at, Happening::Stored { host, piece: block.piece, right });
                    }
                }
                Output::Upgrade { .. } => {} // Its links are what they are, whatever runs over them.
                Output::Dial { addr, .. } => {
                    let Some(to) = host_of(addr) else { continue };
                    let reachable = self.nodes.get(to).is_some_and(|node| !node.host.nat);
                    let wait = if reachable {
                        3 * self.net.delay(host, to) // SYN, SYN-ACK and the handshake.
                    } else {
                        DIAL_TIMEOUT
                    };
                    self.later(self.now + wait, Happening::Dialled { from: host, to });
                }
                Output::Close { peer } => {
                    if let Some(flow) = self.nodes[host].peers.remove(&peer) {
                        self.drop_flow(flow);
                    }
                }
                Output::Fetch { fetch, source, span, .. } => self.fetch(host, fetch, source, span),
                Output::FetchCancel { fetch } => {
                    if let Some(flow) = self.nodes[host].peers.remove(&fetch) {
                        self.net.close(flow);
                    }
                }
                Output::Event(event) => {
                    (self.now, host, format!("{event:?}")).hash(&mut self.trace);
                    match event {
                        Event::Complete => self.nodes[host].complete_at = Some(self.now),
                        Event::PeerBanned { addr, .. } => self.banned.push((host, addr)),
                        Event::PieceVerified(_)
                        | Event::PieceWrong(_)
                        | Event::PieceLost(_)
                        | Event::FirstComplete
                        | Event::Described => {}
                    }
                }
            }
        }
    }

    /// An answer of the origin.
    fn fetch(&mut self, host: usize, fetch: PeerKey, source: usize, span: Span) {
        let node = &mut self.nodes[host];
        let complete = node.http_breaks == 0;
        node.http_breaks = node.http_breaks.saturating_sub(1);
        if self.origin_until.is_some_and(|until| until <= self.now) {
            let at = self.now + Duration::from_millis(20);
            return self.later(at, Happening::Refused { host, fetch });
        }
        let bytes = if node.host.lying_source == Some(source) { &LIES } else { &TRUTH };
        let flow = self.net.open_fetch(host, fetch, complete);
        node.peers.insert(fetch, flow);
        let mut blocks: Vec<Block> = self.geometry.blocks_of(span).collect();
        if !complete {
            blocks.truncate(blocks.len() / 2 + 1);
        }
        for Block { piece, offset, len } in blocks {
            let data = Bytes::from_static(&bytes[..len as usize]);
            self.net.enqueue(flow, Message::Piece { piece, offset, data });
        }
        self.transmit(self.net.flow(flow).from);
    }

    /// What a host says when its engine wants something said.
    fn spoken(&self, host: usize, message: Message) -> Message {
        let boasts = self.nodes[host].host.behaviour == Behaviour::Boaster;
        match message {
            Message::HaveNone | Message::Bitfield(_) if boasts => Message::HaveAll,
            message => message,
        }
    }

    /// What a host sends when its engine wants blocks sent.
    fn read(&mut self, host: usize, peer: PeerKey, blocks: Vec<Block>) {
        let Some(&flow) = self.nodes[host].peers.get(&peer) else { return };
        let node = &mut self.nodes[host];
        let bytes = match node.host.behaviour {
            Behaviour::Honest | Behaviour::Boaster => &TRUTH,
            Behaviour::Liar => &LIES,
            Behaviour::Hoarder => return,
            Behaviour::Fickle => {
                if node.rng.u8(..) < 64 {
                    let wait = Duration::from_secs(2);
                    self.input(host, Input::Unsent { peer, blocks });
                    self.enqueue(host, flow, Message::Choke);
                    return self.later(self.now + wait, Happening::Relent { host, peer });
                }
                &TRUTH
            }
        };
        for block in blocks {
            let data = Bytes::from_static(&bytes[..block.len as usize]);
            let message = Message::Piece { piece: block.piece, offset: block.offset, data };
            self.net.enqueue(flow, message);
        }
        self.transmit(host);
    }
}

fn peer_id(host: usize, foreign: bool) -> PeerId {
    let mut name = [0; 12];
    name[..8].copy_from_slice(&host.to_be_bytes());
    let mut id = PeerId::ours(name);
    if foreign {
        id.0[..8].copy_from_slice(b"-XX0100-");
    }
    id
}
