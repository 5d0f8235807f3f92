use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

const BYTES_MAX: usize = 1232;

fn announce() -> Announce {
    Announce {
        info_hash: InfoHash([0xaa; 20]),
        peer_id: PeerId([0xbb; 20]),
        ..crate::wire::tracker::tests::announce()
    }
}

/// Written out by hand from the tables of BEP 15 and BEP 41.
#[test]
fn requests_byte_by_byte() {
    let connect = UdpRequest::Connect { transaction: 0x0102_0304 };
    assert_eq!(connect.encode(None), b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x01\x02\x03\x04");

    let asked = UdpRequest::Announce { connection: 7, transaction: 9, announce: announce() };
    let mut expected = b"\0\0\0\0\0\0\0\x07\0\0\0\x01\0\0\0\x09".to_vec();
    expected.extend([[0xaa; 20], [0xbb; 20]].concat());
    expected.extend(b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01");
    expected.extend(b"\0\0\0\x02\0\0\0\0\x0a\x1b\x2c\x3d\0\0\0\x32\x1a\xe1");
    assert_eq!(expected.len(), ANNOUNCE_BYTES);
    assert_eq!(asked.encode(None), expected);
    let url = |text: &str| Url::parse(text).unwrap();
    assert_eq!(asked.encode(Some(&url("udp://t.example:80"))), expected);
    expected.extend(b"\x02\x0e/announce?k=ey");
    assert_eq!(asked.encode(Some(&url("udp://t.example:80/announce?k=ey"))), expected);
    assert_eq!(UdpRequest::parse(&expected), Some(asked.clone()), "options are passed over");
    let long = asked.encode(Some(&url(&format!("udp://t.example/{}", "x".repeat(299)))));
    assert_eq!((long[98], long[99], long[355], long[356]), (2, 255, 2, 45));
    let scrape =
        UdpRequest::Scrape { connection: 7, transaction: 9, hashes: vec![InfoHash([5; 20])] };
    assert_eq!(scrape.encode(None)[..16], *b"\0\0\0\0\0\0\0\x07\0\0\0\x02\0\0\0\x09");
}

#[test]
fn what_is_no_request_is_nothing() {
    let check = |datagram: &[u8]| assert_eq!(UdpRequest::parse(datagram), None, "{datagram:?}");
    check(b"");
    check(&[0; 16]); // A connect without the magic number.
    let whole = UdpRequest::Announce { connection: 7, transaction: 9, announce: announce() };
    let whole = whole.encode(None);
    (0..whole.len()).for_each(|len| check(&whole[..len]));
    check(&head(7, SCRAPE, 9)); // Everything: there is no such thing over UDP.
    check(&[head(7, SCRAPE, 9), vec![1; 19]].concat());
    check(&[head(7, SCRAPE, 9), vec![1; 20 * (SCRAPE_HASHES_MAX + 1)]].concat());
    check(&[head(7, 4, 9), vec![1; 100]].concat());
}

#[test]
fn answers_have_exact_lengths() {
    let whole = |reply: UdpReply, family| reply.encode(5, family, BYTES_MAX);
    let peers = vec!["1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap()];
    let reply = UdpReply::Announce(AnnounceReply { peers, ..AnnounceReply::default() });
    for (family, len) in [(Family::V4, 26), (Family::V6, 38)] {
        let datagram = whole(reply.clone(), family);
        assert_eq!(datagram.len(), len, "the peers of the other family are left out");
        for len in (0..20).chain(21..datagram.len()) {
            assert_eq!(UdpReply::parse(&datagram[..len], family), None, "{len}");
        }
    }
    let connect = whole(UdpReply::Connect { connection: 1 }, Family::V4);
    assert_eq!(UdpReply::parse(&connect[..15], Family::V4), None);
    assert_eq!(UdpReply::parse(&[&connect[..], b"x"].concat(), Family::V4), None);
    let scrape = whole(UdpReply::Scrape(vec![UdpScrape::default()]), Family::V4);
    assert_eq!(UdpReply::parse(&scrape[..19], Family::V4), None);
    let error = whole(UdpReply::Error("no\x1b[31m".into()), Family::V4);
    assert_eq!(UdpReply::parse(&error, Family::V4), Some((5, UdpReply::Error("no[31m".into()))));
}

#[test]
fn an_answer_never_outgrows_its_packet() {
    let v4 = |n: u32| SocketAddr::from((Ipv4Addr::from_bits(0x0101_0101 + n), 5));
    let v6 = |n: u32| SocketAddr::from((Ipv6Addr::from_bits((1 << 100) | u128::from(n)), 5));
    let peers = (0..2000).flat_map(|n| [v4(n), v6(n)]).collect();
    let reply = UdpReply::Announce(AnnounceReply { peers, ..AnnounceReply::default() });
    for (family, most) in [(Family::V4, 202), (Family::V6, 67)] {
        let datagram = reply.encode(5, family, BYTES_MAX);
        assert!(datagram.len() <= BYTES_MAX);
        let Some((5, UdpReply::Announce(heard))) = UdpReply::parse(&datagram, family) else {
            panic!("not an answer: {datagram:?}");
        };
        assert_eq!(heard.peers.len(), most);
    }
    assert_eq!(UdpReply::Error("x".repeat(9999)).encode(5, Family::V4, 100).len(), 100);
}

proptest! {
    #[test]
    fn requests_come_over_unchanged(
        connection: u64, transaction: u32, hash: [u8; 20], id: [u8; 20], port: u16,
        numbers: [u64; 3], event in 0usize..4, numwant in prop::option::of(0..=i32::MAX as u32), key: u32,
        hashes in prop::collection::vec(any::<[u8; 20]>(), 1..=SCRAPE_HASHES_MAX), path in "[a-z/]{0,600}",
    ) {
        let event = [None, Some(Event::Started), Some(Event::Completed), Some(Event::Stopped)][event];
        let announce = Announce {
            info_hash: InfoHash(hash), peer_id: PeerId(id), port, event, numwant,
            uploaded: numbers[0], downloaded: numbers[1], left: numbers[2],
            key: Some(format!("{key:08x}")), compact: true, tracker_id: None,
        };
        let hashes = hashes.into_iter().map(InfoHash).collect();
        let url = Url::parse(&format!("udp://t.example:1/{path}")).unwrap();
        for asked in [
            UdpRequest::Connect { transaction },
            UdpRequest::Announce { connection, transaction, announce },
            UdpRequest::Scrape { connection, transaction, hashes },
        ] {
            prop_assert_eq!(UdpRequest::parse(&asked.encode(Some(&url))), Some(asked));
        }
    }

    #[test]
    fn answers_come_over_unchanged(
        transaction: u32, connection: u64, counts: [u32; 3], v6: bool,
        ips in prop::collection::btree_set((any::<u32>(), 1u16..), 0..60),
        entries in prop::collection::vec(any::<[u32; 3]>(), 0..=SCRAPE_HASHES_MAX), text in "[ -~]{0,80}",
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let peers = ips.into_iter().map(|(ip, port)| match family {
            Family::V4 => SocketAddr::from((Ipv4Addr::from_bits(ip), port)),
            Family::V6 => SocketAddr::from((Ipv6Addr::from_bits((1 << 100) | u128::from(ip)), port)),
        }).collect();
        let entries = entries.into_iter()
            .map(|[seeders, completed, leechers]| UdpScrape { seeders, completed, leechers }).collect();
        for said in [
            UdpReply::Connect { connection },
            UdpReply::Announce(AnnounceReply {
                interval_s: counts[0], seeders: Some(counts[1]), leechers: Some(counts[2]), peers,
                ..AnnounceReply::default()
            }),
            UdpReply::Scrape(entries),
            UdpReply::Error(text),
        ] {
            let datagram = said.encode(transaction, family, BYTES_MAX);
            prop_assert_eq!(UdpReply::parse(&datagram, family), Some((transaction, said)));
        }
    }

    #[test]
    fn no_datagram_breaks_the_reader(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = UdpRequest::parse(&datagram);
        let _ = (UdpReply::parse(&datagram, Family::V4), UdpReply::parse(&datagram, Family::V6));
    }
}
