//! What strangers send: peers, trackers, the local network, links and torrents from anywhere.

use super::{corpus, fuzz};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use updraft_protocol::bencode;
use updraft_protocol::metainfo::Metainfo;
use updraft_protocol::metainfo::magnet::{MAGNET_BYTES_MAX, Magnet};
use updraft_protocol::wire::documents::DocumentMessage;
use updraft_protocol::wire::extension::{ExtensionHandshake, MetadataMessage};
use updraft_protocol::wire::handshake::Handshake;
use updraft_protocol::wire::lsd::Announcement;
use updraft_protocol::wire::message::{self, Message};
use updraft_protocol::wire::parcel;
use updraft_protocol::wire::pex::PexMessage;
use updraft_protocol::wire::tracker::{Announce, AnnounceReply, parse_scrape, parse_scrape_query};
use updraft_protocol::wire::udp_tracker::{Family, UdpReply, UdpRequest};

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Torrents that the parser's own tests take and refuse.
fn torrents() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/torrents/accept");
    let entries =
        std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("listed").path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    let foreign = paths.iter().map(|path| std::fs::read(path).expect("it can be read"));
    foreign.filter(|bytes| bytes.len() < 1 << 16).chain(corpus("torrent")).collect()
}

#[test]
fn bencoded_values() {
    fuzz("bencode", torrents(), |bytes| {
        let _ = bencode::parse_prefix_bounded(bytes, 1000);
        bencode::parse(bytes).is_ok()
    });
}

#[test]
fn torrent_files() {
    fuzz("torrent", torrents(), |bytes| {
        let Ok(torrent) = Metainfo::parse(bytes) else { return false };
        let again = Metainfo::parse(&torrent.encode()).expect("it reads its own");
        assert_eq!(again.info.hashes, torrent.info.hashes);
        assert_eq!(again.encode(), torrent.encode());
        true
    });
}

#[test]
fn magnet_links() {
    fuzz("magnet", corpus("magnet"), |bytes| {
        let Some(Ok(magnet)) = text(bytes).map(Magnet::parse) else { return false };
        let link = magnet.to_string();
        // Escapes may make it longer than what is read.
        assert!(link.len() > MAGNET_BYTES_MAX || Magnet::parse(&link) == Ok(magnet), "{link}");
        true
    });
}

#[test]
fn handshakes() {
    fuzz("handshake", corpus("handshake"), |bytes| {
        let Some(bytes) = bytes.first_chunk() else { return false };
        Handshake::parse(bytes).is_ok()
    });
}

#[test]
fn peer_messages() {
    fuzz("message", corpus("message"), |bytes| {
        let _ = message::frame_len(bytes);
        let Ok(read) = message::decode(&Bytes::copy_from_slice(bytes)) else { return false };
        if !matches!(read, Message::Unknown(_)) {
            let mut out = BytesMut::new();
            message::encode(&read, &mut out);
            if let Message::Piece { data, .. } = &read {
                out.extend_from_slice(data); // The encoder leaves it to the socket.
            }
            let len = message::frame_len(&out).expect("it fits").expect("it has a length");
            assert_eq!((len, message::decode(&out.split_off(4).freeze())), (len, Ok(read)));
        }
        true
    });
}

#[test]
fn extension_handshakes() {
    fuzz("extension", corpus("extension"), |bytes| {
        let Some(read) = ExtensionHandshake::parse(bytes) else { return false };
        assert!(ExtensionHandshake::parse(&read.encode()).is_some());
        true
    });
}

#[test]
fn metadata_messages() {
    fuzz("metadata", corpus("metadata"), |bytes| {
        let Some(read) = MetadataMessage::parse(&Bytes::copy_from_slice(bytes)) else {
            return false;
        };
        assert_eq!(MetadataMessage::parse(&read.encode()), Some(read));
        true
    });
}

#[test]
fn document_messages() {
    fuzz("documents", corpus("documents"), |bytes| {
        let Some(read) = DocumentMessage::parse(&Bytes::copy_from_slice(bytes)) else {
            return false;
        };
        assert_eq!(DocumentMessage::parse(&read.encode()), Some(read));
        true
    });
}

#[test]
fn peer_exchange() {
    fuzz("pex", corpus("pex"), |bytes| {
        let Some(read) = PexMessage::parse(bytes) else { return false };
        let again = PexMessage::parse(&read.encode()).expect("it reads its own");
        assert_eq!(
            (again.added.len(), again.dropped.len()),
            (read.added.len(), read.dropped.len())
        );
        true
    });
}

#[test]
fn parcels() {
    fuzz("parcel", corpus("parcel"), |bytes| {
        let Ok(blocks) = parcel::parse(&Bytes::copy_from_slice(bytes)) else { return false };
        assert!(blocks.iter().all(|(block, bytes)| block.len as usize == bytes.len()));
        true
    });
}

#[test]
fn local_announcements() {
    let to = SocketAddr::from(([239, 192, 152, 143], 6771));
    fuzz("lsd", corpus("lsd"), |bytes| {
        let Some(read) = Announcement::parse(bytes) else { return false };
        assert_eq!(Announcement::parse(&read.encode(to)), Some(read));
        true
    });
}

#[test]
fn announces() {
    fuzz("announce-query", corpus("announce-query"), |bytes| {
        let Some(query) = text(bytes) else { return false };
        let _ = parse_scrape_query(query);
        let Ok(read) = Announce::parse(query) else { return false };
        let url = url::Url::parse("http://t.example/announce").expect("it is a URL");
        let again = Announce::parse(read.url(&url).query().expect("it has one"));
        assert_eq!(again, Ok(read));
        true
    });
}

#[test]
fn answers_of_trackers() {
    fuzz("announce-reply", corpus("announce-reply"), |bytes| {
        let Ok(read) = AnnounceReply::parse(bytes) else { return false };
        let again = AnnounceReply::parse(&read.encode()).expect("it reads its own");
        assert_eq!((again.interval_s, again.tracker_id), (read.interval_s, read.tracker_id));
        true
    });
    fuzz("scrape-reply", corpus("scrape-reply"), |bytes| parse_scrape(bytes).is_ok());
}

#[test]
fn datagrams_of_trackers() {
    fuzz("udp-request", corpus("udp-request"), |bytes| UdpRequest::parse(bytes).is_some());
    fuzz("udp-reply", corpus("udp-reply"), |bytes| {
        let read = [Family::V4, Family::V6].map(|family| UdpReply::parse(bytes, family).is_some());
        read.contains(&true)
    });
}
