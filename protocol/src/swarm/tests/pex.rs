//! Peer exchange: what is told, what is believed, and what it does for a swarm.

use super::*;
use crate::ids::PeerId;
use crate::wire::handshake::Abilities;
use crate::wire::pex::{Contact, PexMessage};
use std::collections::BTreeSet;

/// The number that peers have for peer exchange here.
const THEIR_PEX: u8 = 9;

/// One engine, and peers that are words.
struct Alone {
    swarm: Swarm,
    limiter: Limiter,
    now: Duration,
    outputs: Vec<Output>,
}

impl Alone {
    fn new(private: bool) -> Self {
        let config = Config {
            peer_id: PeerId([0; 20]),
            listen_port: Some(6881),
            connections_max: 200,
            private,
            ..plain_config()
        };
        let world = world(4);
        let priorities = vec![Priority::NORMAL; 4];
        let swarm = Swarm::new(config, world.geometry, &Bitfield::empty(4), priorities);
        Self { swarm, limiter: Limiter::new(None, None), now: secs(1), outputs: Vec::new() }
    }

    fn input(&mut self, input: Input) {
        self.swarm.handle(self.now, &mut self.limiter, input);
        while let Some(output) = self.swarm.poll() {
            self.outputs.push(output);
        }
    }

    /// Time passes, and nothing else; everybody is heard of now and then.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += secs(1);
            let peers: Vec<PeerKey> = self.swarm.peers.keys().copied().collect();
            for peer in peers {
                self.input(Input::Received { peer, message: Message::KeepAlive });
            }
            self.input(Input::Timeout);
        }
    }

    /// A peer that takes part in peer exchange, and listens at 6881 if it came by itself.
    fn connect(&mut self, peer: u32, addr: &str, outgoing: bool) {
        let addr: SocketAddr = addr.parse().unwrap();
        let id = PeerId([u8::try_from(peer).unwrap(); 20]);
        let abilities = Abilities { extensions: true, fast: true, v2: true, dht: false };
        let (peer, lan) = (PeerKey(peer), crate::policy::locality::is_lan(addr.ip()));
        self.input(Input::Connected {
            peer,
            addr,
            outgoing,
            id,
            abilities,
            lan,
            transport: Transport::Tcp,
        });
        let hello = ExtensionHandshake {
            pex: Some(THEIR_PEX),
            listen_port: Some(6881),
            ..ExtensionHandshake::default()
        };
        self.hear(peer, 0, hello.encode());
    }

    fn hear(&mut self, peer: PeerKey, id: u8, payload: Bytes) {
        self.input(Input::Received { peer, message: Message::Extended { id, payload } });
    }

    fn hear_of(&mut self, peer: u32, addrs: &[SocketAddr]) {
        let contact = |&addr| Contact { addr, seed: false, reachable: true, quic: false };
        let added = addrs.iter().map(contact).collect();
        let message = PexMessage { added, dropped: vec![] };
        self.hear(PeerKey(peer), ours::PEX, message.encode());
    }

    /// What `peer` was told since this was last asked.
    fn told(&mut self, peer: u32) -> Vec<PexMessage> {
        let mut told = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Send { peer: to, message: Message::Extended { id: THEIR_PEX, payload } }
                if *to == PeerKey(peer) =>
            {
                told.push(PexMessage::parse(payload).unwrap());
                false
            }
            _ => true,
        });
        told
    }

    fn dialled(&self) -> BTreeSet<SocketAddr> {
        let dialled = |output: &Output| match output {
            Output::Dial { addr, .. } => Some(*addr),
            _ => None,
        };
        self.outputs.iter().filter_map(dialled).collect()
    }

    fn banned(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Event(Event::PeerBanned { .. })))
    }
}

fn contact(addr: &str, reachable: bool) -> Contact {
    Contact { addr: addr.parse().unwrap(), seed: false, reachable, quic: false }
}

#[test]
fn who_is_connected_is_told_once_a_minute_and_taken_back() {
    let mut alone = Alone::new(false);
    alone.connect(1, "198.51.100.1:6881", true);
    alone.connect(2, "198.51.100.2:40000", false);
    alone.connect(3, "[2001:db8::3]:6881", true);
    alone.pass(30);
    let first = alone.told(1);
    let added = vec![contact("198.51.100.2:6881", false), contact("[2001:db8::3]:6881", true)];
    assert_eq!(first, [PexMessage { added, dropped: vec![] }], "not itself, and where they listen");
    let second = alone.told(2);
    assert!(second[0].added.contains(&contact("198.51.100.1:6881", true)));

    alone.input(Input::Closed { peer: PeerKey(2) });
    alone.connect(4, "198.51.100.4:6881", true);
    alone.pass(25);
    assert_eq!(alone.told(1), [], "a minute has not passed");
    alone.pass(10);
    let added = vec![contact("198.51.100.4:6881", true)];
    let dropped = vec!["198.51.100.2:6881".parse().unwrap()];
    assert_eq!(alone.told(1), [PexMessage { added, dropped }]);
    alone.pass(200);
    assert_eq!(alone.told(1), [], "nothing has changed");
}

#[test]
fn at_most_fifty_are_told_at_once() {
    let mut alone = Alone::new(false);
    for peer in 1..=120 {
        alone.connect(peer, &format!("198.51.100.{peer}:6881"), true);
    }
    alone.pass(200);
    let told = alone.told(1);
    assert_eq!(told.iter().map(|told| told.added.len()).collect::<Vec<_>>(), [50, 50, 19]);
    let all: BTreeSet<_> = told.iter().flat_map(|told| &told.added).collect();
    assert_eq!(all.len(), 119);
}

#[test]
fn addresses_of_a_lan_stay_there() {
    let mut alone = Alone::new(false);
    alone.connect(1, "198.51.100.1:6881", true);
    alone.connect(2, "192.168.1.2:6881", true);
    alone.connect(3, "192.168.1.3:6881", true);
    alone.connect(4, "127.0.0.1:6881", true);
    alone.pass(5);
    assert_eq!(alone.told(1), []);
    let near: Vec<_> = alone.told(2).remove(0).added.iter().map(|told| told.addr).collect();
    let expected = ["192.168.1.3:6881", "198.51.100.1:6881"];
    assert_eq!(near, expected.map(|addr| addr.parse().unwrap()));
}

#[test]
fn a_private_torrent_neither_tells_nor_listens() {
    let mut alone = Alone::new(true);
    alone.connect(1, "198.51.100.1:6881", true);
    alone.connect(2, "198.51.100.2:6881", true);
    alone.hear_of(1, &["203.0.113.1:6881".parse().unwrap()]);
    alone.pass(120);
    assert_eq!(alone.told(1), []);
    assert!(alone.dialled().is_empty());
    let offers = alone.outputs.iter().any(|output| match output {
        Output::Send { message: Message::Extended { id: 0, payload }, .. } => {
            ExtensionHandshake::parse(payload).unwrap().pex.is_some()
        }
        _ => false,
    });
    assert!(!offers);
}

#[test]
fn addresses_that_lead_nowhere_are_not_dialled() {
    let good = ["203.0.113.1:6881", "[2001:db8::9]:6881"];
    let bad = [
        "127.0.0.1:80",
        "[::1]:80",
        "[fe80::1]:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
        "255.255.255.255:80",
        "0.0.0.0:80",
        "203.0.113.2:0",
        // From beyond the LAN into it.
        "192.168.1.1:80",
        "[fd00::1]:80",
        // A second port of one host.
        "203.0.113.1:22",
    ];
    let addrs: Vec<SocketAddr> =
        good.iter().chain(&bad).map(|addr| addr.parse().unwrap()).collect();
    let mut alone = Alone::new(false);
    alone.connect(1, "198.51.100.1:6881", true);
    alone.hear_of(1, &addrs);
    alone.pass(5);
    assert_eq!(alone.dialled(), good.map(|addr| addr.parse().unwrap()).into());

    let mut twice = Alone::new(false);
    twice.connect(1, "198.51.100.1:6881", true);
    twice.connect(2, "198.51.100.2:40000", false);
    let known = ["198.51.100.1:6881", "198.51.100.2:6881"];
    twice.hear_of(1, &known.map(|addr| addr.parse().unwrap()));
    twice.hear_of(2, &known.map(|addr| addr.parse().unwrap()));
    twice.pass(5);
    assert!(twice.dialled().is_empty(), "nor who is connected already");

    let mut near = Alone::new(false);
    near.connect(1, "192.168.1.7:6881", true);
    near.hear_of(1, &["192.168.1.1:80".parse().unwrap(), "192.168.1.1:81".parse().unwrap()]);
    near.pass(5);
    assert_eq!(near.dialled().len(), 2, "on a LAN, of its own hosts");
}

#[test]
fn who_floods_us_with_addresses_is_thrown_out_and_does_little_harm() {
    let many = |from: u32| -> Vec<SocketAddr> {
        let ip = |n| std::net::Ipv4Addr::from_bits(0xcb00_7100 + from + n);
        (0..100).map(|n| SocketAddr::from((ip(n), 80))).collect()
    };
    let mut alone = Alone::new(false);
    alone.connect(1, "198.51.100.1:6881", true);
    alone.connect(2, "198.51.100.2:6881", true);
    for from in 0..3 {
        alone.hear_of(1, &many(from * 100));
        for _ in 0..10 {
            alone.pass(1);
            let dialled = alone.dialled();
            dialled.into_iter().for_each(|addr| alone.input(Input::DialFailed { addr }));
        }
    }
    assert!(alone.dialled().len() <= 50, "only the first message was read");
    assert!(!alone.banned());
    for from in 0..12 {
        alone.hear_of(1, &many(from));
    }
    assert!(alone.banned());
    alone.outputs.clear();
    alone.hear(PeerKey(2), ours::PEX, Bytes::from_static(b"d5:added3:xyze"));
    assert!(alone.banned(), "nonsense is no better");
}

/// Everybody knows the seed alone, and nobody a tracker.
#[test]
fn a_swarm_finds_itself_without_a_tracker() {
    let mut world = world(160);
    let seed = world.add(host(true, 1_000_000, 0));
    let leeches: Vec<usize> = (0..20).map(|_| world.add(host(false, 1_000_000, 0))).collect();
    leeches.iter().for_each(|&leech| world.connect(leech, seed));
    world.run_until(secs(5), |_| false);
    for &leech in &leeches {
        let peers = swarm(&world, leech).peers().len();
        assert!(peers >= 10, "{leech} knows {peers}");
    }
    let took = world.run(&leeches, secs(60));
    // Alone the seed would take twenty times the time of one copy.
    assert!(ratio(took, world.size(), 1_000_000) < 2.0, "{took:?}");
}
