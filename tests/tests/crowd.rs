//! A crowd under trouble: what a bad seed or peer may cost everybody else. Each fault has a
//! bound on what it wastes; nobody waits for ever.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::path::PathBuf;

use updraft_tests::clients::{OpenTracker, PEER_PORT, Reading, read_torrent};
use updraft_tests::content;
use updraft_tests::hostile::{HostilePeer, Malice, hash_bytes};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, READY_WAIT, Report, TRANSFER_WAIT, wait_complete};
use updraft_tests::process::Proc;
use updraft_tests::watcher::Watcher;

/// The size of the torrent.
const BYTES: u64 = 8 << 20;
/// Uplinks: the seed is faster than any leecher, and slower than all of them.
const SEED_UP: &str = "20mbit";
const PEER_UP: &str = "8mbit";
/// Blocks asked for twice in the endgame, or given up when somebody went: of what each leecher needs.
const WASTE_MAX: u64 = BYTES / 20;

/// A tracker, a slow seed, and leechers on uplinks of their own.
struct Crowd {
    lab: Lab,
    torrent: PathBuf,
    reading: Reading,
    seed: Proc,
    _tracker: OpenTracker,
    leechers: Vec<Leecher>,
}

struct Leecher {
    node: Node,
    into: PathBuf,
    proc: Proc,
}

impl Crowd {
    /// Starts tracker and seed; leechers come with [`Crowd::join`].
    fn new() -> Self {
        let lab = Lab::new();
        let source = lab.path("source/data.bin");
        content::write_file(&source, 31, BYTES);
        let torrent = lab.path("data.torrent");
        let tracker_node = lab.node();
        ours::create_torrent(&source, &torrent, "hybrid", &[OpenTracker::url(&tracker_node)]);
        let reading = read_torrent(&torrent);
        let hashes = reading.tracker_hashes();
        let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
        let node = lab.slow_node(SEED_UP);
        let listen = node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&node), &torrent, &lab.path("source"), listen);
        ours::wait_seeding(&seed, READY_WAIT);
        tracker.wait_seeds(&hashes[0], 1);
        Self { lab, torrent, reading, seed, _tracker: tracker, leechers: Vec::new() }
    }

    fn hash(&self) -> [u8; 20] {
        hash_bytes(&self.reading.tracker_hashes()[0])
    }

    fn pieces(&self) -> u32 {
        u32::try_from(BYTES.div_ceil(self.reading.piece_bytes)).expect("few pieces")
    }

    /// One more leecher, which stays; `into` is where it downloads to.
    fn join(&mut self, into: PathBuf, peers: &[SocketAddr]) {
        let node = self.lab.slow_node(PEER_UP);
        let listen = node.addr(PEER_PORT);
        let proc = ours::fetch(&Place::from(&node), &self.torrent, &into, listen, peers, true);
        self.leechers.push(Leecher { node, into, proc });
    }

    fn join_many(&mut self, count: usize, peers: &[SocketAddr]) {
        for index in 0..count {
            self.join(self.lab.folder(&format!("leecher{index}")), peers);
        }
    }

    /// Waits until a leecher is complete, compares what it has, and checks what it wasted.
    fn assert_complete(&self, leecher: &Leecher, waste_max: u64) -> Report {
        let report = wait_complete(&leecher.proc, TRANSFER_WAIT);
        let found = leecher.into.join("data.bin");
        let expected = self.lab.path("source/data.bin");
        assert!(
            std::fs::read(found).expect("the file is there")
                == std::fs::read(expected).expect("the file is there"),
            "{} differs",
            leecher.into.display()
        );
        assert!(report.wasted <= waste_max, "at most {waste_max} may be wasted: {report:?}");
        report
    }
}

/// The seed dies the moment every piece is out somewhere, while nobody is complete: nothing is lost
/// with it, and nobody fetches much twice.
#[test]
fn the_seed_may_die_when_every_piece_is_out() {
    let mut crowd = Crowd::new();
    crowd.join_many(6, &[]);
    let addrs: Vec<_> = crowd.leechers.iter().map(|one| one.node.addr(PEER_PORT)).collect();
    let watcher = Watcher::start(&crowd.lab.node(), &addrs, crowd.hash(), crowd.pieces());
    watcher.wait_all(TRANSFER_WAIT);
    crowd.seed.kill();
    let done = crowd.leechers.iter().filter(|one| ours::progress(&one.proc).is_none()).count();
    assert!(done < crowd.leechers.len(), "the seed died too late to tell anything");
    for leecher in &crowd.leechers {
        crowd.assert_complete(leecher, WASTE_MAX);
    }
}

/// A disk takes no writes for as long as it takes everybody else to be done: they do not wait for it, its
/// owner holds little in memory meanwhile, and is done when the disk goes on.
#[test]
fn a_disk_that_stands_still_holds_up_its_owner_alone() {
    const MEMORY_MAX: u64 = 64 << 20;
    let mut crowd = Crowd::new();
    let disk = crowd.lab.freezable_disk("disk", 4 * BYTES);
    crowd.join(disk.clone(), &[]);
    crowd.join_many(5, &[]);
    let (owner, others) = crowd.leechers.split_first().expect("they joined just now");
    ours::wait_progress(&owner.proc, BYTES / 8, TRANSFER_WAIT);
    let frozen = crowd.lab.freeze(&disk);
    for leecher in others {
        crowd.assert_complete(leecher, WASTE_MAX);
    }
    assert!(ours::progress(&owner.proc).is_some(), "it was done before its disk stood still");
    drop(frozen);
    crowd.assert_complete(owner, WASTE_MAX);
    let memory = owner.proc.resident_peak();
    assert!(memory <= MEMORY_MAX, "at most {MEMORY_MAX} bytes may be held in memory: {memory}");
}

/// Peers that serve poison and peers that never answer, all at once and known to everybody from the
/// start: each liar costs each leecher a few pieces, and no more.
#[test]
fn liars_and_stallers_together_cost_a_crowd_little() {
    const KINDS: [Malice; 6] =
        [Malice::Lie, Malice::Stall, Malice::Lie, Malice::Stall, Malice::HangUp, Malice::Silence];
    /// A liar is banned for its second wrong piece; until the first is found out, eight of one block are
    /// out or under judgement, and then one more.
    const PIECES_PER_LIAR: u64 = 9;
    let mut crowd = Crowd::new();
    let start = |malice: &Malice| {
        let (hash, pieces) = (crowd.hash(), crowd.pieces());
        HostilePeer::start(&crowd.lab.node(), PEER_PORT, hash, pieces, *malice)
    };
    let hostile: Vec<_> = KINDS.iter().map(start).collect();
    let peers: Vec<_> = hostile.iter().map(|peer| peer.addr).collect();
    crowd.join_many(4, &peers);
    let liars = KINDS.iter().filter(|kind| **kind == Malice::Lie).count() as u64;
    let poison = liars * PIECES_PER_LIAR * crowd.reading.piece_bytes;
    for leecher in &crowd.leechers {
        crowd.assert_complete(leecher, WASTE_MAX + poison);
    }
    for (peer, malice) in hostile.iter().zip(KINDS) {
        assert!(peer.connections() >= 4, "{malice:?} was not met by everybody");
    }
}
