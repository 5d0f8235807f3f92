//! Our programs and the clients of other people, in both directions: they download what we seed, we
//! download what they seed, and all of them together finish.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use updraft_tests::clients::{
    Aria2, Client, Libtorrent, OpenTracker, PEER_PORT, Transmission, make_torrent, read_torrent,
    scrape, until,
};
use updraft_tests::content::{self, parent};
use updraft_tests::lab::{Lab, Node};
use updraft_tests::ours::{self, Place, Product};
use updraft_tests::process::Proc;

/// How long a swarm of some megabytes may take; Transmission alone waits up to ten seconds between
/// its looks at the list of peers.
const SWARM_WAIT: Duration = Duration::from_secs(90);
/// Where our origin listens.
const ORIGIN_PORT: u16 = 8080;
/// The size of the content.
const BYTES: u64 = 12 << 20;

/// One kind of foreign client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Libtorrent,
    Aria2,
    Transmission,
}

impl Kind {
    fn start(self, lab: &Lab, node: &Node) -> Box<dyn Client> {
        match self {
            Self::Libtorrent => Box::new(Libtorrent::start(node)),
            Self::Aria2 => Box::new(Aria2::start(node)),
            Self::Transmission => Box::new(Transmission::start(lab, node)),
        }
    }

    /// The torrent formats it can read. Transmission 3.00 and aria2 1.36 stumble over the empty key in
    /// the file tree of a hybrid torrent, whoever made it: the one refuses the file, the other computes
    /// another info-hash.
    fn formats(self) -> &'static [&'static str] {
        match self {
            Self::Libtorrent => &["v1", "hybrid", "v2"],
            Self::Aria2 | Self::Transmission => &["v1"],
        }
    }
}

fn build(lab: &Lab, seed: u64) -> PathBuf {
    content::shared_game(lab.path("source/game"), seed, BYTES)
}

fn assert_arrived(source: &Path, into: &Path) {
    content::assert_same_contents(source, &into.join("game"), &[]);
}

#[test]
fn foreign_clients_serve_each_other() {
    let lab = Lab::new();
    let source = build(&lab, 1);
    let torrent = lab.path("game.torrent");
    let tracker_node = lab.node();
    let reading = make_torrent(&source, &torrent, "v1", &[OpenTracker::url(&tracker_node)]);
    let tracker = OpenTracker::start(&lab, &tracker_node, &reading.tracker_hashes());
    let mut seed = Libtorrent::start(&lab.node());
    seed.seed(&torrent, parent(&source));
    tracker.wait_seeds(&reading.tracker_hashes()[0], 1);
    let mut leeches = [Kind::Aria2, Kind::Transmission].map(|kind| kind.start(&lab, &lab.node()));
    for (index, leech) in leeches.iter_mut().enumerate() {
        leech.leech(&torrent, &lab.folder(&format!("leech{index}")));
    }
    for (index, leech) in leeches.iter_mut().enumerate() {
        leech.wait_done(&torrent, SWARM_WAIT);
        assert_arrived(&source, &lab.path(&format!("leech{index}")));
    }
}

/// Their client, with what it does by itself, downloads what our publisher created and seeds.
fn they_download(kind: Kind) {
    let lab = Lab::new();
    let source = build(&lab, 2);
    let tracker_node = lab.node();
    let torrents: Vec<_> =
        kind.formats().iter().map(|format| lab.path(&format!("{format}.torrent"))).collect();
    let mut hashes = Vec::new();
    for (format, torrent) in kind.formats().iter().zip(&torrents) {
        ours::create_torrent(&source, torrent, format, &[OpenTracker::url(&tracker_node)]);
        hashes.extend(read_torrent(torrent).tracker_hashes());
    }
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let mut client = kind.start(&lab, &lab.node());
    // One address each, or a client that knows one of our seeds would refuse the next.
    let _seeds: Vec<Proc> = torrents
        .iter()
        .map(|torrent| {
            let node = lab.node();
            ours::seed(&Place::from(&node), torrent, parent(&source), node.addr(PEER_PORT))
        })
        .collect();
    for torrent in &torrents {
        tracker.wait_seeds(&read_torrent(torrent).tracker_hashes()[0], 1);
    }
    for torrent in &torrents {
        client.leech(torrent, &lab.folder(&format!("into-{}", name(torrent))));
    }
    for torrent in &torrents {
        client.wait_done(torrent, SWARM_WAIT);
        assert_arrived(&source, &lab.path(&format!("into-{}", name(torrent))));
    }
}

fn name(torrent: &Path) -> String {
    torrent.file_stem().expect("a torrent has a name").to_string_lossy().into_owned()
}

#[test]
fn libtorrent_downloads_what_we_seed() {
    they_download(Kind::Libtorrent);
}

#[test]
fn transmission_downloads_what_we_seed() {
    they_download(Kind::Transmission);
}

#[test]
fn aria2_downloads_what_we_seed() {
    they_download(Kind::Aria2);
}

/// Our launcher downloads what their client seeds, from a torrent that libtorrent made.
fn we_download(kind: Kind) {
    let lab = Lab::new();
    let source = build(&lab, 3);
    let tracker_node = lab.node();
    let torrents: Vec<_> =
        kind.formats().iter().map(|format| lab.path(&format!("{format}.torrent"))).collect();
    let mut hashes = Vec::new();
    for (format, torrent) in kind.formats().iter().zip(&torrents) {
        let reading = make_torrent(&source, torrent, format, &[OpenTracker::url(&tracker_node)]);
        hashes.extend(reading.tracker_hashes());
    }
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let mut client = kind.start(&lab, &lab.node());
    for torrent in &torrents {
        let dir = lab.folder(&format!("from-{}", name(torrent)));
        content::copy_tree(&source, &dir.join("game"));
        client.seed(torrent, &dir);
    }
    for torrent in &torrents {
        tracker.wait_seeds(&read_torrent(torrent).tracker_hashes()[0], 1);
        let node = lab.node();
        let into = lab.folder(&format!("into-{}", name(torrent)));
        let mut fetch =
            ours::fetch(&Place::from(&node), torrent, &into, node.addr(PEER_PORT), &[], false);
        fetch.finish(SWARM_WAIT);
        content::assert_same(&source, &into.join("game"), &[]);
    }
}

#[test]
fn we_download_what_libtorrent_seeds() {
    we_download(Kind::Libtorrent);
}

#[test]
fn we_download_what_transmission_seeds() {
    we_download(Kind::Transmission);
}

#[test]
fn we_download_what_aria2_seeds() {
    we_download(Kind::Aria2);
}

/// What a .torrent file holds comes from our seed: the info dictionary (BEP 9), and for v2 the hashes of
/// pieces (BEP 52), without which libtorrent verifies nothing.
#[test]
fn libtorrent_downloads_by_magnet_links_of_what_we_seed() {
    for format in ["v1", "hybrid", "v2"] {
        let lab = Lab::new();
        let source = build(&lab, 7);
        let torrent = lab.path("game.torrent");
        ours::create_torrent(&source, &torrent, format, &[]);
        let mut magnet = Place::Here.publisher();
        magnet.args(["torrent", "magnet"]).arg(&torrent);
        let mut magnet = Proc::start("torrent magnet", magnet);
        magnet.finish(ours::READY_WAIT);
        let text = magnet.text();
        let link = text.split_whitespace().find(|word| word.starts_with("magnet:"));
        let link = link.expect("a link is printed");
        let node = lab.node();
        let listen = node.addr(PEER_PORT);
        let seed = ours::seed(&Place::from(&node), &torrent, parent(&source), listen);
        ours::wait_seeding(&seed, ours::READY_WAIT);
        let mut leech = Libtorrent::start(&lab.node());
        let into = lab.folder("into");
        leech.add_magnet(link, &into, &[listen]);
        leech.wait_done(Path::new(link), SWARM_WAIT);
        assert_arrived(&source, &into);
    }
}

/// Three foreign clients and two of ours, one seed of ours that is slow enough that they need each
/// other, and everybody finishes.
#[test]
fn a_mixed_swarm_finishes() {
    let lab = Lab::new();
    let source = build(&lab, 4);
    let torrent = lab.path("game.torrent");
    let tracker_node = lab.node();
    ours::create_torrent(&source, &torrent, "v1", &[OpenTracker::url(&tracker_node)]);
    let hashes = read_torrent(&torrent).tracker_hashes();
    let tracker = OpenTracker::start(&lab, &tracker_node, &hashes);
    let seed_node = lab.slow_node("60mbit");
    let _seed =
        ours::seed(&Place::from(&seed_node), &torrent, parent(&source), seed_node.addr(PEER_PORT));
    tracker.wait_seeds(&hashes[0], 1);
    let kinds = [Kind::Libtorrent, Kind::Aria2, Kind::Transmission];
    let mut foreign = kinds.map(|kind| kind.start(&lab, &lab.node()));
    for (index, client) in foreign.iter_mut().enumerate() {
        client.leech(&torrent, &lab.folder(&format!("foreign{index}")));
    }
    let fetches: Vec<_> = (0..2)
        .map(|index| {
            let node = lab.node();
            let into = lab.folder(&format!("ours{index}"));
            ours::fetch(&Place::from(&node), &torrent, &into, node.addr(PEER_PORT), &[], true)
        })
        .collect();
    for (index, client) in foreign.iter_mut().enumerate() {
        client.wait_done(&torrent, SWARM_WAIT);
        assert_arrived(&source, &lab.path(&format!("foreign{index}")));
    }
    for (index, fetch) in fetches.iter().enumerate() {
        ours::wait_complete(fetch, SWARM_WAIT);
        content::assert_same(&source, &lab.path(&format!("ours{index}/game")), &[]);
    }
}

/// A release as `serve` offers it to stock clients: the torrent of the repository, our tracker.
#[test]
fn libtorrent_downloads_a_release_from_our_tracker() {
    let lab = Lab::new();
    let source = build(&lab, 5);
    let origin = lab.node();
    let product = Product::init(
        &Place::from(&origin),
        &lab.path("product"),
        "game",
        origin.addr(ORIGIN_PORT),
    );
    product.publish(&source, "1.0");
    let _origin = product.serve();
    let torrents = std::fs::read_dir(product.repository().join("torrents"));
    let torrent = torrents.expect("torrents are published").flatten().next();
    let torrent = torrent.expect("a release has a torrent").path();
    let mut client = Libtorrent::start(&lab.node());
    client.leech(&torrent, &lab.folder("into"));
    client.wait_done(&torrent, SWARM_WAIT);
    assert_arrived(&source, &lab.path("into"));
    // Our seed and, under either of its hashes, the new one.
    for hash in read_torrent(&torrent).tracker_hashes() {
        until("two seeds at our tracker", SWARM_WAIT, || {
            let counts = scrape(&origin, origin.addr(ORIGIN_PORT), &hash)?;
            (counts.0 >= 2).then_some(())
        });
    }
}
