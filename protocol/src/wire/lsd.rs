//! Local service discovery (BEP 14): a datagram to everybody on the link that names torrents and the
//! port where their peer listens.

use crate::ids::InfoHash;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where it is sent over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
/// Where it is sent over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);
/// The port of both.
pub const PORT: u16 = 6771;

/// Torrents named in one datagram at most: with them it fits into any packet.
pub const HASHES_MAX: usize = 20;
/// What is read of a datagram: BEP 14 asks for less than 1400 bytes.
pub const DATAGRAM_BYTES_MAX: usize = 1500;
/// A longer cookie is nobody's.
const COOKIE_BYTES_MAX: usize = 64;

const FIRST_LINE: &str = "BT-SEARCH * HTTP/1.1";

/// Somebody on the link has these torrents, or wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where it listens, at the address that the datagram came from; not 0.
    pub port: u16,
    /// 20-byte info-hashes, one to [`HASHES_MAX`].
    pub hashes: Vec<InfoHash>,
    /// What the sender knows its own announcements by: printable, without spaces at its ends.
    pub cookie: Option<String>,
}

impl Announcement {
    /// The datagram for the group at `to`.
    pub fn encode(&self, to: SocketAddr) -> Vec<u8> {
        let to = SocketAddr::new(to.ip(), to.port()); // Without the scope, which means nothing to others.
        let mut text = format!("{FIRST_LINE}\r\nHost: {to}\r\nPort: {}\r\n", self.port);
        for hash in self.hashes.iter().take(HASHES_MAX) {
            write!(text, "Infohash: {hash}\r\n").expect("writing to a String cannot fail");
        }
        if let Some(cookie) = &self.cookie {
            write!(text, "cookie: {cookie}\r\n").expect("writing to a String cannot fail");
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }

    /// Reads a datagram; `None` for anything but a well-formed announcement of at least one torrent.
    /// Of more than [`HASHES_MAX`] the first count.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        let mut lines = std::str::from_utf8(datagram).ok()?.split("\r\n");
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let (mut port, mut hashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("port") {
                port = Some(value.parse::<u16>().ok().filter(|port| *port != 0)?);
            } else if name.eq_ignore_ascii_case("infohash") {
                let hash = InfoHash::from_hex(value)?;
                if hashes.len() < HASHES_MAX && !hashes.contains(&hash) {
                    hashes.push(hash);
                }
            } else if name.eq_ignore_ascii_case("cookie") && value.len() <= COOKIE_BYTES_MAX {
                cookie = Some(value.to_owned());
            }
        }
        (!hashes.is_empty()).then_some(Self { port: port?, hashes, cookie })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(GROUP_V4), PORT);

    #[test]
    fn as_the_standard_has_it() {
        let said = Announcement {
            port: 6881,
            hashes: vec![InfoHash([0xab; 20])],
            cookie: Some("1f".into()),
        };
        let text = "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
                    Infohash: abababababababababababababababababababab\r\ncookie: 1f\r\n\r\n\r\n";
        assert_eq!(said.encode(TO), text.as_bytes());
        assert_eq!(Announcement::parse(text.as_bytes()), Some(said.clone()));
        let v6 = std::net::SocketAddrV6::new(GROUP_V6, PORT, 0, 7).into();
        let text = String::from_utf8(said.encode(v6)).unwrap();
        assert!(text.contains("\r\nHost: [ff15::efc0:988f]:6771\r\n"), "{text}");
    }

    #[test]
    fn others_write_it_their_way() {
        let hash = "AB".repeat(20);
        let check = |rest: &str, expected: Option<(u16, usize, Option<&str>)>| {
            let parsed = Announcement::parse(format!("BT-SEARCH * HTTP/1.1\r\n{rest}").as_bytes());
            let seen = parsed.as_ref().map(|p| (p.port, p.hashes.len(), p.cookie.as_deref()));
            assert_eq!(seen, expected, "{rest:?}");
        };
        check(&format!("PORT:1\r\ninfohash:{hash}\r\n\r\n"), Some((1, 1, None)));
        check(
            &format!("infohash: {hash}\r\nX-Other: y\r\nport: 65535\r\n"),
            Some((65535, 1, None)),
        );
        check(
            &format!("port: 1\r\nInfohash: {hash}\r\nInfohash: {hash}\r\n\r\n"),
            Some((1, 1, None)),
        );
        check(&format!("port: 1\r\ninfohash: {hash}\r\n\r\nport: 2\r\n"), Some((1, 1, None)));
        let long = "c".repeat(65);
        check(&format!("port: 1\r\ninfohash: {hash}\r\ncookie: {long}\r\n"), Some((1, 1, None)));
        for bad in [
            String::new(),
            "port: 1\r\n\r\n".into(),
            format!("infohash: {hash}\r\n\r\n"),
            format!("port: 0\r\ninfohash: {hash}\r\n\r\n"),
            format!("port: 65536\r\ninfohash: {hash}\r\n\r\n"),
            format!("port: -1\r\ninfohash: {hash}\r\n\r\n"),
            format!("port: 1\r\ninfohash: {}\r\n\r\n", &hash[1..]),
            format!("port: 1\r\ninfohash: {}\r\n\r\n", hash.replace('A', "g")),
            format!("port: 1\r\nno colon\r\ninfohash: {hash}\r\n\r\n"),
        ] {
            check(&bad, None);
        }
        assert_eq!(Announcement::parse(b"M-SEARCH * HTTP/1.1\r\n\r\n"), None);
        assert_eq!(Announcement::parse(&[0xff; 100]), None);
        assert_eq!(Announcement::parse(&vec![b'a'; DATAGRAM_BYTES_MAX + 1]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            port in 1u16..,
            hashes in prop::collection::btree_set(any::<[u8; 20]>(), 1..=HASHES_MAX),
            cookie in prop::option::of("[0-9a-f]{1,64}"),
        ) {
            let hashes = hashes.into_iter().map(InfoHash).collect();
            let said = Announcement { port, hashes, cookie };
            let datagram = said.encode(TO);
            prop_assert!(datagram.len() < 1400);
            prop_assert_eq!(Announcement::parse(&datagram), Some(said));
        }

        #[test]
        fn no_datagram_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
            let _ = Announcement::parse(&bytes);
            let hashes = vec![InfoHash([1; 20]); 2];
            let mut like = Announcement { port: 1, hashes, cookie: None }.encode(TO);
            like.truncate(cut);
            like.append(&mut bytes);
            let _ = Announcement::parse(&like);
        }
    }
}
