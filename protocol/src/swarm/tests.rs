//! A small world of real engines under virtual time: links with a rate and a delay, disks that
//! answer at once, liars, peers that fall silent, an HTTP source. Each run is a function of its seed.

use super::*;
use crate::geometry::FileSpan;
use crate::wire::message::Message;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

const PIECE: u32 = 64 * 1024;
const DELAY: Duration = Duration::from_millis(20);
/// The first byte of a block from a liar.
const LIE: u8 = 1;
static TRUTH: [u8; 16 * 1024] = [0; 16 * 1024];
static LIES: [u8; 16 * 1024] = [LIE; 16 * 1024];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrive { to: usize, link: PeerKey, message: usize },
    Sent { at: usize, link: PeerKey, bytes: u32 },
    Stored { at: usize, piece: u32, right: bool },
    Fetched { at: usize, fetch: PeerKey, piece: u32, index: u32 },
    FetchEnded { at: usize, fetch: PeerKey, complete: bool },
    Wake { at: usize },
}

struct Node {
    swarm: Swarm,
    limiter: Limiter,
    /// Bytes per second that leave this node.
    rate: u64,
    free_at: Duration,
    http_free_at: Duration,
    liar: bool,
    /// So many HTTP answers break off in the middle.
    http_breaks: u32,
    /// …and ask to be left alone so long.
    http_rest: Option<Duration>,
    /// From then on nothing leaves it.
    silent_from: Option<Duration>,
    written: BTreeMap<u32, (BTreeSet<u32>, bool)>,
    complete_at: Option<Duration>,
    wake: Option<Duration>,
}

struct World {
    now: Duration,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, PeerKey), (usize, PeerKey)>,
    queue: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    messages: Vec<Message>,
    serial: u64,
    geometry: Arc<Geometry>,
    banned: Vec<SocketAddr>,
    trace: Vec<(Duration, usize, String)>,
}

fn addr(node: usize) -> SocketAddr {
    let byte = u8::try_from(node).unwrap();
    SocketAddr::from(([198, 51, 100, byte], 6881))
}

impl World {
    fn new(pieces: u32) -> Self {
        let total = u64::from(pieces) * u64::from(PIECE);
        let files = vec![FileSpan { offset: 0, length: total }];
        Self {
            now: Duration::ZERO,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            queue: BinaryHeap::new(),
            messages: Vec::new(),
            serial: 0,
            geometry: Arc::new(Geometry::new(PIECE, total, files).unwrap()),
            banned: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn add(&mut self, seed: bool, rate: u64, sources: usize) -> usize {
        let (at, count) = (self.nodes.len(), self.geometry.piece_count());
        let config = Config {
            peer_id: PeerId::ours([u8::try_from(at).unwrap(); 12]),
            client: "test".into(),
            listen_port: Some(6881),
            connections_max: 50,
            upload: UploadPolicy::Everyone,
            documents: false,
            spread: seed,
            metadata: Bytes::new(),
            sources,
            seed: 77 + at as u64,
        };
        let have = if seed { Bitfield::full(count) } else { Bitfield::empty(count) };
        let swarm = Swarm::new(config, Arc::clone(&self.geometry), &have, Bitfield::full(count));
        self.nodes.push(Node {
            swarm,
            limiter: Limiter::new(None, None),
            rate,
            free_at: Duration::ZERO,
            http_free_at: Duration::ZERO,
            liar: false,
            http_breaks: 0,
            http_rest: None,
            silent_from: None,
            written: BTreeMap::new(),
            complete_at: None,
            wake: None,
        });
        self.input(at, Input::Timeout);
        at
    }

    fn connect(&mut self, a: usize, b: usize) {
        let (at_a, at_b) = (PeerKey(u32::try_from(b).unwrap()), PeerKey(u32::try_from(a).unwrap()));
        self.links.insert((a, at_a), (b, at_b));
        self.links.insert((b, at_b), (a, at_a));
        let abilities = Abilities { extensions: true, fast: true, v2: true };
        for (node, link, other, outgoing) in [(a, at_a, b, true), (b, at_b, a, false)] {
            let id = PeerId::ours([u8::try_from(other).unwrap(); 12]);
            let lan = false;
            self.input(
                node,
                Input::Connected { peer: link, addr: addr(other), outgoing, id, abilities, lan },
            );
        }
    }

    fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            (a + 1..self.nodes.len()).for_each(|b| self.connect(a, b));
        }
    }

    fn leave(&mut self, node: usize) {
        let links: Vec<_> =
            self.links.iter().filter(|((a, _), _)| *a == node).map(|(&a, &b)| (a, b)).collect();
        for (near, (other, far)) in links {
            self.links.remove(&near);
            self.links.remove(&(other, far));
            self.input(other, Input::Closed { peer: far });
        }
        self.nodes[node].silent_from = Some(self.now);
    }

    fn later(&mut self, at: Duration, happening: Happening) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, happening)));
    }

    fn input(&mut self, at: usize, input: Input) {
        let node = &mut self.nodes[at];
        node.swarm.handle(self.now, &mut node.limiter, input);
        self.drain(at);
        let node = &mut self.nodes[at];
        if let Some(wake) = node.swarm.poll_timeout(&node.limiter).map(|wake| wake.max(self.now))
            && node.wake.is_none_or(|planned| wake < planned)
        {
            node.wake = Some(wake);
            self.later(wake, Happening::Wake { at });
        }
    }

    fn deliver(&mut self, when: Duration, from: usize, link: PeerKey, message: Message) {
        let Some(&(to, far)) = self.links.get(&(from, link)) else { return };
        if self.nodes[from].silent_from.is_some_and(|silent| silent <= self.now) {
            return;
        }
        self.messages.push(message);
        let message = self.messages.len() - 1;
        self.later(when, Happening::Arrive { to, link: far, message });
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].swarm.poll() {
            match output {
                Output::Send { peer, message } => self.deliver(self.now + DELAY, at, peer, message),
                Output::Read { peer, blocks } => {
                    for block in blocks {
                        let node = &mut self.nodes[at];
                        let wire = u64::from(block.len) + 13;
                        node.free_at = node.free_at.max(self.now)
                            + Duration::from_micros(wire * 1_000_000 / node.rate);
                        let (left, source) = (node.free_at, if node.liar { &LIES } else { &TRUTH });
                        let data = Bytes::from_static(&source[..block.len as usize]);
                        self.later(left, Happening::Sent { at, link: peer, bytes: block.len });
                        let message =
                            Message::Piece { piece: block.piece, offset: block.offset, data };
                        self.deliver(left + DELAY, at, peer, message);
                    }
                }
                Output::Write { block, data } => {
                    let index = self.geometry.block_index(block).expect("only asked-for blocks");
                    let entry = self.nodes[at].written.entry(block.piece.0).or_default();
                    assert!(entry.0.insert(index), "a block is written once");
                    entry.1 |= data[0] == LIE;
                    if entry.0.len() == self.geometry.block_count(block.piece) as usize {
                        let (_, tainted) = self.nodes[at].written.remove(&block.piece.0).unwrap();
                        let happening =
                            Happening::Stored { at, piece: block.piece.0, right: !tainted };
                        self.later(self.now + Duration::from_millis(1), happening);
                    }
                }
                Output::Dial { .. } => {}
                Output::Close { peer } => {
                    if let Some((other, far)) = self.links.remove(&(at, peer)) {
                        self.links.remove(&(other, far));
                        self.input(other, Input::Closed { peer: far });
                    }
                }
                Output::Fetch { fetch, pieces, .. } => {
                    // 10 MB/s, in order.
                    let mut when = self.nodes[at].http_free_at.max(self.now + DELAY);
                    let node = &mut self.nodes[at];
                    let complete = node.http_breaks == 0;
                    node.http_breaks = node.http_breaks.saturating_sub(1);
                    let (start, count) = (pieces.start, pieces.len());
                    for piece in pieces {
                        for index in 0..self.geometry.block_count(PieceIndex(piece)) {
                            let half = (piece - start) as usize == count / 2 && index > 0;
                            if !complete && (half || (piece - start) as usize > count / 2) {
                                break;
                            }
                            when += Duration::from_micros(1638);
                            self.later(when, Happening::Fetched { at, fetch, piece, index });
                        }
                    }
                    self.nodes[at].http_free_at = when;
                    self.later(when, Happening::FetchEnded { at, fetch, complete });
                }
                Output::Event(event) => {
                    self.trace.push((self.now, at, format!("{event:?}")));
                    match event {
                        Event::Complete => self.nodes[at].complete_at = Some(self.now),
                        Event::PeerBanned { addr, .. } => self.banned.push(addr),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Runs until all of `nodes` are complete; panics when that takes more than `limit`.
    fn run(&mut self, nodes: &[usize], limit: Duration) -> Duration {
        self.run_until(limit, |world| {
            nodes.iter().all(|&node| world.nodes[node].complete_at.is_some())
        });
        assert!(
            nodes.iter().all(|&node| self.nodes[node].complete_at.is_some()),
            "after {:?}: {:?}",
            self.now,
            self.nodes
                .iter()
                .map(|node| (node.swarm.have().count(), node.swarm.stats()))
                .collect::<Vec<_>>()
        );
        nodes.iter().filter_map(|&node| self.nodes[node].complete_at).max().unwrap()
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let mut at_once = 0;
        while !done(self) {
            let Some(Reverse((at, _, happening))) = self.queue.pop() else { return };
            if at > limit {
                return;
            }
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < 100_000, "an engine spins at {at:?}");
            self.now = at;
            match happening {
                Happening::Arrive { to, link, message } => {
                    if self.links.contains_key(&(to, link)) {
                        let message = self.messages[message].clone();
                        self.input(to, Input::Received { peer: link, message });
                    }
                }
                Happening::Sent { at, link, bytes } => {
                    self.input(at, Input::Sent { peer: link, bytes });
                }
                Happening::Stored { at, piece, right } => {
                    self.input(at, Input::Stored { piece: PieceIndex(piece), right });
                }
                Happening::Fetched { at, fetch, piece, index } => {
                    let block = self.geometry.block(PieceIndex(piece), index);
                    let data = Bytes::from_static(&TRUTH[..block.len as usize]);
                    self.input(at, Input::Fetched { fetch, block, data });
                }
                Happening::FetchEnded { at, fetch, complete } => {
                    let retry_after = self.nodes[at].http_rest.filter(|_| !complete);
                    self.input(at, Input::FetchEnded { fetch, complete, retry_after });
                }
                Happening::Wake { at } => {
                    self.nodes[at].wake = None;
                    self.input(at, Input::Timeout);
                }
            }
        }
    }

    fn size(&self) -> u64 {
        self.geometry.content_len()
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `seconds` as a share of the time the fluid bound gives.
fn ratio(took: Duration, bytes: u64, rate: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let bound = bytes as f64 / rate as f64;
    took.as_secs_f64() / bound
}

#[test]
fn a_pair_fills_the_link() {
    let mut world = World::new(400);
    world.add(true, 2_000_000, 0);
    world.add(false, 2_000_000, 0);
    world.connect_all();
    let took = world.run(&[1], secs(100));
    assert!(ratio(took, world.size(), 2_000_000) < 1.06, "{took:?}");
    assert_eq!(world.nodes[1].swarm.stats().wasted, 0);
    assert_eq!(world.nodes[0].swarm.stats().up, world.size());
}

#[test]
fn a_crowd_shares_what_it_has_before_it_has_all() {
    let mut world = World::new(320);
    world.add(true, 2_500_000, 0);
    for _ in 0..16 {
        world.add(false, 1_250_000, 0);
    }
    world.connect_all();
    let leechers: Vec<usize> = (1..=16).collect();
    let took = world.run(&leechers, secs(600));
    // T_min is N F / (u_s + sum of u_i).
    let t = ratio(took, 16 * world.size(), 2_500_000 + 16 * 1_250_000);
    assert!(t < 1.5, "last done at {t} of the bound");
    let copies = world.nodes[0].swarm.stats().up / world.size();
    assert!(copies < 4, "the seed sent {copies} copies");
}

#[test]
fn the_origin_may_go_once_one_copy_is_out() {
    let mut world = World::new(160);
    world.add(true, 2_500_000, 0);
    for _ in 0..5 {
        world.add(false, 1_250_000, 0);
    }
    world.connect_all();
    let out = |world: &World| {
        world
            .geometry
            .pieces()
            .all(|piece| world.nodes[1..].iter().any(|node| node.swarm.have().has(piece)))
    };
    world.run_until(secs(100), out);
    assert!(out(&world) && world.nodes[1..].iter().all(|node| node.complete_at.is_none()));
    world.leave(0);
    world.run(&[1, 2, 3, 4, 5], secs(200));
}

#[test]
fn a_liar_is_thrown_out_and_harms_nobody() {
    let mut world = World::new(160);
    world.add(true, 1_000_000, 0);
    let liar = world.add(true, 1_000_000, 0);
    world.nodes[liar].liar = true;
    for _ in 0..3 {
        world.add(false, 1_000_000, 0);
    }
    world.connect_all();
    world.run(&[2, 3, 4], secs(200));
    assert!(world.banned.iter().all(|&banned| banned == addr(liar)), "{:?}", world.banned);
    assert_eq!(world.banned.len(), 3);
}

#[test]
fn a_peer_that_falls_silent_holds_nobody_up() {
    let mut world = World::new(160);
    world.add(true, 1_000_000, 0);
    world.add(true, 1_000_000, 0);
    world.add(false, 1_000_000, 0);
    world.connect_all();
    world.nodes[0].silent_from = Some(secs(2));
    let took = world.run(&[2], secs(100));
    // The rest at half the rate, and the endgame's patience.
    assert!(took < secs(20), "{took:?}");
}

#[test]
fn http_carries_it_when_nobody_is_there() {
    let mut world = World::new(160);
    world.add(false, 1_000_000, 1);
    let took = world.run(&[0], secs(100));
    assert!(took < secs(6), "{took:?}");
    assert_eq!(world.nodes[0].swarm.stats().down_http, world.size());
}

#[test]
fn http_is_left_alone_while_peers_deliver() {
    let mut world = World::new(160);
    world.add(true, 500_000, 0);
    world.add(false, 500_000, 1);
    world.connect_all();
    world.run(&[1], secs(100));
    assert_eq!(world.nodes[1].swarm.stats().down_http, 0);
}

#[test]
fn http_gives_a_new_peer_the_time_to_say_what_it_has() {
    let mut world = World::new(160);
    world.add(true, 500_000, 0);
    world.add(false, 500_000, 1);
    world.connect_all();
    world.input(1, Input::TrackersAsked);
    world.run(&[1], secs(100));
    assert_eq!(world.nodes[1].swarm.stats().down_http, 0);
}

#[test]
fn http_takes_over_when_the_peers_fall_silent() {
    let mut world = World::new(320);
    world.add(true, 500_000, 0);
    world.add(false, 500_000, 1);
    world.connect_all();
    world.nodes[0].silent_from = Some(secs(5));
    let took = world.run(&[1], secs(200));
    assert!(took < secs(60), "{took:?}");
    assert!(world.nodes[1].swarm.stats().down_http > 0);
}

#[test]
fn limits_hold_both_ways() {
    for (up, down) in [(Some(200_000), None), (None, Some(200_000)), (Some(200_000), Some(150_000))]
    {
        let mut world = World::new(64);
        world.add(true, 10_000_000, 0);
        world.nodes[0].limiter = Limiter::new(up, None);
        for _ in 0..2 {
            let leech = world.add(false, 10_000_000, 0);
            world.nodes[leech].limiter = Limiter::new(Some(0), down);
        }
        world.connect_all();
        let took = world.run(&[1, 2], secs(300));
        let copies = if up.is_some() { 2 } else { 1 };
        let t = ratio(took, copies * world.size(), 200_000);
        assert!((0.95..1.1).contains(&t), "{t} of the time the limit allows");
    }
}

#[test]
fn without_consent_nothing_leaves_the_lan() {
    let mut world = World::new(16);
    let seed = world.add(true, 1_000_000, 0);
    world.add(false, 1_000_000, 0);
    world.input(seed, Input::SetUpload(UploadPolicy::LanOnly));
    world.connect_all();
    world.run_until(secs(60), |_| false);
    assert_eq!(world.nodes[seed].swarm.stats().up, 0);
    world.input(seed, Input::SetUpload(UploadPolicy::Everyone));
    world.run(&[1], secs(120));
}

/// An idle engine sleeps: whatever it was told, its next wake-up is never now.
#[test]
fn an_idle_engine_sleeps() {
    for seed in [true, false] {
        let mut world = World::new(16);
        let node = world.add(seed, 1_000_000, 0);
        world.input(node, Input::Peers((1..200).map(addr).collect()));
        world.input(node, Input::DialFailed { addr: addr(3) });
        for _ in 0..100 {
            world.now += Duration::from_millis(1500);
            world.input(node, Input::Timeout);
            let state = &world.nodes[node];
            let wake = state.swarm.poll_timeout(&state.limiter);
            assert!(wake.is_none_or(|wake| wake > world.now), "{wake:?} at {:?}", world.now);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = World::new(64);
        world.add(true, 1_000_000, 0);
        for _ in 0..6 {
            world.add(false, 700_000, 0);
        }
        world.nodes[3].liar = true;
        world.connect_all();
        world.run_until(secs(60), |_| false);
        world.trace
    };
    assert_eq!(run(), run());
}

#[test]
fn hostile_messages_end_the_connection_and_nothing_else() {
    let messages = [
        Message::Have(PieceIndex(99)),
        Message::Bitfield(Bytes::from_static(&[0xff; 9])),
        Message::Request(Block { piece: PieceIndex(99), offset: 0, len: 1 }),
        Message::Request(Block { piece: PieceIndex(0), offset: u32::MAX, len: u32::MAX }),
        Message::AllowedFast(PieceIndex(u32::MAX)),
        Message::Extended { id: 0, payload: Bytes::from_static(b"i1e") },
    ];
    for message in messages {
        let mut world = World::new(16);
        world.add(true, 1_000_000, 0);
        world.add(false, 1_000_000, 0);
        world.connect_all();
        let text = format!("{message:?}");
        world.input(0, Input::Received { peer: PeerKey(1), message });
        assert_eq!(world.banned, [addr(1)], "{text}");
        world.run_until(secs(5), |_| false);
    }
}

#[test]
fn an_answer_that_breaks_off_leaves_no_piece_behind() {
    let mut world = World::new(160);
    world.add(false, 1_000_000, 1);
    world.nodes[0].http_breaks = 3;
    let took = world.run(&[0], secs(100));
    assert!(took < secs(30), "{took:?}");
}

#[test]
fn a_half_piece_of_a_peer_that_left_is_finished_over_http() {
    let mut world = World::new(16);
    world.add(true, 100_000, 0);
    world.add(false, 100_000, 1);
    world.connect_all();
    let begun = |world: &World| world.nodes[1].swarm.stats().down_peers >= 5 * 16_384;
    world.run_until(secs(10), begun);
    world.leave(0);
    world.run(&[1], secs(60));
}

#[test]
fn the_only_peer_may_be_as_slow_as_it_likes() {
    let mut world = World::new(2);
    world.add(true, 600, 0);
    world.add(false, 600, 0);
    world.connect_all();
    let took = world.run(&[1], secs(1000));
    assert!(took < secs(300), "{took:?}");
}

#[test]
fn a_request_taken_back_costs_nobody_its_word() {
    let mut world = World::new(64);
    world.add(true, 1_000_000, 0);
    world.add(true, 30_000, 0);
    world.add(false, 1_000_000, 0);
    world.connect_all();
    world.run(&[2], secs(60));
    world.run_until(world.now + Duration::from_millis(500), |_| false);
    assert!(world.nodes[2].swarm.peers.values().all(|peer| peer.have.is_full()));
}

#[test]
fn a_peer_without_metadata_may_say_what_it_has_late() {
    let mut world = World::new(16);
    world.add(true, 1_000_000, 0);
    world.add(false, 1_000_000, 0);
    world.connect_all();
    let ask = MetadataMessage::Request { piece: 0 }.encode();
    for message in [
        Message::Extended { id: 0, payload: ExtensionHandshake::default().encode() },
        Message::Extended { id: ours::METADATA, payload: ask },
        Message::HaveNone,
    ] {
        world.input(0, Input::Received { peer: PeerKey(1), message });
    }
    assert!(world.banned.is_empty(), "{:?}", world.banned);
}

#[test]
fn a_lost_piece_is_asked_for_again() {
    let mut world = World::new(16);
    world.add(true, 1_000_000, 0);
    world.add(false, 1_000_000, 0);
    world.connect_all();
    world.run(&[1], secs(60));
    world.nodes[1].complete_at = None;
    world.input(1, Input::Lost { piece: PieceIndex(3) });
    world.run(&[1], secs(60));
}

#[test]
fn a_server_that_asks_for_rest_gets_it() {
    let mut world = World::new(160);
    world.add(false, 1_000_000, 1);
    (world.nodes[0].http_breaks, world.nodes[0].http_rest) = (4, Some(secs(40)));
    let took = world.run(&[0], secs(200));
    assert!((secs(40)..secs(60)).contains(&took), "{took:?}");
}
