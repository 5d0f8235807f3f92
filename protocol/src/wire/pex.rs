//! Peer exchange (BEP 11): addresses of peers that the sender is connected to.

use super::tracker::unpack;
use crate::bencode::{self, Value, encode_dict};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// The name of the extension.
pub const NAME: &str = "ut_pex";
/// Addresses told in one message at most, and as many that are taken back.
pub const ADDED_MAX: usize = 50;
/// Addresses read from one message at most: a first one may be larger (BEP 11).
pub const READ_MAX: usize = 100;

const SEED: u8 = 0x02;
const REACHABLE: u8 = 0x10;
/// Not of BEP 11: between our own clients.
const QUIC: u8 = 0x80;

/// A peer, as somebody connected to it tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// Where it listens.
    pub addr: SocketAddr,
    /// It wants nothing any more.
    pub seed: bool,
    /// The sender dialled it.
    pub reachable: bool,
    /// It has QUIC, at the UDP port of the same number.
    pub quic: bool,
}

/// One message: what changed since the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// Connected now.
    pub added: Vec<Contact>,
    /// No longer connected.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let (mut v4, mut v6) = (Packed::default(), Packed::default());
        for contact in &self.added {
            let packed = if contact.addr.is_ipv4() { &mut v4 } else { &mut v6 };
            pack(contact.addr, &mut packed.added);
            let (seed, reachable) = (u8::from(contact.seed), u8::from(contact.reachable));
            let quic = u8::from(contact.quic);
            packed.flags.push((seed * SEED) | (reachable * REACHABLE) | (quic * QUIC));
        }
        for addr in &self.dropped {
            pack(*addr, if addr.is_ipv4() { &mut v4.dropped } else { &mut v6.dropped });
        }
        Bytes::from(encode_dict(|dict| {
            dict.key(b"added").bytes(&v4.added);
            dict.key(b"added.f").bytes(&v4.flags);
            if !v6.added.is_empty() {
                dict.key(b"added6").bytes(&v6.added);
                dict.key(b"added6.f").bytes(&v6.flags);
            }
            dict.key(b"dropped").bytes(&v4.dropped);
            if !v6.dropped.is_empty() {
                dict.key(b"dropped6").bytes(&v6.dropped);
            }
        }))
    }

    /// Reads what a peer sent, at most [`READ_MAX`] addresses of each kind; `None` if it makes no
    /// sense. Which of the addresses are to be believed is not decided here.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (value, _) = bencode::parse_prefix(payload).ok()?;
        let dict = value.dict()?;
        let text = |key: &[u8]| dict.get(key).and_then(Value::bytes).unwrap_or_default();
        let (mut v4, mut v6, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        unpack::<6>(text(b"added"), &mut v4).ok()?;
        unpack::<18>(text(b"added6"), &mut v6).ok()?;
        unpack::<6>(text(b"dropped"), &mut dropped).ok()?;
        unpack::<18>(text(b"dropped6"), &mut dropped).ok()?;
        let contacts = |addrs: Vec<SocketAddr>, flags: &[u8]| -> Vec<Contact> {
            let flags = flags.iter().copied().chain(std::iter::repeat(0));
            let contact = |(addr, flags): (SocketAddr, u8)| Contact {
                addr,
                seed: flags & SEED != 0,
                reachable: flags & REACHABLE != 0,
                quic: flags & QUIC != 0,
            };
            addrs.into_iter().zip(flags).map(contact).collect()
        };
        let mut added = contacts(v4, text(b"added.f"));
        added.extend(contacts(v6, text(b"added6.f")));
        added.truncate(READ_MAX);
        dropped.truncate(READ_MAX);
        Some(Self { added, dropped })
    }
}

/// The peers of one family.
#[derive(Default)]
struct Packed {
    added: Vec<u8>,
    flags: Vec<u8>,
    dropped: Vec<u8>,
}

fn pack(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn contact(addr: &str, seed: bool, reachable: bool) -> Contact {
        Contact { addr: addr.parse().unwrap(), seed, reachable, quic: false }
    }

    /// Written out by hand from BEP 11.
    #[test]
    fn a_message_byte_by_byte() {
        let message = PexMessage {
            added: vec![
                contact("[2001:db8::1]:6", false, true),
                contact("1.2.3.4:5", true, true),
                contact("5.6.7.8:9", false, false),
            ],
            dropped: vec!["[::1]:2".parse().unwrap(), "9.9.9.9:9".parse().unwrap()],
        };
        let expected: &[u8] = b"d5:added12:\x01\x02\x03\x04\0\x05\x05\x06\x07\x08\0\x097:added.f2:\x12\0\
            6:added618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x068:added6.f1:\x10\
            7:dropped6:\x09\x09\x09\x09\0\x098:dropped618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x02e";
        assert_eq!(message.encode(), expected);
    }

    #[test]
    fn odd_messages() {
        let parse = |payload: &[u8]| PexMessage::parse(payload);
        assert_eq!(parse(b"de"), Some(PexMessage::default()));
        let bare = parse(b"d5:added6:\x01\x02\x03\x04\0\x05e").unwrap();
        assert_eq!(bare.added, [contact("1.2.3.4:5", false, false)], "flags are optional");
        for bad in [&b"d5:added5:abcdee"[..], b"d8:dropped62:abe", b"le", b"", b"d5:added"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        let mut flood = b"d5:added6000:".to_vec();
        flood.extend(
            (0u16..1000).flat_map(|n| [1, 2, n.to_be_bytes()[0], n.to_be_bytes()[1], 0, 9]),
        );
        flood.push(b'e');
        assert_eq!(parse(&flood).unwrap().added.len(), READ_MAX);
    }

    proptest! {
        #[test]
        fn messages_come_over_unchanged(
            v4 in prop::collection::vec((any::<u32>(), any::<u16>(), any::<[bool; 3]>()), 0..25),
            v6 in prop::collection::vec((any::<u64>(), any::<u16>(), any::<[bool; 3]>()), 0..25),
        ) {
            let mut added: Vec<Contact> = v4.into_iter().map(|(ip, port, [seed, reachable, quic])| Contact {
                addr: (Ipv4Addr::from_bits(ip), port).into(), seed, reachable, quic,
            }).collect();
            added.extend(v6.into_iter().map(|(ip, port, [seed, reachable, quic])| Contact {
                addr: (Ipv6Addr::from_bits((1 << 120) | u128::from(ip)), port).into(), seed, reachable, quic,
            }));
            let dropped = added.iter().map(|contact| contact.addr).collect();
            let said = PexMessage { added, dropped };
            prop_assert_eq!(PexMessage::parse(&said.encode()), Some(said));
        }

        #[test]
        fn no_payload_breaks_the_reader(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PexMessage::parse(&payload);
        }
    }
}
