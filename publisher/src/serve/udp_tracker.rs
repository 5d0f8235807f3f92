//! The UDP tracker's mind (BEP 15): a datagram in, at most one datagram out. No sockets, no clock; the
//! swarms are those of the HTTP tracker.
//!
//! Anybody can write any address onto a datagram. So nothing is remembered of, and next to nothing
//! sent to, an address that has not proven that it gets what is sent to it: it shows the connection id
//! that we sent there, a keyed hash of address and time that we can compute again.

use super::tracker::{Link, Tracker};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use updraft_protocol::wire::udp_tracker::{Family, UdpReply, UdpRequest, UdpScrape};

/// A connection id is good until the end of the window after the one it was made in: for two minutes
/// (BEP 15), and at most for four.
const WINDOW: Duration = Duration::from_secs(120);
/// The longest answer: fits into one packet on any way that carries IPv6 (1280 bytes, less headers).
pub(crate) const REPLY_BYTES_MAX: usize = 1232;

/// Tells who has proven its address.
#[derive(Debug)]
pub(crate) struct UdpTracker {
    key: [u8; 32],
    epoch: Instant,
}

/// What to send back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) datagram: Vec<u8>,
    /// It refuses an announce of a torrent that is not known, or not yet.
    pub(crate) is_unknown: bool,
}

impl UdpTracker {
    /// `key` must be random and known to nobody; `epoch` is any time before the first datagram.
    pub(crate) fn new(key: [u8; 32], epoch: Instant) -> Self {
        Self { key, epoch }
    }

    /// Answers a datagram that came over `link`. What is malformed, or shows no valid connection id, is
    /// not answered.
    pub(crate) fn answer(
        &self,
        now: Instant,
        link: Link,
        datagram: &[u8],
        tracker: &mut Tracker,
    ) -> Option<Answer> {
        let mut is_unknown = false;
        let (transaction, reply) = match UdpRequest::parse(datagram)? {
            UdpRequest::Connect { transaction } => {
                let connection = self.connection(link.remote, self.window(now));
                (transaction, UdpReply::Connect { connection })
            }
            UdpRequest::Announce { connection, transaction, announce } => {
                self.proves(now, link.remote, connection)?;
                let reply = tracker.announce(now, link, &announce);
                is_unknown = reply.is_none();
                let refusal = "this tracker does not know that torrent";
                let reply = reply.map_or_else(
                    || UdpReply::Error(refusal.to_owned()),
                    |(reply, _)| UdpReply::Announce(reply),
                );
                (transaction, reply)
            }
            UdpRequest::Scrape { connection, transaction, hashes } => {
                self.proves(now, link.remote, connection)?;
                // In the order asked: an unknown torrent is a swarm of nobody.
                let entry = |hash| {
                    tracker.scrape(now, &[hash]).first().map_or(UdpScrape::default(), |known| {
                        UdpScrape {
                            seeders: known.seeders,
                            completed: known.completed,
                            leechers: known.leechers,
                        }
                    })
                };
                (transaction, UdpReply::Scrape(hashes.into_iter().map(entry).collect()))
            }
        };
        let datagram = reply.encode(transaction, Family::of(link.remote), REPLY_BYTES_MAX);
        Some(Answer { datagram, is_unknown })
    }

    fn window(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / WINDOW.as_secs()
    }

    /// The id that `ip` gets in a window. Not by port: a client may ask from another one.
    fn connection(&self, ip: IpAddr, window: u64) -> u64 {
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&ip.octets()).update(&window.to_le_bytes());
        let first = hasher.finalize().as_bytes().first_chunk().copied();
        u64::from_le_bytes(first.expect("a hash has 32 bytes"))
    }

    fn proves(&self, now: Instant, ip: IpAddr, connection: u64) -> Option<()> {
        let window = self.window(now);
        let known = [Some(window), window.checked_sub(1)];
        known
            .into_iter()
            .flatten()
            .any(|window| self.connection(ip, window) == connection)
            .then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::tracker::tests::announce;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use updraft_protocol::ids::{InfoHash, PeerId};
    use updraft_protocol::wire::tracker::{Announce, AnnounceReply, Event};

    const OURS: InfoHash = InfoHash([1; 20]);

    struct Lab {
        udp: UdpTracker,
        tracker: Tracker,
        now: Instant,
    }

    impl Lab {
        fn new() -> Self {
            let now = Instant::now();
            let mut tracker = Tracker::new(30, 7);
            assert!(tracker.open(&[OURS], None));
            Self { udp: UdpTracker::new([3; 32], now), tracker, now }
        }

        fn send(&mut self, from: &str, datagram: &[u8]) -> Option<Answer> {
            let remote: IpAddr = from.parse().unwrap();
            let local = if remote.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
            let link = Link { remote, local: local.parse().unwrap(), one_family: true };
            self.udp.answer(self.now, link, datagram, &mut self.tracker)
        }

        fn ask(&mut self, from: &str, request: &UdpRequest) -> Option<UdpReply> {
            let answer = self.send(from, &request.encode(None))?;
            let family = Family::of(from.parse().unwrap());
            let (transaction, reply) = UdpReply::parse(&answer.datagram, family).unwrap();
            assert_eq!(transaction, 9);
            Some(reply)
        }

        fn connect(&mut self, from: &str) -> u64 {
            match self.ask(from, &UdpRequest::Connect { transaction: 9 }) {
                Some(UdpReply::Connect { connection }) => connection,
                other => panic!("no connection but {other:?}"),
            }
        }

        fn announce(&mut self, from: &str, connection: u64, told: Announce) -> Option<UdpReply> {
            self.ask(from, &UdpRequest::Announce { connection, transaction: 9, announce: told })
        }

        fn join(&mut self, from: &str, told: Announce) -> AnnounceReply {
            let connection = self.connect(from);
            match self.announce(from, connection, told) {
                Some(UdpReply::Announce(reply)) => reply,
                other => panic!("no answer but {other:?}"),
            }
        }
    }

    fn told(id: u8, left: u64, event: Option<Event>) -> Announce {
        announce(OURS, id, 5, left, event)
    }

    #[test]
    fn peers_find_each_other_within_their_family() {
        let mut lab = Lab::new();
        assert_eq!(lab.join("10.0.0.2", told(2, 9, Some(Event::Started))).peers, []);
        assert_eq!(lab.join("fd00::3", told(3, 9, Some(Event::Started))).peers, []);
        let reply = lab.join("10.0.0.4", told(4, 9, None));
        assert_eq!(reply.peers, ["10.0.0.2:5".parse().unwrap()]);
        assert_eq!((reply.interval_s, reply.seeders, reply.leechers), (30, Some(0), Some(3)));
        let reply = lab.join("fd00::5", told(5, 0, None));
        assert_eq!(reply.peers, ["[fd00::3]:5".parse().unwrap()]);
        // As a socket for both families shows an IPv4 address.
        let connection = lab.connect("10.0.0.6");
        let mapped = Link {
            remote: "::ffff:10.0.0.6".parse().unwrap(),
            local: "::ffff:10.0.0.1".parse().unwrap(),
            one_family: true,
        };
        let announce =
            UdpRequest::Announce { connection, transaction: 9, announce: told(6, 9, None) };
        let answer =
            lab.udp.answer(lab.now, mapped, &announce.encode(None), &mut lab.tracker).unwrap();
        assert_eq!(answer.datagram.len(), 20 + 2 * 6);
        lab.join("10.0.0.2", told(2, 9, Some(Event::Stopped)));
        let connection = lab.connect("10.0.0.7");
        let hashes = vec![InfoHash([8; 20]), OURS];
        let scrape = UdpRequest::Scrape { connection, transaction: 9, hashes };
        let ours = UdpScrape { seeders: 1, completed: 0, leechers: 3 };
        let expected = UdpReply::Scrape(vec![UdpScrape::default(), ours]);
        assert_eq!(lab.ask("10.0.0.7", &scrape), Some(expected));
    }

    #[test]
    fn an_unknown_torrent_is_refused_in_words() {
        let mut lab = Lab::new();
        let connection = lab.connect("10.0.0.2");
        let announce = Announce { info_hash: InfoHash([8; 20]), ..told(2, 9, None) };
        let request = UdpRequest::Announce { connection, transaction: 9, announce };
        let answer = lab.send("10.0.0.2", &request.encode(None)).unwrap();
        assert!(answer.is_unknown);
        let (_, reply) = UdpReply::parse(&answer.datagram, Family::V4).unwrap();
        assert!(matches!(reply, UdpReply::Error(text) if text.contains("does not know")));
    }

    /// Two minutes at least, four at most, for one address only, and not for another key.
    #[test]
    fn connection_ids_do_not_last_and_do_not_travel() {
        for offset in [0, 1, 60, 119] {
            let mut lab = Lab::new();
            lab.now += Duration::from_secs(offset);
            let connection = lab.connect("10.0.0.2");
            assert!(lab.announce("10.0.0.3", connection, told(3, 9, None)).is_none());
            assert!(lab.announce("10.0.0.2", connection ^ 1, told(2, 9, None)).is_none());
            lab.now += Duration::from_secs(120);
            assert!(lab.announce("10.0.0.2", connection, told(2, 9, None)).is_some());
            lab.now += Duration::from_secs(120);
            assert!(lab.announce("10.0.0.2", connection, told(2, 9, None)).is_none());
            lab.udp.key = [4; 32];
            let old = connection;
            assert_ne!(lab.connect("10.0.0.2"), old);
        }
    }

    /// Who has not proven its address gets no more bytes than it sent, and leaves no trace.
    #[test]
    fn a_forged_address_gets_nothing_out_of_us() {
        let mut lab = Lab::new();
        lab.join("10.0.0.9", told(1, 9, None));
        let forged = UdpRequest::Announce {
            connection: 0x0123_4567_89ab_cdef,
            transaction: 9,
            announce: told(2, 9, None),
        };
        assert_eq!(lab.send("203.0.113.7", &forged.encode(None)), None);
        let hashes = vec![OURS; 74];
        let scrape = UdpRequest::Scrape { connection: 1, transaction: 9, hashes };
        assert_eq!(lab.send("203.0.113.7", &scrape.encode(None)), None);
        let connect = UdpRequest::Connect { transaction: 9 }.encode(None);
        let answer = lab.send("203.0.113.7", &connect).unwrap();
        assert_eq!((connect.len(), answer.datagram.len()), (16, 16));
        assert_eq!(lab.tracker.scrape(lab.now, &[OURS])[0].leechers, 1);
    }

    #[test]
    fn a_crowd_fits_into_one_packet() {
        let mut lab = Lab::new();
        for n in 0..600u16 {
            let [high, low] = n.to_be_bytes();
            for ip in [format!("10.1.{high}.{low}"), format!("fd00::{n:x}")] {
                let mut id = [7; 20];
                id[..2].copy_from_slice(&n.to_be_bytes());
                lab.join(&ip, Announce { peer_id: PeerId(id), ..told(0, 9, None) });
            }
        }
        for (from, most) in [("10.0.0.2", 200), ("fd01::2", 67)] {
            let announce = Announce { numwant: Some(5000), ..told(9, 9, None) };
            let reply = lab.join(from, announce);
            assert_eq!(reply.peers.len(), most);
            let different: std::collections::BTreeSet<_> = reply.peers.iter().collect();
            assert_eq!(different.len(), most);
        }
    }

    proptest! {
        /// Whatever comes: no panic, no answer of more than a packet, and before the address is proven
        /// none of more bytes than came.
        #[test]
        fn any_datagram_is_answered_within_bounds(
            connection in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
            action in 0u32..5, rest in prop::collection::vec(any::<u8>(), 0..1600), v6: bool, magic: bool,
        ) {
            let mut lab = Lab::new();
            let from = if v6 { "fd00::2" } else { "10.0.0.2" };
            let proven = lab.connect(from);
            let first = if magic { 0x0417_2710_1980 } else { connection.unwrap_or(proven) };
            let mut datagram = first.to_be_bytes().to_vec();
            datagram.extend(action.to_be_bytes());
            datagram.extend(rest);
            let answer = lab.send(from, &datagram);
            let len = answer.map_or(0, |answer| answer.datagram.len());
            prop_assert!(len <= REPLY_BYTES_MAX);
            if first != proven {
                prop_assert!(len <= datagram.len());
            }
        }

        #[test]
        fn ids_differ_by_address(a: u32, b: u32) {
            prop_assume!(a != b);
            let udp = UdpTracker::new([3; 32], Instant::now());
            let id = |ip: u32| udp.connection(Ipv4Addr::from_bits(ip).into(), 0);
            prop_assert_ne!(id(a), id(b));
            let mapped: Ipv6Addr = Ipv4Addr::from_bits(a).to_ipv6_mapped();
            prop_assert_eq!(id(a), udp.connection(SocketAddr::from((mapped, 1)).ip(), 0));
        }
    }
}
