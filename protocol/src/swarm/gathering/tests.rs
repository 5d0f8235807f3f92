//! Searches against engines that seed, and against peers that are words.

use super::*;
use crate::bitfield::Bitfield;
use crate::ids::{InfoHash, InfoHashV2, PeerId};
use crate::metainfo::create::Format;
use crate::policy::limiter::Limiter;
use crate::policy::picker::Priority;
use crate::policy::transport::Transport;
use crate::swarm::tests::plain_config;
use crate::swarm::{Config, Input, Output};
use crate::wire::extension::ExtensionHandshake;
use crate::wire::handshake::Abilities;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A folder of a large file, a small one and an empty one: the first has a layer of 1200 pieces.
fn torrent(format: Format) -> Info {
    use crate::metainfo::create::Options;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("game");
    std::fs::create_dir(&source).unwrap();
    let mut bytes = vec![0; 1200 * 16_384 - 5];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    std::fs::write(source.join("large"), &bytes).unwrap();
    std::fs::write(source.join("middle"), &bytes[..40_000]).unwrap();
    std::fs::write(source.join("small"), &bytes[..10]).unwrap();
    std::fs::write(source.join("empty"), []).unwrap();
    let source = crate::io::create::scan(&source).unwrap();
    let options = Options { format, piece_length: Some(16_384), ..Options::default() };
    crate::io::create::create(&source, &options, &|_, _| {}).unwrap().info
}

fn link(hashes: InfoHashes) -> Swarm {
    let geometry = crate::geometry::Geometry::new(16_384, 0, Vec::new()).unwrap();
    let config = Config { peer_id: PeerId([0; 20]), link: Some(hashes), ..plain_config() };
    Swarm::new(config, Arc::new(geometry), &Bitfield::empty(0), Vec::new())
}

fn seed(info: &Arc<Info>, id: u8) -> Swarm {
    let count = info.geometry.piece_count();
    let geometry = Arc::new(info.geometry.clone());
    let config =
        Config { peer_id: PeerId([id; 20]), info: Some(Arc::clone(info)), ..plain_config() };
    Swarm::new(
        config,
        geometry,
        &Bitfield::full(count),
        vec![Priority::NORMAL; info.geometry.piece_count() as usize],
    )
}

/// What a peer makes of a message that it would answer with: `None` for nothing at all.
type Twist = fn(Message) -> Option<Message>;

/// A search among seeds, each of which twists its answers.
struct Play {
    search: Swarm,
    seeds: BTreeMap<PeerKey, (Swarm, Twist)>,
    limiter: Limiter,
    now: Duration,
    banned: Vec<PeerKey>,
    described: u32,
}

impl Play {
    fn new(hashes: InfoHashes, info: &Arc<Info>, twists: &[Twist]) -> Self {
        let mut play = Self {
            search: link(hashes),
            seeds: BTreeMap::new(),
            limiter: Limiter::new(None, None),
            now: Duration::from_secs(1),
            banned: Vec::new(),
            described: 0,
        };
        for (at, &twist) in (1..).zip(twists) {
            let id = u8::try_from(at).unwrap();
            play.seeds.insert(PeerKey(at), (seed(info, id), twist));
        }
        let keys: Vec<PeerKey> = play.seeds.keys().copied().collect();
        for key in keys {
            let connected = |peer, id, outgoing, at: u8| Input::Connected {
                peer,
                addr: ([10, 0, 0, at], 1).into(),
                outgoing,
                id: PeerId([id; 20]),
                abilities: Abilities { extensions: true, fast: true, v2: true, dht: false },
                lan: true,
                transport: Transport::Tcp,
            };
            let id = u8::try_from(key.0).unwrap();
            let (seed, _) = play.seeds.get_mut(&key).unwrap();
            seed.handle(play.now, &mut play.limiter, connected(PeerKey(0), 0, false, 200));
            let input = connected(key, id, true, id);
            play.search.handle(play.now, &mut play.limiter, input);
        }
        play
    }

    /// Carries messages until there is none, then lets a second pass, until the torrent is known.
    fn run(&mut self, seconds: u64) -> Option<Result<Description, DescriptionError>> {
        let end = self.now + Duration::from_secs(seconds);
        while self.described == 0 && self.now < end {
            while self.carry() {}
            self.now += Duration::from_secs(1);
            self.search.handle(self.now, &mut self.limiter, Input::Timeout);
        }
        while self.carry() {}
        self.search.description()
    }

    fn carry(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.search.poll() {
            moved = true;
            match output {
                Output::Send { peer, message } => {
                    if let Some((seed, _)) = self.seeds.get_mut(&peer) {
                        let input = Input::Received { peer: PeerKey(0), message };
                        seed.handle(self.now, &mut self.limiter, input);
                    }
                }
                Output::Close { peer } => {
                    self.seeds.remove(&peer);
                }
                Output::Event(Event::PeerBanned { addr, .. }) => {
                    let std::net::IpAddr::V4(ip) = addr.ip() else { unreachable!() };
                    self.banned.push(PeerKey(ip.octets()[3].into()));
                }
                Output::Event(Event::Described) => self.described += 1,
                _ => {}
            }
        }
        let mut answers = Vec::new();
        for (&peer, (seed, twist)) in &mut self.seeds {
            while let Some(output) = seed.poll() {
                moved = true;
                if let Output::Send { message, .. } = output {
                    answers.extend(twist(message).map(|message| Input::Received { peer, message }));
                }
            }
        }
        for answer in answers {
            self.search.handle(self.now, &mut self.limiter, answer);
        }
        moved
    }
}

fn honest(message: Message) -> Option<Message> {
    Some(message)
}

fn is_metadata(message: &Message) -> bool {
    matches!(message, Message::Extended { id: ours::METADATA, .. })
}

fn twist_metadata(message: Message, twist: fn(u32, u32, Bytes) -> (u32, Bytes)) -> Option<Message> {
    match &message {
        Message::Extended { id: ours::METADATA, payload } => {
            match MetadataMessage::parse(payload) {
                Some(MetadataMessage::Data { piece, total, data }) => {
                    let (total, data) = twist(piece, total, data);
                    let payload = MetadataMessage::Data { piece, total, data }.encode();
                    Some(Message::Extended { id: ours::METADATA, payload })
                }
                _ => Some(message),
            }
        }
        _ => Some(message),
    }
}

fn wrong_bytes(message: Message) -> Option<Message> {
    twist_metadata(message, |_, total, data| (total, vec![7; data.len()].into()))
}

fn short_piece(message: Message) -> Option<Message> {
    twist_metadata(message, |_, total, data| (total, data.slice(1..)))
}

fn other_total(message: Message) -> Option<Message> {
    twist_metadata(message, |_, total, data| (total + 1, data))
}

fn says_nothing_of_metadata(message: Message) -> Option<Message> {
    (!is_metadata(&message)).then_some(message)
}

fn refuses_metadata(message: Message) -> Option<Message> {
    if !is_metadata(&message) {
        return Some(message);
    }
    let payload = MetadataMessage::Reject { piece: 0 }.encode();
    Some(Message::Extended { id: ours::METADATA, payload })
}

fn other_size(message: Message) -> Option<Message> {
    match message {
        Message::Extended { id: 0, payload } => {
            let hello = ExtensionHandshake::parse(&payload).unwrap();
            let size = hello.metadata_size.map(|size| size + 16_384);
            let payload = ExtensionHandshake { metadata_size: size, ..hello }.encode();
            Some(Message::Extended { id: 0, payload })
        }
        other => Some(other),
    }
}

fn wrong_hashes(message: Message) -> Option<Message> {
    match message {
        Message::Hashes { range, hashes } => {
            let mut bytes = hashes.to_vec();
            bytes[40] ^= 1;
            Some(Message::Hashes { range, hashes: bytes.into() })
        }
        other => Some(other),
    }
}

fn too_few_hashes(message: Message) -> Option<Message> {
    match message {
        Message::Hashes { range, hashes } => {
            Some(Message::Hashes { range, hashes: hashes.slice(32..) })
        }
        other => Some(other),
    }
}

fn refuses_hashes(message: Message) -> Option<Message> {
    match message {
        Message::Hashes { range, .. } => Some(Message::HashReject(range)),
        other => Some(other),
    }
}

fn keeps_hashes(message: Message) -> Option<Message> {
    (!matches!(message, Message::Hashes { .. })).then_some(message)
}

fn check(hashes: InfoHashes, info: &Arc<Info>, twists: &[Twist], banned: &[u32]) {
    let mut play = Play::new(hashes, info, twists);
    let found = play.run(200).expect("the torrent is found").expect("it can be used");
    assert_eq!(found.info.raw, info.raw);
    assert_eq!(found.info.hashes, info.hashes);
    if info.is_v2() && hashes.v2.is_none() {
        assert!(found.info.lacks_layers());
    } else {
        assert_eq!(found.info.files, info.files, "with all its layers");
    }
    assert_eq!(play.described, 1);
    play.banned.sort();
    let banned: Vec<PeerKey> = banned.iter().map(|&peer| PeerKey(peer)).collect();
    assert_eq!(play.banned, banned);
    assert_eq!(found.peers.len(), play.seeds.len());
}

#[test]
fn every_kind_by_each_of_its_names() {
    for format in [Format::V1, Format::V2, Format::Hybrid] {
        let info = Arc::new(torrent(format));
        let InfoHashes { v1, v2 } = info.hashes;
        for hashes in [info.hashes, InfoHashes { v1, v2: None }, InfoHashes { v1: None, v2 }] {
            if hashes.v1.is_some() || hashes.v2.is_some() {
                check(hashes, &info, &[honest], &[]);
                check(hashes, &info, &[honest, honest, honest], &[]);
            }
        }
    }
}

#[test]
fn liars_go_and_the_silent_hold_nobody_up() {
    let info = Arc::new(torrent(Format::Hybrid));
    let twists: &[Twist] = &[
        wrong_bytes,
        short_piece,
        other_total,
        says_nothing_of_metadata,
        refuses_metadata,
        honest,
    ];
    check(info.hashes, &info, twists, &[1, 2, 3]);
    // Somebody who is asked for nothing it lied about stays.
    let twists: &[Twist] = &[wrong_hashes, too_few_hashes, refuses_hashes, keeps_hashes, honest];
    check(info.hashes, &info, twists, &[1, 2]);
}

#[test]
fn a_wrong_length_alone_is_a_lie() {
    let info = Arc::new(torrent(Format::V1));
    check(info.hashes, &info, &[other_size, honest], &[1]);
}

#[test]
fn who_has_only_liars_finds_nothing() {
    let info = Arc::new(torrent(Format::V2));
    let twists: &[Twist] = &[wrong_bytes, refuses_metadata, says_nothing_of_metadata];
    let mut play = Play::new(info.hashes, &info, twists);
    assert!(play.run(100).is_none());
    assert_eq!(play.banned, [PeerKey(1)]);
    let mut play = Play::new(info.hashes, &info, &[keeps_hashes, refuses_hashes]);
    assert!(play.run(100).is_none());
    assert!(play.banned.is_empty());
}

#[test]
fn a_truncated_hash_alone_does_not_do() {
    let info = Arc::new(torrent(Format::V2));
    let mut other = info.hashes.v2.unwrap();
    other.0[31] ^= 1;
    let hashes = InfoHashes { v1: None, v2: Some(InfoHashV2(other.0)) };
    assert_eq!(hashes.best(), info.hashes.best());
    let mut play = Play::new(hashes, &info, &[honest]);
    assert!(play.run(60).is_none());
    assert_eq!(play.banned, [PeerKey(1)]);
}

#[test]
fn what_is_found_may_be_of_no_use() {
    use sha1::{Digest as _, Sha1};
    use sha2::Sha256;
    let info = torrent(Format::V2);
    let find = |raw: Bytes, hashes: InfoHashes| {
        let mut gathering = Gathering::new(hashes);
        gathering.on_dictionary(raw);
        let Stage::Done(result) = gathering.stage else { panic!("it goes on") };
        result.unwrap_err()
    };
    let v1 = |raw: &[u8]| InfoHashes { v1: Some(InfoHash(Sha1::digest(raw).into())), v2: None };
    assert_eq!(find(info.raw.clone(), v1(&info.raw)), DescriptionError::OtherHashes);
    let other = b"d4:name1:xe";
    let hashes = InfoHashes { v1: None, v2: Some(InfoHashV2(Sha256::digest(other).into())) };
    let error = find(Bytes::from_static(other), hashes);
    assert!(matches!(error, DescriptionError::Malformed(_)), "{error}");
    let private =
        b"d6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa7:privatei1ee";
    assert_eq!(find(Bytes::from_static(private), v1(private)), DescriptionError::Private);
}
