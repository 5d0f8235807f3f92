//! The tracker's mind: who is in which swarm, and whom to tell of whom. No sockets, no clock.
//!
//! It knows its own torrents only. A hybrid's two info-hashes are one swarm, and a peer is one peer
//! whichever of them, and over whichever of IPv4 and IPv6, it announces. An address is where a
//! request came from, never what it says (`ip=` is not even read).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use updraft_protocol::ids::{InfoHash, PeerId};
use updraft_protocol::policy::bans::HostAddr;
use updraft_protocol::wire::tracker::{Announce, AnnounceReply, Event, ScrapeEntry};

/// Seconds between announces in a small swarm: short, so that a room of players finds itself.
pub const INTERVAL_DEFAULT_S: u32 = 30;
/// Seconds between announces, however large the swarm.
pub const INTERVAL_MAX_S: u32 = 1800;
/// Peers per second of interval beyond the shortest: 20 announces a second are no load.
const ANNOUNCES_PER_SECOND: u32 = 20;
/// Peers told at most, and when nothing is asked.
const NUMWANT_MAX: u32 = 200;
const NUMWANT_DEFAULT: u32 = 50;
/// Peers of one swarm; who comes later is answered but not listed.
pub const PEERS_MAX: usize = 50_000;
/// Addresses of one peer: IPv4 and IPv6, and a move.
const ADDRESSES_MAX: usize = 4;
/// Peers at one host: a school behind a NAT, but no flood from one machine.
const PEERS_PER_HOST_MAX: usize = 256;
/// Swarms known: releases, and the meeting place.
pub const SWARMS_MAX: usize = 1024;

/// Which of a request's addresses belongs to whom.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Where the request came from.
    pub remote: IpAddr,
    /// Our own address that it reached.
    pub local: IpAddr,
    /// The answer has room for peers of the request's own family alone (BEP 15).
    pub one_family: bool,
}

impl Link {
    fn has_room_for(self, ip: IpAddr) -> bool {
        !self.one_family || ip.to_canonical().is_ipv4() == self.remote.to_canonical().is_ipv4()
    }
}

/// All swarms.
#[derive(Debug)]
pub struct Tracker {
    swarms: HashMap<u64, Swarm>,
    by_hash: HashMap<InfoHash, u64>,
    opened: u64,
    interval_s: u32,
    random: u64,
}

/// What is known of one torrent.
#[derive(Debug, Default)]
struct Swarm {
    hashes: Vec<InfoHash>,
    peers: HashMap<PeerId, Peer>,
    owners: HashMap<SocketAddr, PeerId>,
    per_host: HashMap<HostAddr, usize>,
    /// For picking at random.
    order: Vec<PeerId>,
    seeds: u32,
    completed: u32,
    /// Where our own seed listens: told to everybody, counted as one seed.
    own_seed: Option<OwnSeed>,
    next_sweep: Option<Instant>,
}

/// Our own seed, as players see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnSeed {
    /// On the host that the tracker was reached at, at this port.
    SameHost(u16),
    /// At a fixed address.
    At(SocketAddr),
}

#[derive(Debug)]
struct Peer {
    /// Each with the time when it is forgotten, if it does not announce before.
    addresses: Vec<(SocketAddr, Instant)>,
    is_seed: bool,
    position: usize,
}

impl Tracker {
    /// A tracker that asks small swarms to announce every `interval_s` seconds. `random` seeds the
    /// choice of peers.
    pub fn new(interval_s: u32, random: u64) -> Self {
        let interval_s = interval_s.clamp(1, INTERVAL_MAX_S);
        let (swarms, by_hash) = (HashMap::new(), HashMap::new());
        Self { swarms, by_hash, opened: 0, interval_s, random: random | 1 }
    }

    /// Opens a swarm with these names; `own_seed` is our own peer in it. Again for known ones changes
    /// the seed alone. False if there are [`SWARMS_MAX`].
    #[must_use]
    pub fn open(&mut self, hashes: &[InfoHash], own_seed: Option<OwnSeed>) -> bool {
        let known = hashes.iter().find_map(|hash| self.by_hash.get(hash).copied());
        if known.is_none() && self.swarms.len() >= SWARMS_MAX {
            return false;
        }
        let key = known.unwrap_or_else(|| {
            self.opened += 1;
            self.opened
        });
        let new = Swarm { hashes: hashes.to_vec(), ..Swarm::default() };
        self.swarms.entry(key).or_insert(new).own_seed = own_seed;
        self.by_hash.extend(hashes.iter().map(|hash| (*hash, key)));
        true
    }

    /// Forgets a swarm and who is in it.
    pub fn close(&mut self, hash: InfoHash) {
        if let Some(key) = self.by_hash.remove(&hash) {
            self.swarms.remove(&key);
            self.by_hash.retain(|_, other| *other != key);
        }
    }

    fn swarm(&mut self, hash: InfoHash) -> Option<&mut Swarm> {
        self.swarms.get_mut(self.by_hash.get(&hash)?)
    }

    /// Answers an announce; `None` if the torrent is not one of ours.
    pub fn announce(
        &mut self,
        now: Instant,
        link: Link,
        announce: &Announce,
    ) -> Option<(AnnounceReply, Vec<PeerId>)> {
        let shortest = self.interval_s;
        let mut random = self.random;
        let swarm = self.swarm(announce.info_hash)?;
        let interval_s = swarm.interval_s(shortest);
        swarm.sweep(now, interval_s);
        let remote = link.remote.to_canonical();
        let addr = SocketAddr::new(remote, announce.port);
        if announce.event == Some(Event::Stopped) {
            swarm.leave(addr, announce.peer_id);
        } else {
            // Twice the interval: one lost announce is forgiven.
            let expires = now + Duration::from_secs(u64::from(interval_s) * 2 + 30);
            swarm.enter(addr, announce, expires);
        }
        let wanted = match announce.event {
            Some(Event::Stopped) => 0,
            _ => announce.numwant.unwrap_or(NUMWANT_DEFAULT).min(NUMWANT_MAX),
        };
        let (peers, ids) = swarm.pick(link, announce, wanted as usize, &mut random);
        let own = u32::from(swarm.own_seed.is_some());
        let reply = AnnounceReply {
            interval_s,
            min_interval_s: Some(interval_s.div_ceil(2)),
            seeders: Some(swarm.seeds + own),
            leechers: Some(swarm.leechers()),
            peers,
            warning: None,
            tracker_id: None,
        };
        self.random = random;
        Some((reply, ids))
    }

    /// Answers a scrape: of these torrents, or of all when none is named. Unknown ones are left out.
    pub fn scrape(&mut self, now: Instant, hashes: &[InfoHash]) -> Vec<ScrapeEntry> {
        let all: Vec<InfoHash>;
        let hashes = if hashes.is_empty() {
            all = self.swarms.values().flat_map(|swarm| swarm.hashes.clone()).collect();
            &all
        } else {
            hashes
        };
        let mut entries = Vec::new();
        for hash in hashes {
            let shortest = self.interval_s;
            let Some(swarm) = self.swarm(*hash) else { continue };
            let interval_s = swarm.interval_s(shortest);
            swarm.sweep(now, interval_s);
            entries.push(ScrapeEntry {
                info_hash: *hash,
                seeders: swarm.seeds + u32::from(swarm.own_seed.is_some()),
                leechers: swarm.leechers(),
                completed: swarm.completed,
            });
        }
        entries
    }
}

impl Swarm {
    fn leechers(&self) -> u32 {
        u32::try_from(self.peers.len()).unwrap_or(u32::MAX).saturating_sub(self.seeds)
    }

    fn interval_s(&self, shortest: u32) -> u32 {
        let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        (peers / ANNOUNCES_PER_SECOND).clamp(shortest, INTERVAL_MAX_S)
    }

    /// Forgets who was not heard of for long.
    fn sweep(&mut self, now: Instant, interval_s: u32) {
        if self.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        self.next_sweep = Some(now + Duration::from_secs(u64::from(interval_s / 2).max(1)));
        let listed = self.peers.iter().flat_map(|(id, peer)| {
            peer.addresses.iter().map(|(addr, expires)| (*id, *addr, *expires))
        });
        let gone: Vec<_> = listed.filter(|(_, _, expires)| *expires <= now).collect();
        for (id, addr, _) in gone {
            self.leave(addr, id);
        }
    }

    fn enter(&mut self, addr: SocketAddr, announce: &Announce, expires: Instant) {
        let id = announce.peer_id;
        let is_seed = announce.left == 0;
        if addr.port() == 0 {
            return;
        }
        // A client that was restarted comes with a new id from its old address.
        if let Some(owner) = self.owners.get(&addr).copied()
            && owner != id
        {
            self.leave(addr, owner);
        }
        if !self.peers.contains_key(&id) {
            if self.peers.len() >= PEERS_MAX {
                return;
            }
            let position = self.order.len();
            self.order.push(id);
            let peer = Peer { addresses: vec![], is_seed: false, position };
            self.peers.insert(id, peer);
        }
        self.list(addr, id, expires);
        let peer = self.peers.get_mut(&id).expect("entered above");
        if announce.event == Some(Event::Completed) && !peer.is_seed {
            self.completed = self.completed.saturating_add(1);
        }
        if peer.is_seed != is_seed {
            peer.is_seed = is_seed;
            if is_seed { self.seeds += 1 } else { self.seeds -= 1 }
        }
        if peer.addresses.is_empty() {
            self.remove(id);
        }
    }

    /// Lists an address of a peer, or keeps it listed. It may take the place of another at the same host, and of no
    /// other: an id is no secret, and somebody else may use it.
    fn list(&mut self, addr: SocketAddr, id: PeerId, expires: Instant) {
        let host = HostAddr::of(addr.ip());
        let peer = self.peers.get_mut(&id).expect("it was entered");
        if let Some((_, until)) = peer.addresses.iter_mut().find(|(known, _)| *known == addr) {
            *until = expires;
            return;
        }
        if peer.addresses.len() >= ADDRESSES_MAX {
            let here = |(known, _): &(SocketAddr, Instant)| HostAddr::of(known.ip()) == host;
            let Some(at) = peer.addresses.iter().position(here) else { return };
            let (before, _) = peer.addresses.remove(at);
            self.forget_address(before);
        }
        let here = self.per_host.entry(host).or_insert(0);
        if *here < PEERS_PER_HOST_MAX {
            *here += 1;
            self.owners.insert(addr, id);
            self.peers.get_mut(&id).expect("it was entered").addresses.push((addr, expires));
        }
    }

    /// Only the address that says goodbye goes: an id is no secret, and others may use it.
    fn leave(&mut self, addr: SocketAddr, id: PeerId) {
        if self.owners.get(&addr) != Some(&id) {
            return;
        }
        self.forget_address(addr);
        let peer = self.peers.get_mut(&id).expect("owners are peers");
        peer.addresses.retain(|(known, _)| *known != addr);
        if peer.addresses.is_empty() {
            self.remove(id);
        }
    }

    fn forget_address(&mut self, addr: SocketAddr) {
        self.owners.remove(&addr);
        let host = HostAddr::of(addr.ip());
        if let Some(here) = self.per_host.get_mut(&host) {
            *here -= 1;
            if *here == 0 {
                self.per_host.remove(&host);
            }
        }
    }

    fn remove(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for (addr, _) in peer.addresses {
            self.forget_address(addr);
        }
        if peer.is_seed {
            self.seeds -= 1;
        }
        self.order.swap_remove(peer.position);
        if let Some(moved) = self.order.get(peer.position) {
            self.peers.get_mut(moved).expect("order lists peers").position = peer.position;
        }
        assert_eq!(self.order.len(), self.peers.len(), "order lists every peer once");
    }

    /// Peers for the one that asks: our own seed first, then others at random; no seeds for a seed.
    fn pick(
        &self,
        link: Link,
        announce: &Announce,
        wanted: usize,
        random: &mut u64,
    ) -> (Vec<SocketAddr>, Vec<PeerId>) {
        let (mut addrs, mut ids) = (Vec::new(), Vec::new());
        let asks_seed = announce.left == 0;
        if let Some(seed) = self.own_seed
            && wanted > 0
            && !asks_seed
        {
            let addr = match seed {
                OwnSeed::SameHost(port) => SocketAddr::new(link.local.to_canonical(), port),
                OwnSeed::At(addr) => addr,
            };
            if link.has_room_for(addr.ip()) {
                addrs.push(addr);
                ids.push(PeerId(*b"-UD0100-000000000000"));
            }
        }
        let mut offer = |id: &PeerId| {
            let peer = &self.peers[id];
            if *id == announce.peer_id || (asks_seed && peer.is_seed) {
                return;
            }
            let addresses = peer.addresses.iter().map(|(addr, _)| *addr);
            for addr in addresses.filter(|addr| link.has_room_for(addr.ip())) {
                if addrs.len() < wanted {
                    addrs.push(reachable(addr, link));
                    ids.push(*id);
                }
            }
        };
        if self.order.len() <= wanted {
            self.order.iter().for_each(&mut offer);
        } else {
            let mut seen = HashSet::new();
            // Some draws hit the same peer or a useless one; more tries than this are not worth it.
            for _ in 0..wanted * 2 {
                let at = usize::try_from(next(random) % self.order.len() as u64).expect("an index");
                if seen.insert(at) {
                    offer(&self.order[at]);
                }
            }
        }
        (addrs, ids)
    }
}

/// A peer on the tracker's own machine announces from a loopback address, which nobody else can dial.
/// Others reach it where they reached us.
fn reachable(addr: SocketAddr, link: Link) -> SocketAddr {
    if addr.ip().is_loopback() && !link.remote.to_canonical().is_loopback() {
        SocketAddr::new(link.local.to_canonical(), addr.port())
    } else {
        addr
    }
}

/// xorshift64*: good enough to spread peers, and the same for the same seed.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const V1: InfoHash = InfoHash([1; 20]);
    const V2: InfoHash = InfoHash([2; 20]);

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new(30, 7);
        assert!(tracker.open(&[V1, V2], None));
        tracker
    }

    fn link(remote: &str) -> Link {
        Link {
            remote: remote.parse().unwrap(),
            local: "10.0.0.1".parse().unwrap(),
            one_family: false,
        }
    }

    pub(in crate::serve) fn announce(
        hash: InfoHash,
        id: u8,
        port: u16,
        left: u64,
        event: Option<Event>,
    ) -> Announce {
        Announce {
            info_hash: hash,
            peer_id: PeerId([id; 20]),
            port,
            uploaded: 0,
            downloaded: 0,
            left,
            event,
            numwant: None,
            key: None,
            compact: true,
            tracker_id: None,
        }
    }

    fn counts(tracker: &mut Tracker, now: Instant) -> (u32, u32, u32) {
        let entry = tracker.scrape(now, &[V1])[0];
        (entry.seeders, entry.leechers, entry.completed)
    }

    #[test]
    fn a_hybrid_is_one_swarm_and_a_peer_one_peer() {
        let (mut tracker, now) = (tracker(), Instant::now());
        tracker.announce(now, link("10.0.0.2"), &announce(V1, 1, 5, 9, None)).unwrap();
        tracker.announce(now, link("10.0.0.2"), &announce(V2, 1, 5, 9, None)).unwrap();
        tracker.announce(now, link("fd00::2"), &announce(V2, 1, 5, 9, None)).unwrap();
        assert_eq!(counts(&mut tracker, now), (0, 1, 0));
        let (reply, ids) =
            tracker.announce(now, link("10.0.0.3"), &announce(V2, 2, 6, 9, None)).unwrap();
        assert_eq!(reply.peers, ["10.0.0.2:5".parse().unwrap(), "[fd00::2]:5".parse().unwrap()]);
        assert_eq!(ids.len(), 2);
        assert_eq!(tracker.scrape(now, &[]).len(), 2);
        assert!(
            tracker
                .announce(now, link("10.0.0.3"), &announce(InfoHash([9; 20]), 2, 6, 9, None))
                .is_none()
        );
    }

    #[test]
    fn seeds_completion_and_goodbye() {
        let (mut tracker, now) = (tracker(), Instant::now());
        let mut say = |ip: &str, id, left, event| {
            tracker.announce(now, link(ip), &announce(V1, id, 5, left, event)).unwrap().0
        };
        say("10.0.0.2", 1, 9, Some(Event::Started));
        say("10.0.0.3", 2, 0, Some(Event::Started));
        say("10.0.0.2", 1, 0, Some(Event::Completed));
        say("10.0.0.2", 1, 0, Some(Event::Completed));
        let reply = say("10.0.0.4", 3, 0, None);
        assert_eq!((reply.seeders, reply.leechers), (Some(3), Some(0)));
        assert!(reply.peers.is_empty(), "a seed has no use for seeds");
        say("10.0.0.9", 2, 0, Some(Event::Stopped));
        assert_eq!(
            counts(&mut tracker, now),
            (3, 0, 1),
            "a stranger cannot say goodbye for another"
        );
        let reply = tracker
            .announce(now, link("10.0.0.3"), &announce(V1, 2, 5, 0, Some(Event::Stopped)))
            .unwrap()
            .0;
        assert!(reply.peers.is_empty());
        assert_eq!(counts(&mut tracker, now), (2, 0, 1));
    }

    #[test]
    fn silence_and_restarts() {
        let (mut tracker, now) = (tracker(), Instant::now());
        tracker.announce(now, link("10.0.0.2"), &announce(V1, 1, 5, 9, None)).unwrap();
        tracker.announce(now, link("10.0.0.2"), &announce(V1, 2, 5, 9, None)).unwrap();
        assert_eq!(counts(&mut tracker, now), (0, 1, 0), "same address, new id: the same client");
        tracker.announce(now, link("10.0.0.2"), &announce(V1, 3, 6, 9, None)).unwrap();
        assert_eq!(counts(&mut tracker, now), (0, 2, 0), "another port: another client");
        assert_eq!(counts(&mut tracker, now + Duration::from_secs(89)), (0, 2, 0));
        assert_eq!(counts(&mut tracker, now + Duration::from_secs(120)), (0, 0, 0));
    }

    #[test]
    fn own_seed_and_loopback() {
        let (mut tracker, now) = (tracker(), Instant::now());
        assert!(tracker.open(&[V1, V2], Some(OwnSeed::SameHost(7601))));
        let mut ask = |ip: &str, id, left| {
            tracker.announce(now, link(ip), &announce(V1, id, 5, left, None)).unwrap().0
        };
        let first = ask("127.0.0.1", 1, 9);
        assert_eq!(first.peers, ["10.0.0.1:7601".parse().unwrap()]);
        assert_eq!(first.seeders, Some(1));
        let other = ask("10.0.0.2", 2, 9);
        assert_eq!(other.peers, ["10.0.0.1:7601".parse().unwrap(), "10.0.0.1:5".parse().unwrap()]);
        assert_eq!(ask("10.0.0.3", 3, 0).peers.len(), 2);
    }

    #[test]
    fn bounds() {
        let (mut tracker, now) = (tracker(), Instant::now());
        for port in 1..=1000u16 {
            let mut asked = announce(V1, 0, port, 9, None);
            asked.peer_id.0[..2].copy_from_slice(&port.to_be_bytes());
            asked.numwant = Some(u32::MAX);
            let (reply, _) = tracker.announce(now, link("10.0.0.2"), &asked).unwrap();
            assert!(reply.peers.len() <= 200);
        }
        assert_eq!(counts(&mut tracker, now).1, 256);
        tracker.announce(now, link("10.0.0.3"), &announce(V1, 3, 0, 9, None)).unwrap();
        assert_eq!(counts(&mut tracker, now).1, 256, "who does not listen is not listed");
    }

    #[test]
    fn nobody_takes_the_place_of_another() {
        let (mut tracker, now) = (tracker(), Instant::now());
        tracker.announce(now, link("198.51.100.1"), &announce(V1, 1, 5, 9, None)).unwrap();
        // Somebody else under the same id.
        for port in 1..=300 {
            tracker.announce(now, link("203.0.113.7"), &announce(V1, 1, port, 9, None)).unwrap();
        }
        let (reply, _) =
            tracker.announce(now, link("10.0.0.3"), &announce(V1, 2, 6, 9, None)).unwrap();
        assert!(reply.peers.contains(&"198.51.100.1:5".parse().unwrap()), "{:?}", reply.peers);
        assert_eq!(reply.peers.len(), ADDRESSES_MAX);
        // One machine has all addresses of its network.
        for at in 1..=1000u16 {
            let mut asked = announce(V2, 0, 7, 9, None);
            asked.peer_id.0[..2].copy_from_slice(&at.to_be_bytes());
            tracker.announce(now, link(&format!("2001:db8::{at:x}")), &asked).unwrap();
        }
        assert_eq!(counts(&mut tracker, now).1, 2 + 256);
    }

    #[test]
    fn what_is_closed_makes_room() {
        let mut tracker = Tracker::new(30, 7);
        let now = Instant::now();
        let name = |at: u16| {
            let mut hash = InfoHash([0; 20]);
            hash.0[..2].copy_from_slice(&at.to_be_bytes());
            hash
        };
        let open = |tracker: &mut Tracker, at: u16| tracker.open(&[name(at), name(at + 1)], None);
        let opened = (0..4000).step_by(2).take_while(|&at| open(&mut tracker, at)).count();
        assert_eq!(opened, SWARMS_MAX);
        assert!(open(&mut tracker, 0), "a known one is no other");
        tracker.close(name(1));
        assert!(
            tracker.announce(now, link("10.0.0.2"), &announce(name(0), 1, 5, 9, None)).is_none()
        );
        assert!(open(&mut tracker, 5000));
        assert!(!open(&mut tracker, 6000));
        assert!(
            tracker.announce(now, link("10.0.0.2"), &announce(name(2), 1, 5, 9, None)).is_some()
        );
    }

    proptest! {
        #[test]
        fn counts_are_of_who_is_there(
            steps in prop::collection::vec((0u8..4, 0u8..4, 1u16..4, 0u64..2, 0u8..4, 0u64..60), 0..60),
        ) {
            let (mut tracker, start) = (tracker(), Instant::now());
            let mut at = 0;
            for (ip, id, port, left, event, wait) in steps {
                at += wait;
                let event = [None, Some(Event::Started), Some(Event::Completed), Some(Event::Stopped)][usize::from(event)];
                let now = start + Duration::from_secs(at);
                let said = announce(if at % 2 == 0 { V1 } else { V2 }, id, port, left, event);
                let (reply, ids) = tracker.announce(now, link(&format!("10.0.0.{ip}")), &said).unwrap();
                prop_assert_eq!(reply.peers.len(), ids.len());
                prop_assert!(!ids.contains(&said.peer_id));
                let swarm = &tracker.swarms[&1];
                prop_assert_eq!(swarm.seeds as usize, swarm.peers.values().filter(|p| p.is_seed).count());
                prop_assert_eq!(swarm.owners.len(), swarm.peers.values().map(|p| p.addresses.len()).sum::<usize>());
                prop_assert_eq!(swarm.owners.len(), swarm.per_host.values().sum::<usize>());
                for (addr, id) in &swarm.owners {
                    prop_assert!(swarm.peers[id].addresses.iter().any(|(known, _)| known == addr));
                }
            }
        }
    }
}
