//! Whole sessions over loopback: real sockets, real files, real clocks.

use super::create;
use super::*;
use crate::geometry::Block;
use crate::ids::{InfoHash, PeerKey, PieceIndex};
use crate::metainfo::Info;
use crate::metainfo::create::{Format, Options};
use bytes::Bytes;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A build of a few files of odd sizes, and its torrent.
fn build(format: Format) -> (TempDir, Arc<Info>) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    for (name, len) in
        [("a/one.pak", 3_000_001), ("a/two.txt", 17), ("b.bin", 700_000), ("empty", 0)]
    {
        let path = dir.path().join("build").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
        std::fs::write(path, bytes).unwrap();
    }
    let source = create::scan(&dir.path().join("build")).unwrap();
    let options = Options { format, piece_length: Some(65_536), ..Options::default() };
    let metainfo = create::create(&source, &options, &|_, _| {}).unwrap();
    (dir, Arc::new(metainfo.info))
}

/// 96 MiB in many pieces.
fn large_build() -> (TempDir, Arc<Info>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("build")).unwrap();
    let mut bytes = vec![0; 96 << 20];
    fastrand::Rng::with_seed(8).fill(&mut bytes);
    std::fs::write(dir.path().join("build/large.pak"), bytes).unwrap();
    let source = create::scan(&dir.path().join("build")).unwrap();
    let options = Options { piece_length: Some(16_384), ..Options::default() };
    let metainfo = create::create(&source, &options, &|_, _| {}).unwrap();
    (dir, Arc::new(metainfo.info))
}

fn paths(info: &Info, base: &Path) -> Vec<PathBuf> {
    info.files
        .iter()
        .map(|file| file.path.iter().fold(base.to_owned(), |path, part| path.join(part)))
        .collect()
}

async fn session_on(listen: SocketAddr) -> Session {
    session_over(Preference::default(), listen).await
}

async fn session_over(transport: Preference, listen: SocketAddr) -> Session {
    let config = SessionConfig { listen: vec![listen], transport, ..SessionConfig::default() };
    Session::start(config).await.unwrap()
}

async fn session() -> Session {
    session_on((Ipv4Addr::LOCALHOST, 0).into()).await
}

async fn seed(session: &Session, info: &Arc<Info>, base: &Path) -> TorrentHandle {
    let add = AddTorrent {
        have: Have::Check,
        seed_only: true,
        ..AddTorrent::new(Arc::clone(info), paths(info, base))
    };
    let torrent = session.add(add).await.unwrap();
    timeout(PATIENCE, torrent.finished()).await.unwrap().unwrap();
    torrent
}

fn same(info: &Info, a: &Path, b: &Path) {
    for (left, right) in paths(info, a).iter().zip(paths(info, b)) {
        assert_eq!(
            std::fs::read(left).unwrap(),
            std::fs::read(&right).unwrap(),
            "{}",
            right.display()
        );
    }
}

/// Moves `build` from one session to the other, and compares. It must be seen to run over `transport`, if
/// that is not TCP.
async fn transfer(
    info: &Arc<Info>,
    build: &Path,
    [from, to]: [Session; 2],
    transport: Transport,
) -> Status {
    seed(&from, info, build).await;
    let target = tempfile::tempdir().unwrap();
    let add = AddTorrent {
        peers: from.listen_addrs().to_vec(),
        ..AddTorrent::new(Arc::clone(info), paths(info, target.path()))
    };
    let leech = to.add(add).await.unwrap();
    let seen = |status: &Status| match transport {
        Transport::Tcp => true,
        Transport::Utp => status.utp == 1,
        Transport::Quic => status.quic == 1,
    };
    timeout(PATIENCE, leech.status().wait_for(seen)).await.unwrap().unwrap();
    timeout(PATIENCE, leech.finished()).await.unwrap().unwrap();
    same(info, build, target.path());
    let status = leech.status().borrow().clone();
    from.stop().await;
    to.stop().await;
    status
}

async fn pair(format: Format, listen: SocketAddr) {
    let (dir, info) = build(format);
    let sessions = [session_on(listen).await, session_on(listen).await];
    let status = transfer(&info, &dir.path().join("build"), sessions, Transport::Tcp).await;
    assert_eq!(
        (status.phase, status.have_bytes, status.wasted),
        (Phase::Seeding, status.wanted_bytes, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_over_ipv4() {
    for format in [Format::V1, Format::V2, Format::Hybrid] {
        pair(format, (Ipv4Addr::LOCALHOST, 0).into()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6() {
    pair(Format::Hybrid, (Ipv6Addr::LOCALHOST, 0).into()).await;
}

/// Everybody is dialled by TCP at first, and met over QUIC once it says that it has it. TCP goes on serving
/// those who do not have it, or do not want it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_quic_where_both_have_it() {
    use Preference::{Now, Quic, Tcp};
    // Many times what fits a window, so that it lasts and flow control is at work.
    let (large, large_info) = large_build();
    let (small, small_info) = build(Format::Hybrid);
    let loopback: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    for listen in loopback {
        for (seeds, leeches) in [(Now, Quic), (Quic, Now), (Quic, Quic)] {
            let sessions = [session_over(seeds, listen).await, session_over(leeches, listen).await];
            transfer(&large_info, &large.path().join("build"), sessions, Transport::Quic).await;
        }
        for (seeds, leeches) in [(Now, Now), (Tcp, Quic), (Quic, Tcp)] {
            let sessions = [session_over(seeds, listen).await, session_over(leeches, listen).await];
            let origin = small.path().join("build");
            assert_eq!(transfer(&small_info, &origin, sessions, Transport::Tcp).await.quic, 0);
        }
    }
}

/// And by uTP, plainly and encrypted, as long as neither end goes without UDP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_utp_where_that_is_asked_for() {
    let (large, large_info) = large_build();
    let (small, small_info) = build(Format::Hybrid);
    let loopback: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    for listen in loopback {
        for encryption in [Encryption::Off, Encryption::Require] {
            let config = || SessionConfig {
                listen: vec![listen],
                transport: Preference::Utp,
                encryption,
                ..SessionConfig::default()
            };
            let from = Session::start(config()).await.unwrap();
            let sessions = [from, Session::start(config()).await.unwrap()];
            transfer(&large_info, &large.path().join("build"), sessions, Transport::Utp).await;
        }
        let from = session_over(Preference::Tcp, listen).await;
        let sessions = [from, session_over(Preference::Utp, listen).await];
        let origin = small.path().join("build");
        assert_eq!(transfer(&small_info, &origin, sessions, Transport::Tcp).await.utp, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_verified_is_not_fetched_again_and_moved_files_go_on_seeding() {
    let (dir, info) = build(Format::Hybrid);
    let (origin, target) = (dir.path().join("build"), dir.path().join("copy"));
    let from = session().await;
    seed(&from, &info, &origin).await;
    let add = |peers: Vec<SocketAddr>| AddTorrent {
        have: Have::Resume,
        resume: Some(dir.path().join("resume")),
        peers,
        ..AddTorrent::new(Arc::clone(&info), paths(&info, &target))
    };
    // Stopped in the middle.
    let to = session().await;
    to.set_limits(None, None).await;
    let leech = to.add(add(from.listen_addrs().to_vec())).await.unwrap();
    let mut events = leech.events();
    loop {
        if let TorrentEvent::PieceVerified(_) =
            timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
        {
            break;
        }
    }
    to.stop().await;
    let before = crate::io::storage::resume::load(
        &dir.path().join("resume"),
        &info.hashes,
        info.geometry.piece_count(),
    );
    assert!(!before.is_empty());
    // And again: what was there is kept.
    let to = session().await;
    let leech = to.add(add(from.listen_addrs().to_vec())).await.unwrap();
    timeout(PATIENCE, leech.finished()).await.unwrap().unwrap();
    let kept: u64 = before.iter().map(|piece| u64::from(info.geometry.data_len(piece))).sum();
    let mut status = leech.status();
    let fetched = status.borrow_and_update().down_peers;
    assert!(fetched + kept <= info.geometry.content_len(), "{fetched} + {kept}");
    same(&info, &origin, &target);
    leech.sync().await.unwrap();
    // The files move; a third session gets them from their new place.
    from.stop().await;
    let moved = dir.path().join("installed");
    std::fs::rename(&target, &moved).unwrap();
    leech.remap(paths(&info, &moved)).await;
    let third = session().await;
    let last = dir.path().join("third");
    let add = AddTorrent {
        peers: to.listen_addrs().to_vec(),
        ..AddTorrent::new(Arc::clone(&info), paths(&info, &last))
    };
    let leech = third.add(add).await.unwrap();
    timeout(PATIENCE, leech.finished()).await.unwrap().unwrap();
    same(&info, &moved, &last);
}

struct Shelf;

impl DocumentStore for Shelf {
    fn part(&self, path: &str, at: u32) -> Option<DocumentPart> {
        let document = (path == "head.toml").then(|| Bytes::from(vec![7; 300_000]))?;
        DocumentPart::of(&document, at)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_travel_at_a_rendezvous() {
    let (one, two) = (session().await, session().await);
    let hash = InfoHash([5; 20]);
    let _here = one.add_rendezvous(hash, Arc::new(Shelf), vec![], vec![]).await.unwrap();
    let there = two
        .add_rendezvous(hash, Arc::new(Shelf), vec![], one.listen_addrs().to_vec())
        .await
        .unwrap();
    let peer = timeout(PATIENCE, async {
        loop {
            if let Some(peer) = there.peers().await.iter().find(|peer| peer.documents) {
                break peer.peer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let peer = peer.await.unwrap();
    let document = timeout(PATIENCE, there.request_document(peer, "head.toml")).await.unwrap();
    assert_eq!(document.unwrap().len(), 300_000);
    assert_eq!(timeout(PATIENCE, there.request_document(peer, "root/9.toml")).await.unwrap(), None);
    let nobody = PeerKey(u32::MAX);
    assert_eq!(timeout(PATIENCE, there.request_document(nobody, "head.toml")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_changed_behind_our_back_is_not_served() {
    let (dir, info) = build(Format::V2);
    let (origin, target) = (dir.path().join("build"), dir.path().join("copy"));
    let (bad, good) = (session().await, session().await);
    // Said to be right, and is not.
    let claimed = dir.path().join("claimed");
    std::fs::create_dir_all(claimed.join("a")).unwrap();
    for (from, to) in paths(&info, &origin).iter().zip(paths(&info, &claimed)) {
        std::fs::copy(from, to).unwrap();
    }
    let mut bytes = std::fs::read(claimed.join("a/one.pak")).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(claimed.join("a/one.pak"), bytes).unwrap();
    let add = AddTorrent {
        have: Have::Files(vec![true; info.files.len()]),
        seed_only: true,
        ..AddTorrent::new(Arc::clone(&info), paths(&info, &claimed))
    };
    let liar = bad.add(add).await.unwrap();
    let mut lost = liar.events();
    seed(&good, &info, &origin).await;
    let to = session().await;
    let add = AddTorrent {
        peers: bad.listen_addrs().to_vec(),
        ..AddTorrent::new(Arc::clone(&info), paths(&info, &target))
    };
    let leech = to.add(add).await.unwrap();
    loop {
        if let TorrentEvent::PieceLost(_) = timeout(PATIENCE, lost.recv()).await.unwrap().unwrap() {
            break;
        }
    }
    leech.add_peers(good.listen_addrs().to_vec()).await;
    timeout(PATIENCE, leech.finished()).await.unwrap().unwrap();
    same(&info, &origin, &target);
    assert_eq!(leech.status().borrow().wasted, 0, "nothing wrong ever left the first seed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_changed_while_it_is_seeded_is_noticed() {
    let (dir, info) = build(Format::Hybrid);
    let origin = dir.path().join("build");
    let (from, to, last) = (session().await, session().await, session().await);
    seed(&from, &info, &origin).await;
    // Downloaded in this process, so its pieces were believed in.
    let target = dir.path().join("copy");
    let add = AddTorrent {
        peers: from.listen_addrs().to_vec(),
        ..AddTorrent::new(Arc::clone(&info), paths(&info, &target))
    };
    let middle = to.add(add).await.unwrap();
    timeout(PATIENCE, middle.finished()).await.unwrap().unwrap();
    middle.sync().await.unwrap();
    middle.seed_only().await;
    from.stop().await;
    let mut lost = middle.events();
    let changed = target.join("b.bin");
    let mut bytes = std::fs::read(&changed).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&changed, bytes).unwrap();
    let add = AddTorrent {
        peers: to.listen_addrs().to_vec(),
        ..AddTorrent::new(Arc::clone(&info), paths(&info, &dir.path().join("last")))
    };
    let leech = last.add(add).await.unwrap();
    loop {
        if let TorrentEvent::PieceLost(_) = timeout(PATIENCE, lost.recv()).await.unwrap().unwrap() {
            break;
        }
    }
    let piece_bytes = u64::from(info.geometry.piece_length());
    let rest = info.geometry.content_len() - piece_bytes;
    let mut status = leech.status();
    let all_else = status.wait_for(|status| status.have_bytes >= rest);
    let status = timeout(PATIENCE, all_else).await.unwrap().unwrap().clone();
    assert_eq!(status.wasted, 0, "nothing wrong was sent");
}

/// All blocks of a file but some are supplied, one of them wrong: its piece is fetched, and of the
/// others only what was not supplied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_caller_has_is_not_fetched_and_a_wrong_guess_costs_its_piece() {
    for format in [Format::V2, Format::Hybrid] {
        let (dir, info) = build(format);
        let origin = dir.path().join("build");
        let (from, to) = (session().await, session().await);
        seed(&from, &info, &origin).await;
        let one = info.files.iter().position(|file| file.path[1..] == ["one.pak"]).unwrap();
        let data = std::fs::read(origin.join("a/one.pak")).unwrap();
        let geometry = &info.geometry;
        let pieces = geometry.pieces_of(crate::ids::FileIndex(u32::try_from(one).unwrap()));
        let (wrong, holey) = (pieces.start + 3, pieces.start + 5);
        let mut batches: Vec<Vec<(Block, Bytes)>> = Vec::new();
        let mut missing = geometry.content_len() - data.len() as u64;
        for (number, piece) in pieces.clone().enumerate() {
            let blocks = (0..geometry.block_count(PieceIndex(piece))).filter_map(|index| {
                let block = geometry.block(PieceIndex(piece), index);
                let at = number * 65_536 + block.offset as usize;
                let mut bytes = data[at..at + block.len as usize].to_vec();
                if piece == wrong && index == 1 {
                    bytes[7] ^= 1;
                }
                (piece != holey || index != 2).then(|| (block, Bytes::from(bytes)))
            });
            batches.push(blocks.collect());
        }
        missing += 16_384 + 65_536;
        // Nonsense is passed over.
        let nowhere = Block { piece: PieceIndex(0), offset: 5, len: 16_384 };
        batches.push(vec![(nowhere, Bytes::from(vec![0; 16_384]))]);
        let (sender, supply) = tokio::sync::mpsc::channel(1);
        let add = AddTorrent {
            peers: from.listen_addrs().to_vec(),
            supply: Some(supply),
            ..AddTorrent::new(Arc::clone(&info), paths(&info, &dir.path().join("copy")))
        };
        let leech = to.add(add).await.unwrap();
        for batch in batches {
            sender.send(batch).await.unwrap();
        }
        drop(sender);
        timeout(PATIENCE, leech.finished()).await.unwrap().unwrap();
        same(&info, &origin, &dir.path().join("copy"));
        let status = leech.status().borrow().clone();
        assert_eq!(status.down_peers, missing, "{format:?}");
        assert_eq!(status.supplied, data.len() as u64 - 16_384, "{format:?}");
        assert_eq!(leech.peers().await.len(), 1, "nobody is to blame");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_and_a_torrent_twice_are_clear_errors() {
    let (dir, info) = build(Format::V1);
    let first = session().await;
    let addr = first.listen_addrs()[0];
    let config = SessionConfig { listen: vec![addr], ..SessionConfig::default() };
    let error = Session::start(config).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {addr}: ")), "{error}");
    seed(&first, &info, &dir.path().join("build")).await;
    let again = first.add(AddTorrent::new(Arc::clone(&info), paths(&info, dir.path()))).await;
    assert!(matches!(again, Err(SessionError::Duplicate(_))));
}

#[tokio::test]
async fn who_is_met_again_at_another_address_is_told_so() {
    use crate::ids::PeerId;
    use crate::wire::handshake::{Abilities, HANDSHAKE_LEN, Handshake};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    let (dir, info) = build(Format::V1);
    let session = session().await;
    let _torrent = seed(&session, &info, &dir.path().join("build")).await;
    let meet = async || {
        let mut stream = TcpStream::connect(session.listen_addrs()[0]).await.unwrap();
        let (peer_id, info_hash) = (PeerId([9; 20]), info.hashes.swarm_hashes().next().unwrap());
        let abilities = Abilities { extensions: true, fast: true, v2: false, dht: false };
        let hello = Handshake { info_hash, peer_id, abilities };
        stream.write_all(&hello.encode()).await.unwrap();
        let mut answer = [0; HANDSHAKE_LEN];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        (stream, Handshake::parse(&answer).unwrap().peer_id)
    };
    let (mut first, theirs) = meet().await;
    let (mut second, told) = meet().await;
    assert_eq!(theirs, told);
    second.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, second.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty(), "no more than that");
    let mut more = [0; 4];
    timeout(PATIENCE, first.read_exact(&mut more)).await.unwrap().unwrap();
}
